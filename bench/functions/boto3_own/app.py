"""Imports boto3 and says which one."""

import boto3


def handler(event, context):
    return {"version": boto3.__version__, "file": boto3.__file__}
