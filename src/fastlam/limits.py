"""Every bound of the system in one place; units are the last word of each name.

Lambda's own quotas are named after AWS's documentation (Lambda quotas page); the others bound our own queues, tables
and buffers.
"""

from __future__ import annotations

from typing import Final

# Lambda's quotas -------------------------------------------------------------------------------
SYNC_PAYLOAD_BYTES_MAX: Final = 6_291_456
ASYNC_PAYLOAD_BYTES_MAX: Final = 1_048_576
LEGACY_ASYNC_PAYLOAD_BYTES_MAX: Final = 262_144  # of InvokeAsync
RESPONSE_BYTES_MAX: Final = 6_291_556  # 6 MiB + 100, as the service enforces it
STREAM_BYTES_MAX: Final = 209_715_201  # of a streamed response: 200 MiB and one byte, where the service cuts it
CLIENT_CONTEXT_BYTES_MAX: Final = 3583
LOG_TAIL_BYTES: Final = 4096
ZIP_BYTES_MAX: Final = 52_428_800
UNZIPPED_BYTES_MAX: Final = 262_144_000
CODE_STORAGE_BYTES_MAX: Final = 322_122_547_200  # of all versions and layers of an account and region
LAYERS_PER_FUNCTION_MAX: Final = 5
CONTROL_REQUEST_BYTES_MAX: Final = 70_167_211
CONFIGURATION_REQUEST_BYTES_MAX: Final = 5_120
ENVIRONMENT_BYTES_MAX: Final = 4_096
ACCOUNT_CONCURRENCY: Final = 1000
UNRESERVED_CONCURRENCY_MIN: Final = 100
INIT_TIMEOUT_MS: Final = 10_000
PROVISIONED_INIT_TIMEOUT_MS: Final = 130_000  # or the function's timeout, where that is longer
TIMEOUT_SECONDS_MAX: Final = 900
MEMORY_MB_MIN: Final = 128
MEMORY_MB_MAX: Final = 10_240
EPHEMERAL_STORAGE_MB_MIN: Final = 512
EPHEMERAL_STORAGE_MB_MAX: Final = 10_240
MEMORY_MB_PER_CPU: Final = 1769
OPEN_FILES_MAX: Final = 1024  # of one environment; this and the next three as recorded in one
PROCESSES_MAX: Final = 1024  # threads count
CORE_BYTES_MAX: Final = 10_737_418_240
LOCKED_BYTES_MAX: Final = 65_536
MANAGED_TIMEOUT_SECONDS_MAX: Final = 5_400  # managed: of functions on capacity providers
MANAGED_MEMORY_MB_MIN: Final = 2_048
MANAGED_MEMORY_MB_MAX: Final = 32_768
MANAGED_EPHEMERAL_STORAGE_MB_MAX: Final = 32_768
CAPACITY_PROVIDERS_MAX: Final = 1_000
VERSIONS_PER_CAPACITY_PROVIDER_MAX: Final = 100
DURABLE_RETENTION_DAYS: Final = 14  # of the record of a durable execution, unless told otherwise
DURABLE_ERROR_BYTES_MAX: Final = 32_768
DURABLE_RESULT_BYTES_MAX: Final = 1_048_576  # of a callback
DURABLE_PAGE_ITEMS_MAX: Final = 1_000
EVENT_DEPTH_MAX: Final = 1000  # objects and arrays one in another, as the service's parser allows
FILTERS_PER_MAPPING_MAX: Final = 5  # of one event source mapping; AWS raises it to 10 on request
FILTER_ALTERNATIVES_MAX: Final = 1000  # patterns without $or that one filter pattern stands for

# Our own bounds --------------------------------------------------------------------------------
SUBMIT_RING_SLOTS: Final = 8192  # power of two; submitters help to drain a full ring
PENDING_INVOCATIONS_MAX: Final = 20_000  # calls waiting for this machine's environment bound
FRAME_HEADER_BYTES_MAX: Final = 64 * 1024
FRAME_BYTES_MAX: Final = RESPONSE_BYTES_MAX + FRAME_HEADER_BYTES_MAX + 64
CHUNK_BYTES_MAX: Final = 65_536  # of a streamed response in one frame
STREAM_PENDING_BYTES_MAX: Final = 262_144  # of a streamed response that its caller has not taken; then its lane rests
SLOTS_PER_ENVIRONMENT: Final = 32  # power of two; tasks one executor worker may hold
INVOCATIONS_PER_ENVIRONMENT: Final = 16  # that a function's may hold: one in hand, and short ones behind it
EXPRESS_RING_BYTES: Final = 65_536  # power of two; each of the two rings of an environment's express lane
EXPRESS_REGION_BYTES: Final = FRAME_BYTES_MAX + 64  # beside each ring, for what is too long for it
SLOT_MIRROR_BYTES: Final = 1024  # replies up to this size survive the death of their worker
LOG_BYTES_PER_INVOCATION_MAX: Final = 8 * 1024 * 1024
ENVIRONMENTS_MAX: Final = 1000  # live environments of one dispatcher unless told otherwise
DESCRIPTORS_PER_ENVIRONMENT: Final = 15  # of the dispatching process: six for good, the others while it starts
DESCRIPTORS_PER_NETWORK: Final = 2  # and as many more with a network of its own: one for good
DESCRIPTORS_BESIDE: Final = 64  # for everything else
PROCESS_START_SECONDS: Final = 120  # from the order of an environment's process until it is there; then INIT begins
KEEPALIVE_SECONDS: Final = 600.0  # of environments that nobody uses; Lambda's live five to fifteen minutes
RECYCLE_AFTER_SECONDS: Final = 50_400.0  # no environment of Lambda's has been seen to live for longer than 14 hours
BOUND_NOTICE_SECONDS: Final = 60.0  # between two words about this machine's bound on environments
HTTP_HEADER_BYTES_MAX: Final = 1_048_576  # request line and headers, as the service's own quota
HTTP_CONNECTIONS_MAX: Final = 10_000
HTTP_REFUSED_CONNECTIONS_MAX: Final = 64  # connections over the maximum that still hear a 503
HTTP_HEADERS_MAX: Final = 1000  # header lines of one request
HTTP_PIPELINE_MAX: Final = 64  # requests of one connection that are in work; more are not read
HTTP_IDLE_SECONDS: Final = 300  # a silent connection between two requests
HTTP_REQUEST_SECONDS: Final = 60  # a request whose head, or next piece of body, does not come
HTTP_LINGER_SECONDS: Final = 5  # a refused client may go on sending for so long before the connection is cut
HTTP_LISTEN_BACKLOG: Final = 4096
DOOR_BACKLOG: Final = 128  # of the daemon's listening socket in a network of an environment's own
FRONTS_MAX: Final = 64  # front processes of one daemon
FRONT_AGAIN_SECONDS: Final = 1.0  # between two starts of one front process
FRONT_LEAVE_SECONDS: Final = 10.0  # for each step of its leave; then it is killed
ZIP_ENTRIES_MAX: Final = 100_000
ZIP_PATH_BYTES_MAX: Final = 2048  # of one path inside an archive
ZIP_NAME_BYTES_MAX: Final = 255  # of one component of it; what Linux file systems take
ZIP_DEPTH_MAX: Final = 128  # components of one path
ZIP_LINK_STEPS_MAX: Final = 1_000_000  # path components followed while all links of an archive are checked
CODE_LINK_SECONDS: Final = 600  # how long GetFunction's Code.Location is good
CODE_GRACE_SECONDS: Final = MANAGED_TIMEOUT_SECONDS_MAX + 60  # replaced code stays: an invocation may still run on it
STATE_CHANGE_SECONDS: Final = 0.05  # Pending to Active, InProgress to Successful
PROVISIONED_PROGRESS_SECONDS: Final = 0.02  # between two looks at how far environments made ahead have come
PROVISIONED_RETRY_SECONDS: Final = 1.0  # after the INIT of a replacement failed; then twice as long each time
PROVISIONED_RETRY_SECONDS_MAX: Final = 300.0
AUTO_SCALING_PERIOD_SECONDS_MIN: Final = 0.25  # which is how often the daemon keeps house
LIST_PAGE_ITEMS_MAX: Final = 50
TAGS_MAX: Final = 50
POLICY_BYTES_MAX: Final = 20_480  # of the policy of one function, version, alias or layer version
BLOCKING_BODY_BYTES: Final = 1_048_576  # bodies larger than this are decoded on a worker thread
SCAN_WITHOUT_GIL_BYTES_MIN: Final = 65_536  # shorter events are scanned before a thread could be switched
LOG_RECORDS_PER_FUNCTION_MAX: Final = 10_000  # invocations whose log is kept
LOG_BYTES_PER_FUNCTION_MAX: Final = 32 * 1024 * 1024  # of output kept
TENANTS_PER_CONCURRENCY: Final = 2.5  # tenants of one function for each unit of the account concurrency
TARGET_CACHE_ENTRIES_MAX: Final = 10_000  # resolved addresses of invocations; the cache is emptied when full
FORWARD_THREADS_MAX: Final = 32  # requests to other services under way at a time
FORWARD_BODY_BYTES_MAX: Final = 70_167_211
EVENT_AGE_SECONDS_MAX: Final = 21_600  # how long a throttled asynchronous event is tried again
S3_CONNECT_SECONDS: Final = 5
S3_SILENCE_SECONDS: Final = 15  # between two pieces of an object
S3_READ_SECONDS_MAX: Final = 55  # for the whole object: SDKs wait 60 s for the answer to theirs
S3_ATTEMPTS_MAX: Final = 2
S3_PIECE_BYTES: Final = 1_048_576  # read at a time
