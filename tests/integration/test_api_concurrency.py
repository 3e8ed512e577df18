"""The operations on reserved concurrency as boto3 sees them."""

from __future__ import annotations

from typing import Any

from api_server import ApiServer, create, error_of, wait


def test_reserved_concurrency(client: Any) -> None:
    create(client)
    create(client, name="other")
    wait(client)
    wait(client, name="other")
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName="hello")
    before = client.get_function_configuration(FunctionName="hello")
    assert client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=900)[
        "ReservedConcurrentExecutions"
    ] == 900  # fmt: skip
    after = client.get_function_configuration(FunctionName="hello")
    assert after["RevisionId"] != before["RevisionId"]
    assert after["LastModified"] == before["LastModified"]
    client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=900)
    assert client.get_function_configuration(FunctionName="hello")["RevisionId"] == after["RevisionId"]
    assert client.get_function_concurrency(FunctionName="hello")["ReservedConcurrentExecutions"] == 900
    assert client.get_function(FunctionName="hello")["Concurrency"] == {"ReservedConcurrentExecutions": 900}
    assert "Concurrency" not in client.get_function(FunctionName="hello", Qualifier="$LATEST")
    error = error_of(client.put_function_concurrency, FunctionName="other", ReservedConcurrentExecutions=1)
    assert "Type" not in error.response
    assert error.response["Error"]["Message"] == (
        "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its"
        " minimum value of [100]."
    )
    assert client.put_function_concurrency(FunctionName="other", ReservedConcurrentExecutions=0)[
        "ReservedConcurrentExecutions"
    ] == 0  # fmt: skip
    assert client.delete_function_concurrency(FunctionName="hello")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert client.delete_function_concurrency(FunctionName="hello")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert "Concurrency" not in client.get_function(FunctionName="hello")


def test_reserved_concurrency_goes_with_the_function(client: Any) -> None:
    create(client)
    client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=5)
    client.delete_function(FunctionName="hello")
    create(client)
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName="hello")


def test_reserved_concurrency_is_of_functions_only(client: Any) -> None:
    create(client)
    error = error_of(client.put_function_concurrency, FunctionName="hello:$LATEST", ReservedConcurrentExecutions=5)
    assert error.response["Error"]["Message"] == (
        "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please"
        " specify either a function name or an unqualified function ARN."
    )


def test_fractions_of_concurrency(server: ApiServer, client: Any) -> None:
    create(client)
    path = "/2017-10-31/functions/hello/concurrency"
    assert server.send("PUT", path, {"ReservedConcurrentExecutions": 3.9}).json == {"ReservedConcurrentExecutions": 3}
    answer = server.send("PUT", path, {"ReservedConcurrentExecutions": -1})
    assert answer.json == {
        "message": "1 validation error detected: Value '-1' at 'reservedConcurrentExecutions' failed to satisfy constraint:"
        " Member must have value greater than or equal to 0"
    }
    answer = server.send("PUT", path, {"ReservedConcurrentExecutions": 1e300})
    assert answer.json["message"].startswith("Specified ReservedConcurrentExecutions")
