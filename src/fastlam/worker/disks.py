"""Disks of their own for /tmp, so that what lies there is on disk and bounded, and no memory of a function's.

    a sparse file without a name ──► a loop device ──► a mount of ext4 that is nowhere, but for its descriptor

Whoever holds the descriptor, or has attached the mount somewhere, holds all three: when the last of them is gone,
killed or not, the kernel unmounts, frees the device and gives the blocks back. Every disk is a copy of a formatted one
of its size (128 KiB of it are written), which takes a millisecond or two.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from typing import Final

from fastlam.worker import kernel

_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CTL_GET_FREE: Final = 0x4C82
_LO_FLAGS_AUTOCLEAR: Final = 4
# struct loop_config: descriptor, block size; of its loop_info64 only the flags; eight reserved numbers.
_CONFIGURATION: Final = struct.Struct("=II 40x 12x I 64x 64x 32x 16x 64x")
_SECTOR_BYTES: Final = 512
_BLOCK_BYTES: Final = 4096
_TRIES: Final = 20  # others may take the device that was free
_FORMAT: Final = ("-q", "-F", "-b", str(_BLOCK_BYTES), "-m", "0", "-O", "^has_journal,^resize_inode")
_EXTENDED: Final = "lazy_itable_init=1,nodiscard,root_owner=0:0"
_PASSES: Final = 8  # until a disk has the room that was asked for: what ext4 needs for itself depends on its size
_OPTIONS: Final = (("noinit_itable", ""), ("nobarrier", ""))  # nothing here outlives the machine
_FORMAT_SECONDS_MAX: Final = 60.0


class Disks:
    """Makes them in files of one directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._formatted: dict[int, int] = {}  # room in bytes: a file to copy
        self._control = -1

    def make(self, room_bytes: int) -> tuple[int, str]:
        """The descriptor of a mount with so much room, and the numbers of its device; raises OSError."""
        if room_bytes not in self._formatted:
            self._formatted[room_bytes] = self._format(room_bytes)
        image = self._copy(self._formatted[room_bytes])
        try:
            return self._mount(image)
        finally:
            os.close(image)

    def close(self) -> None:
        for fd in self._formatted.values():
            os.close(fd)
        self._formatted.clear()
        if self._control >= 0:
            os.close(self._control)
            self._control = -1

    def _format(self, room_bytes: int) -> int:
        program = shutil.which("mkfs.ext4", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
        if program is None:
            raise OSError(errno.ENOENT, "mkfs.ext4 is not there (package e2fsprogs)")
        size_bytes = room_bytes + room_bytes // 16
        for _ in range(_PASSES):
            image = self._new_file()
            try:
                os.ftruncate(image, size_bytes)
                _run(program, image)
                short_bytes = room_bytes - self._furnish(image)
                if not short_bytes:
                    return image
            except BaseException:
                os.close(image)
                raise
            os.close(image)
            size_bytes += short_bytes
        raise OSError(errno.EINVAL, f"mkfs.ext4 makes no disk with room for {room_bytes} bytes")

    def _furnish(self, image: int) -> int:
        """An empty root that everybody may write to; returns the room in bytes."""
        mount, _ = self._mount(image)
        try:
            os.rmdir("lost+found", dir_fd=mount)
            os.chmod(f"/proc/self/fd/{mount}", 0o1777)
            space = os.statvfs(f"/proc/self/fd/{mount}")
        finally:
            os.close(mount)
        return space.f_bavail * space.f_frsize

    def _new_file(self) -> int:
        try:
            return os.open(self._directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
        fd, path = tempfile.mkstemp(dir=self._directory)
        os.unlink(path)
        return fd

    def _copy(self, source: int) -> int:
        """Of what has been written only."""
        target = self._new_file()
        try:
            size_bytes = os.fstat(source).st_size
            os.ftruncate(target, size_bytes)
            position = 0
            while position < size_bytes:
                try:
                    position = os.lseek(source, position, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # nothing more
                        break
                    raise
                end = os.lseek(source, position, os.SEEK_HOLE)
                while position < end:
                    position += os.pwrite(target, os.pread(source, end - position, position), position)
        except BaseException:
            os.close(target)
            raise
        return target

    def _mount(self, image: int) -> tuple[int, str]:
        if self._control < 0:
            self._control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        for _ in range(_TRIES):
            path = f"/dev/loop{fcntl.ioctl(self._control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, _CONFIGURATION.pack(image, _SECTOR_BYTES, _LO_FLAGS_AUTOCLEAR))
                number = os.fstat(device).st_rdev
                attributes = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
                mount = kernel.new_mount("ext4", (("source", path), *_OPTIONS), attributes)
                return mount, f"{os.major(number)}:{os.minor(number)}"
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            finally:
                os.close(device)
        raise OSError(errno.EBUSY, "no loop device is free")


def in_memory(room_bytes: int) -> int:
    """The descriptor of a mount that is no disk, and counts as memory of who writes there."""
    attributes = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
    return kernel.new_mount("tmpfs", (("size", str(room_bytes)), ("mode", "1777")), attributes)


def _run(program: str, image: int) -> None:
    done = subprocess.run(
        [program, *_FORMAT, "-E", _EXTENDED, f"/proc/self/fd/{image}"],
        pass_fds=[image],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_FORMAT_SECONDS_MAX,
        check=False,
    )
    if done.returncode:
        raise OSError(errno.EIO, f"mkfs.ext4: {done.stderr.decode(errors='replace').strip()[-200:]}")
