"""A program whose functions have walls: `walled_runtime.py DIRECTORY LEVEL`. Prints what they say, as JSON."""

import json
import os
import sys
import time

from fastlam import Runtime

directory, level = sys.argv[1:]
said = {}
with Runtime(isolation=level) as runtime, Runtime() as plain:
    function = runtime.function("walled", "app.handler", code=directory, memory=128, timeout=20)
    beside = plain.function("plain", "app.handler", code=directory, memory=128, timeout=20)
    said["walled"], said["plain"] = function.invoke({}).payload, beside.invoke({}).payload
    said["eaten"] = function.invoke({"mb": 512}).payload
    said["again"] = function.invoke({}).payload["calls"]
    said["beside"] = beside.invoke({}).payload["calls"]
    try:
        runtime.function("callable", time.sleep)
    except ValueError as error:
        said["callable"] = str(error)
    with Runtime(isolation="auto") as other:
        said["other"] = other.function("other", "app.handler", code=directory).invoke({}).payload["root"]
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    said["after a fork"] = function.invoke({}).payload["calls"]
    said["missing"] = runtime._engine.isolation.missing
print(json.dumps(said))
