"""Makes a client of DynamoDB at import, as most functions do, and has numpy to compute with."""

import os

import boto3
import numpy

client = boto3.client("dynamodb", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")


def handler(event, context):
    return {
        "region": client.meta.region_name,
        "initialization": os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE", ""),
        "pid": os.getpid(),
        "sum": int(numpy.arange(10).sum()),
    }
