"""What each setting of a function does: docs/compatibility.md shows this table beside that of the operations.

The words are those of `support.py`: a setting is *supported* when it has its effect on what runs or may be done, and
*stored* when it is checked, kept and given back while the effect is still missing.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Supported(NamedTuple):
    """Has its effect."""

    note: str = ""  # what a reader should know, "" mostly


class Stored(NamedTuple):
    """Has not."""

    missing: str  # for the effect, as a sentence without its full stop


Setting = Supported | Stored

# Members of CreateFunction, UpdateFunctionCode and UpdateFunctionConfiguration; what UpdateFunctionCode has at the top
# is a member of Code here.
SETTINGS: Final[dict[str, Setting]] = {
    "FunctionName": Supported(),
    "Description": Supported(),
    "Runtime": Supported("Python functions run, on the interpreter of the daemon; those of other runtimes are refused"),
    "Handler": Supported(),
    "Role": Stored("what the role may do is not enforced; its name is in the function's session token"),
    "Timeout": Supported("up to 5400 seconds for functions on capacity providers"),
    "MemorySize": Supported(
        "memory is limited where control groups can be made; CPU time and the rates of disks and networks follow it"
        " with --cpu lambda (`fastlam doctor`)"
    ),
    "EphemeralStorage": Supported(
        "where namespaces are permitted (`fastlam doctor`); on a disk as root, otherwise in memory, where it counts as"
        " the function's"
    ),
    "Architectures": Stored("a function runs on the architecture of the machine, whichever it asks for"),
    "PackageType": Stored("container images are not run"),
    "ImageConfig": Stored("container images are not run"),
    "Code.ZipFile": Supported(),
    "Code.S3Bucket": Supported("read from --aws-endpoint, $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL or AWS"),
    "Code.S3Key": Supported("read from --aws-endpoint, $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL or AWS"),
    "Code.S3ObjectVersion": Supported("read from --aws-endpoint, $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL or AWS"),
    "Code.S3ObjectStorageMode": Supported("REFERENCE keeps a copy of the object too, and runs that"),
    "Code.ImageUri": Stored("container images are not run"),
    "Code.SourceKMSKeyArn": Stored("packages are kept unencrypted"),
    "CodeSigningConfigArn": Supported("every package counts as unsigned, which Enforce refuses and Warn allows"),
    "Layers": Supported(),
    "Environment": Supported(),
    "KMSKeyArn": Stored("environment variables are sealed with a key of the daemon's own"),
    "LoggingConfig.LogFormat": Supported(),
    "LoggingConfig.ApplicationLogLevel": Supported(),
    "LoggingConfig.SystemLogLevel": Stored("the platform's lines are all kept"),
    "LoggingConfig.LogGroup": Stored("logs are kept function by function; the name is only told to the function"),
    "TracingConfig": Stored("no segments are sent, and no sampling is decided"),
    "DeadLetterConfig": Supported(
        "reached at --aws-endpoint, $AWS_ENDPOINT_URL or AWS; whether the role may send there is found out when"
        " something is sent"
    ),
    "VpcConfig": Supported(
        "where namespaces are permitted (`fastlam doctor`): functions with the same subnets and security groups share a"
        " network of their own, which leads to them and to the daemon only"
    ),
    "FileSystemConfigs": Supported(
        "a directory in `file-systems` of the data directory takes the place of the file system, where namespaces are"
        " permitted"
    ),
    "SnapStart": Supported(
        "of Python functions; a snapshot is a process that has run INIT, from which environments are forked, or copied"
        " by criu if INIT has left threads; it is made again by the first call after a restart of the daemon"
    ),
    "TenancyConfig": Supported(),
    "CapacityProviderConfig": Stored(
        "there are no instances: a published version runs as any other function, one invocation at a time in each"
        " environment"
    ),
    "AcceleratorConfig": Stored("there are no accelerators"),
    "DurableConfig": Stored("durable functions are not executed, and invocations of them are refused"),
    "RuntimeConfig": Stored("customer runtimes are not run"),
    "Tags": Supported(),
    "Publish": Supported(),
    "PublishTo": Supported("`$LATEST.PUBLISHED` of functions on capacity providers"),
    "DryRun": Supported(),
    "RevisionId": Supported(),
}
