"""An application of Chalice without an API: a function that is to read a queue. It is deployed as app.py."""

from typing import Any

from chalice import Chalice

app = Chalice(app_name="jobs")


@app.on_sqs_message(queue="jobs", batch_size=5)
def work(event: Any) -> list[str]:
    return [f"worked on {record.body}" for record in event]
