"""A batch of SQS messages, of which those that fail are told, and a payment that is made once however often it is asked for."""

import json
import os

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent,
)
from aws_lambda_powertools.utilities.typing import LambdaContext

processor = BatchProcessor(event_type=EventType.SQS)
store = DynamoDBPersistenceLayer(table_name=os.environ["PAYMENTS_TABLE"])
once = IdempotencyConfig(event_key_jmespath="order")


def ship(record: SQSRecord) -> str:
    order = json.loads(record.body)
    if order["pieces"] < 1:
        raise ValueError(f"order {order['order']} has no pieces")
    print("shipped", order["order"])
    return str(order["order"])


def batch(event: dict[str, object], context: LambdaContext) -> dict[str, object]:
    return process_partial_response(event=event, record_handler=ship, processor=processor, context=context)


@idempotent(config=once, persistence_store=store)
def pay(event: dict[str, object], context: LambdaContext) -> dict[str, object]:
    print("paid", event["order"])
    return {"order": event["order"], "paid_in": context.aws_request_id}
