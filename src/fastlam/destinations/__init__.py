"""Where records of what became of events go: queues, topics, functions, buses, buckets.

A `Parcel` says what is to be delivered, where to, and in whose name; `Destinations.send(parcel, sent)` makes one
attempt and tells what came of it. Whoever sends keeps the parcel until then, and decides whether and when to try again.

One file a kind, each with one function `send(parcel, clients)` that runs on a thread and raises DeliveryError.
"""
