"""An application of Chalice: two routes of a REST API, and a function beside them. It is packaged as app.py."""

from typing import Any

from chalice import Chalice, NotFoundError

app = Chalice(app_name="orders")
ORDERS = {"1": "two pieces"}


@app.route("/orders/{number}")
def order(number: str) -> dict[str, str]:
    if number not in ORDERS:
        raise NotFoundError(f"there is no order {number}")
    return {"order": number, "what": ORDERS[number]}


@app.route("/orders", methods=["POST"])
def place() -> dict[str, Any]:
    return {"placed": app.current_request.json_body, "by": app.lambda_context.function_name}


@app.lambda_function(name="count")
def count(event: dict[str, Any], context: Any) -> int:
    return len(event["words"])
