"""Event sources: what is read from queues, streams and topics goes to functions, as event source mappings say.

    store ── a mapping changed ──► engine ── one supervisor a mapping ──► poller (pollers/, one file a kind)
                                                                           │ receive, fetch, subscribe
     source (SQS, Kinesis, Kafka, Redis ...) ◄── delete, acknowledge ──────┤
                                                                           ▼
                              filters (what does not match is passed over), batches (size, window, 6 MB)
                                                                           │ payload
                       abc.Invoker ◄── deliveries: retries, bisection, age, partial failures, on-failure records
                                                                           │
     store ◄── positions of ordered sources, before the next batch ────────┘

Everything runs as asyncio tasks in the daemon's loop. Only what an operating-system call would hold up (credentials, a
client library that has no asyncio form) is done in a thread.
"""
