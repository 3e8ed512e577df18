"""Directories that take the place of the file systems that functions mount (FileSystemConfigs).

    <data_dir>/file-systems/<account>/<region>/<id of the access point>/

All functions of an account and region that name the same access point share one, as in the service. What lies there is
the user's: nothing here ever removes it.
"""

from __future__ import annotations

from pathlib import Path

from fastlam.errors import FastlamError


class FileSystems:
    """Owner of `<data_dir>/file-systems`."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "file-systems"

    def directory(self, arn: str) -> Path:
        """The directory for the ARN of an access point, made if it is not there; raises FastlamError."""
        _, _, _, region, account, resource = arn.split(":", 5)  # the API has checked its form
        path = self._root / account / region / resource.rpartition("/")[2]
        try:
            if not path.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(0o777)  # environments are users of their own
        except OSError as error:
            raise FastlamError(f"The directory {path} for {arn} cannot be made: {error.strerror}.") from error
        return path
