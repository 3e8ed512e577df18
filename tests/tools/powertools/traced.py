"""What Powertools' tracer does around a handler: segments below the one that Lambda opens."""

from aws_lambda_powertools import Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

tracer = Tracer(service="traced")


@tracer.capture_method
def double(number: int) -> int:
    tracer.put_annotation(key="number", value=number)
    return 2 * number


@tracer.capture_lambda_handler
def handler(event: dict[str, int], context: LambdaContext) -> dict[str, object]:
    segment = tracer.provider.get_trace_entity()
    return {"doubled": double(event["number"]), "trace": segment.trace_id, "segment": segment.name}
