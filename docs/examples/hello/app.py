"""The first function of everybody: an HTTP answer with a JSON body, as API Gateway and function URLs expect it."""

import json


def handler(event, context):
    name = (event.get("queryStringParameters") or {}).get("name", "Lambda")
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps({"message": f"Hello from {name}!"}),
    }
