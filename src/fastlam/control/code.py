"""Where a function's or layer's code comes from: the request itself, an object in S3, or an image in a registry."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from fastlam import limits
from fastlam.control.settings import Request
from fastlam.control.steps import Steps
from fastlam.errors import ApiError, invalid_parameter
from fastlam.model.function import IMAGE, ZIP
from fastlam.store.artifacts import Artifact, ArtifactStore
from fastlam.store.objects import S3Object

__all__ = ["Code", "ReadObject", "S3Object", "Source", "check_storage", "code_steps", "no_objects", "zip_steps"]

# A registry, a repository, and a tag or a digest: what the service can make out as an image.
_IMAGE: Final = re.compile(
    r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:\d))(?::\d{1,5})?"
    r"(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)+"
    r"(?=[:@])(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:(?P<digest>[0-9a-f]{64}))?",
    re.ASCII,
)


ReadObject = Callable[[str, str, str, str | None], S3Object]
"""`read_object(region, bucket, key, version)`; slow; raises the service's errors."""

_S3_MEMBERS: Final = ("S3Bucket", "S3Key", "S3ObjectVersion", "S3ObjectStorageMode")


def no_objects(region: str, bucket: str, key: str, version: str | None) -> S3Object:
    """Where nothing can read S3."""
    raise invalid_parameter("Error occurred while GetObject. Code in S3 cannot be read here.")


class Code(NamedTuple):
    """Code that is stored. Its artifact, where there is one, is held until `release`."""

    artifact: Artifact | None
    fields: dict[str, Any]  # of the function record


class Source(NamedTuple):
    """A zip that was fetched and stored. Its artifact is held until it is released."""

    artifact: Artifact
    reference: dict[str, str] | None  # the object it stays in (S3ObjectStorageMode REFERENCE), as the API shows it


def code_steps(
    code: Request, artifacts: ArtifactStore, read_object: ReadObject, *, region: str, package_type: str = ZIP
) -> Steps[Code]:
    """Fetch and store the code that a request names (FunctionCode, or the same members of UpdateFunctionCode)."""
    if package_type == IMAGE:
        return _image(code)
    if code.get("ImageUri") is not None:
        raise invalid_parameter("Please don't provide ImageUri when updating a function with packageType Zip.")
    source = yield from zip_steps(code, artifacts, read_object, region=region)
    return Code(
        source.artifact,
        {
            "code_sha256": source.artifact.code_sha256,
            "code_bytes": source.artifact.zip_bytes,
            "source_kms_key_arn": code.get("SourceKMSKeyArn") or "",
            "s3_object": source.reference,
        },
    )


def zip_steps(code: Request, artifacts: ArtifactStore, read_object: ReadObject, *, region: str) -> Steps[Source]:
    """Fetch and store a zip, of a function or of a layer: from the request itself, or from S3."""
    data, bucket, key = code.get("ZipFile"), code.get("S3Bucket"), code.get("S3Key")
    if data is not None:
        if any(code.get(member) is not None for member in _S3_MEMBERS):
            raise invalid_parameter("Please do not provide other FunctionCode parameters when providing a ZipFile.")
        return Source((yield partial(artifacts.put_zip, bytes(data))), None)
    if bucket is None and key is None:
        raise invalid_parameter("Please provide a source for function code.")
    if bucket is None or key is None:
        raise invalid_parameter("Please provide both S3Bucket and S3Key, which together name the code in S3.")
    found: S3Object = yield partial(read_object, region, bucket, key, code.get("S3ObjectVersion"))
    # What is not uploaded is bounded by its content alone.
    artifact: Artifact = yield partial(artifacts.put_zip, found.data, zip_bytes_max=limits.UNZIPPED_BYTES_MAX)
    if code.get("S3ObjectStorageMode") != "REFERENCE":
        return Source(artifact, None)
    version = {} if found.version is None else {"S3ObjectVersion": found.version}
    return Source(artifact, {"S3Bucket": bucket, "S3Key": key, **version})


def _image(code: Request) -> Code:
    uri = code.get("ImageUri")
    if not uri:
        raise invalid_parameter("Please provide ImageUri when updating a function with packageType Image.")
    if any(code.get(member) is not None for member in ("ZipFile", *_S3_MEMBERS)):
        raise invalid_parameter("Please do not provide other FunctionCode parameters when providing an ImageUri.")
    found = _IMAGE.fullmatch(uri)
    if found is None:
        raise invalid_parameter(f"Source image {uri} is not valid. Provide a valid source image.")
    # The registry is not asked: a tag stands for itself until images run here.
    digest = found["digest"] or hashlib.sha256(uri.encode()).hexdigest()
    return Code(None, {"code_sha256": digest, "code_bytes": 0, "image_uri": uri})


def check_storage(used_bytes: int, added_bytes: int) -> None:
    if used_bytes + added_bytes > limits.CODE_STORAGE_BYTES_MAX:
        raise ApiError("CodeStorageExceededException", "Code storage limit exceeded.")
