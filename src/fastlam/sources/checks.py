"""What Lambda asks of a queue or a stream before it takes a mapping on, and the words in which it refuses."""

from __future__ import annotations

from typing import Final

from fastlam.errors import ApiError, invalid_parameter
from fastlam.sources.aws.http import NoAnswer
from fastlam.sources.aws.service import AwsError, NoCredentials
from fastlam.sources.context import Context, SourceProblem
from fastlam.sources.pollers.dynamodb import TableStream
from fastlam.sources.pollers.kinesis import KinesisStream
from fastlam.sources.pollers.sqs import SqsPoller

_NO_QUEUE: Final = ("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue")


async def check_source(context: Context) -> None:
    """Raises ApiError when the source answers that it is not there, or not for this role. One that does not answer at
    all is taken on: its mapping says so, and it may come.
    """
    kind = context.mapping.source
    try:
        if kind in ("sqs", "sqs-fifo"):
            await SqsPoller(context).find()
        elif kind == "kinesis":
            await KinesisStream(context).open()
        elif kind == "dynamodb":
            await TableStream(context).open()
    except SourceProblem as problem:
        raise invalid_parameter(str(problem)) from None
    except AwsError as refusal:
        raise_known(context, refusal)
    except (NoAnswer, NoCredentials, OSError):
        return


def raise_known(context: Context, refusal: AwsError) -> None:
    """In the service's words; returns for what says nothing of the source."""
    if refusal.service == "sqs" and refusal.code in _NO_QUEUE:
        raise invalid_parameter(
            "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error"
            " Message: The specified queue does not exist."
        )
    if refusal.denied:
        raise _denied(context, refusal)


def _denied(context: Context, refusal: AwsError) -> ApiError:
    if refusal.service == "sqs":
        return invalid_parameter("The provided execution role does not have permissions to call ReceiveMessage on SQS")
    actions = "GetRecords, GetShardIterator, DescribeStream, ListShards, and ListStreams"
    if refusal.service == "dynamodbstreams":
        actions = "GetRecords, GetShardIterator, DescribeStream, and ListStreams"
    return invalid_parameter(
        f"Cannot access stream {context.arn}. Please ensure the role can perform the {actions} Actions on your stream"
        " in IAM."
    )
