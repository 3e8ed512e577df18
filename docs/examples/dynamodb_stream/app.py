"""Reads a batch from a DynamoDB stream and says what changed, item by item.

Stream records carry values in DynamoDB's own notation ({"N": "3"}); boto3 brings the reader for it.
"""

from boto3.dynamodb.types import TypeDeserializer

to_python = TypeDeserializer().deserialize


def handler(event, context):
    counts = {"INSERT": 0, "MODIFY": 0, "REMOVE": 0}
    changes = []
    for record in event["Records"]:
        kind = record["eventName"]
        counts[kind] += 1
        change = record["dynamodb"]
        before, after = plain(change.get("OldImage", {})), plain(change.get("NewImage", {}))
        changed = {name: after.get(name) for name in before | after if before.get(name) != after.get(name)}
        print(kind, plain(change["Keys"]), changed)
        changes.append({"kind": kind, "keys": plain(change["Keys"]), "changed": changed})
    return {"counts": counts, "changes": changes}


def plain(image):
    return {name: to_python(value) for name, value in image.items()}
