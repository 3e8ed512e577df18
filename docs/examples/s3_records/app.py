"""Called when objects have been put into a bucket: makes a download link for each, good for an hour.

boto3 is there without being packed, as in Lambda. The client is made once for each execution environment, outside the
handler. Links are signed here and need no S3; with `fastlam serve --aws-endpoint URL` the same client reads and writes
objects at that address.
"""

from urllib.parse import unquote_plus

import boto3

LINK_SECONDS = 3600

s3 = boto3.client("s3")


def handler(event, context):
    links = {}
    for record in event["Records"]:
        bucket = record["s3"]["bucket"]["name"]
        key = unquote_plus(record["s3"]["object"]["key"])  # keys come encoded: "my+photo.jpg"
        print(f"{record['eventName']}: s3://{bucket}/{key}, {record['s3']['object'].get('size', 0)} bytes")
        links[key] = s3.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=LINK_SECONDS
        )
    return {"count": len(links), "links": links}
