"""fastlam inside a Python program: an Executor, and a Runtime for Lambda functions.

::

    Executor.submit ─┐                           ┌─► worker process (tasks)
                     ├─► Engine: one dispatcher ─┤      pickle over the lane
    Function.invoke ─┘    one launcher, zygotes  └─► execution environment (function)
                                                        JSON over the lane

All executors and runtimes of a process share one engine, which ends with the last of them. A caller that waits drives
it, and so does an event loop with calls under way; a background thread does so for those who do not (callbacks,
`as_completed`, `asyncio.wrap_future`).
"""
