"""Writes its nonce down, prints it and echoes it."""

import os
import time

record = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND)


def handler(event, context):
    nonce = event["nonce"]
    os.write(record, nonce.to_bytes(8, "little"))
    print(nonce)
    if "sleep" in event:
        time.sleep(event["sleep"])
    return {"nonce": nonce}
