"""A REST API of Powertools: routes, errors, logs with the invocation in them, metrics."""

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response, content_types
from aws_lambda_powertools.event_handler.exceptions import BadRequestError
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

app = APIGatewayRestResolver()
logger = Logger(service="greetings")
metrics = Metrics(namespace="Fastlam", service="greetings")


@app.get("/greetings/<name>")
def greet(name: str) -> dict[str, str]:
    language = app.current_event.get_query_string_value("language", default_value="en")
    logger.info("asked for a greeting", language=language)
    metrics.add_metric(name="Greetings", unit=MetricUnit.Count, value=1)
    return {"greeting": f"{'Bonjour' if language == 'fr' else 'Hello'}, {name}"}


@app.post("/greetings")
def keep() -> Response[str]:
    wanted = app.current_event.json_body
    if "name" not in wanted:
        raise BadRequestError("a name is missing")
    return Response(
        status_code=201,
        content_type=content_types.TEXT_PLAIN,
        body=wanted["name"],
        headers={"Location": f"/greetings/{wanted['name']}"},
    )


@app.exception_handler(ZeroDivisionError)
def impossible(error: ZeroDivisionError) -> Response[str]:
    return Response(status_code=418, content_type=content_types.TEXT_PLAIN, body=str(error))


@app.get("/impossible")
def divide() -> dict[str, float]:
    return {"result": 1 / 0}


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST)
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event: dict[str, object], context: LambdaContext) -> dict[str, object]:
    return app.resolve(event, context)
