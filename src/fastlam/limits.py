"""Every bound of the system in one place; units are the last word of each name.

Lambda's own quotas are named after AWS's documentation (Lambda quotas page); the others bound our own queues, tables
and buffers.
"""

from __future__ import annotations

from typing import Final

# Lambda's quotas -------------------------------------------------------------------------------
SYNC_PAYLOAD_BYTES_MAX: Final = 6_291_456
ASYNC_PAYLOAD_BYTES_MAX: Final = 1_048_576
RESPONSE_BYTES_MAX: Final = 6_291_556  # 6 MiB + 100, as the service enforces it
CLIENT_CONTEXT_BYTES_MAX: Final = 3583
LOG_TAIL_BYTES: Final = 4096
ZIP_BYTES_MAX: Final = 52_428_800
UNZIPPED_BYTES_MAX: Final = 262_144_000
CONTROL_REQUEST_BYTES_MAX: Final = 70_167_211
CONFIGURATION_REQUEST_BYTES_MAX: Final = 5_120
ENVIRONMENT_BYTES_MAX: Final = 4_096
ACCOUNT_CONCURRENCY: Final = 1000
UNRESERVED_CONCURRENCY_MIN: Final = 100
INIT_TIMEOUT_MS: Final = 10_000
TIMEOUT_SECONDS_MAX: Final = 900
MEMORY_MB_MIN: Final = 128
MEMORY_MB_MAX: Final = 10_240
EVENT_DEPTH_MAX: Final = 1000  # objects and arrays one in another, as the service's parser allows

# Our own bounds --------------------------------------------------------------------------------
SUBMIT_RING_SLOTS: Final = 8192  # power of two; submitters help to drain a full ring
PENDING_INVOCATIONS_MAX: Final = 20_000  # calls waiting for this machine's environment bound
FRAME_HEADER_BYTES_MAX: Final = 64 * 1024
FRAME_BYTES_MAX: Final = RESPONSE_BYTES_MAX + FRAME_HEADER_BYTES_MAX + 64
SLOTS_PER_ENVIRONMENT: Final = 32  # power of two; tasks one executor worker may hold
SLOT_MIRROR_BYTES: Final = 1024  # replies up to this size survive the death of their worker
LOG_BYTES_PER_INVOCATION_MAX: Final = 8 * 1024 * 1024
ENVIRONMENTS_MAX: Final = 1000  # live environments of one dispatcher unless told otherwise
ENVIRONMENT_IDLE_SECONDS: Final = 600
HTTP_HEADER_BYTES_MAX: Final = 1_048_576  # request line and headers, as the service's own quota
HTTP_CONNECTIONS_MAX: Final = 10_000
HTTP_REFUSED_CONNECTIONS_MAX: Final = 64  # connections over the maximum that still hear a 503
HTTP_HEADERS_MAX: Final = 1000  # header lines of one request
HTTP_PIPELINE_MAX: Final = 64  # requests of one connection that are in work; more are not read
HTTP_IDLE_SECONDS: Final = 300  # a silent connection between two requests
HTTP_REQUEST_SECONDS: Final = 60  # a request whose head, or next piece of body, does not come
HTTP_LINGER_SECONDS: Final = 5  # a refused client may go on sending for so long before the connection is cut
HTTP_LISTEN_BACKLOG: Final = 4096
ZIP_ENTRIES_MAX: Final = 100_000
ZIP_PATH_BYTES_MAX: Final = 2048  # of one path inside an archive
ZIP_NAME_BYTES_MAX: Final = 255  # of one component of it; what Linux file systems take
ZIP_DEPTH_MAX: Final = 128  # components of one path
ZIP_LINK_STEPS_MAX: Final = 1_000_000  # path components followed while all links of an archive are checked
CODE_LINK_SECONDS: Final = 600  # how long GetFunction's Code.Location is good
CODE_GRACE_SECONDS: Final = TIMEOUT_SECONDS_MAX + 60  # replaced code stays on disk; an invocation may still run on it
STATE_CHANGE_SECONDS: Final = 0.02  # Pending to Active, InProgress to Successful
LIST_PAGE_ITEMS_MAX: Final = 50
TAGS_MAX: Final = 50
BLOCKING_BODY_BYTES: Final = 1_048_576  # bodies larger than this are decoded on a worker thread
SCAN_WITHOUT_GIL_BYTES_MIN: Final = 65_536  # shorter events are scanned before a thread could be switched
LOG_RECORDS_PER_FUNCTION_MAX: Final = 10_000  # invocations whose log is kept
LOG_BYTES_PER_FUNCTION_MAX: Final = 32 * 1024 * 1024  # of output kept
TARGET_CACHE_ENTRIES_MAX: Final = 10_000  # resolved addresses of invocations; the cache is emptied when full
FORWARD_THREADS_MAX: Final = 32  # requests to other services under way at a time
FORWARD_BODY_BYTES_MAX: Final = 70_167_211
EVENT_AGE_SECONDS_MAX: Final = 21_600  # how long a throttled asynchronous event is tried again
