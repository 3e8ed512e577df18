"""Disks of their own for /tmp, so that what lies there is on disk and bounded, and no memory of a function's.

    a sparse file without a name ──► a loop device ──► ext4 ──► one directory of it, as a mount that is nowhere

The mount's descriptor goes to who asked. Every disk is a copy of a formatted one of its size (128 KiB of it are
written). One that comes back has its directory taken away and another one made: that costs nothing beside a new disk,
and whoever still is in the old one does not see the new. When the maker, and all that have a mount, are gone, killed or
not, the kernel unmounts, frees the device and gives the blocks back.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
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
_ROOT: Final = "tmp"
_FITRIM: Final = 0xC0185879
_TRIM_ALL: Final = struct.pack("QQQ", 0, (1 << 64) - 1, 0)  # struct fstrim_range: start, length, least length
_TRIM_SECTORS: Final = 16384  # 8 MiB
_FORMAT_SECONDS_MAX: Final = 60.0


@dataclass
class Disk:
    """One that is mounted where only its maker sees it."""

    room_bytes: int
    device: str  # major:minor
    path: str  # of the file system; /tmp is its directory _ROOT
    written_sectors: int = 0  # when what is free on it was last given back


class Disks:
    """Makes them in files of one directory. `stage`: where they are mounted, in this process's own mount namespace."""

    def __init__(self, directory: str, stage: str = "") -> None:
        self._directory = directory
        self._stage = stage
        self._formatted: dict[int, int] = {}  # room in bytes: a file to copy
        self._control = -1
        self._number = 0

    def make(self, room_bytes: int) -> Disk:
        """Raises OSError."""
        mount, device = self.make_mount(room_bytes)
        try:
            self._number += 1
            path = f"{self._stage}/{self._number}"
            os.mkdir(path)
            kernel.attach_mount(mount, path)
        finally:
            os.close(mount)
        return Disk(room_bytes, device, path, _written_sectors(device))

    def make_mount(self, room_bytes: int) -> tuple[int, str]:
        """The descriptor of a whole new file system, mounted nowhere, and the numbers of its device; raises OSError."""
        if room_bytes not in self._formatted:
            self._formatted[room_bytes] = self._format(room_bytes)
        image = self._copy(self._formatted[room_bytes])
        try:
            return self._mount(image)
        finally:
            os.close(image)

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
        """A directory that everybody may write to; returns the room in bytes."""
        mount, _ = self._mount(image)
        try:
            os.rmdir("lost+found", dir_fd=mount)
            _make_root(f"/proc/self/fd/{mount}")
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


def tmp_of(disk: Disk) -> int:
    """The descriptor of a mount of it that is nowhere."""
    return kernel.copy_mount(f"{disk.path}/{_ROOT}")


def renew(disk: Disk) -> None:
    """Takes away what somebody has left on it. Raises OSError."""
    root = f"{disk.path}/{_ROOT}"
    for _ in range(_TRIES):
        try:
            for entry in os.scandir(root):
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
            os.rmdir(root)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):  # a process that is just ending makes files there
                raise
    else:
        raise OSError(errno.EBUSY, f"{root} does not become empty")
    _make_root(disk.path)
    if _written_sectors(disk.device) - disk.written_sectors > _TRIM_SECTORS:
        directory = os.open(disk.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(directory, _FITRIM, bytearray(_TRIM_ALL))
        finally:
            os.close(directory)
        disk.written_sectors = _written_sectors(disk.device)


def discard(disk: Disk) -> None:
    """It goes with the last mount that somebody has of it."""
    kernel.unmount(disk.path)
    os.rmdir(disk.path)


def enter_stage(stage: str) -> None:
    """Into a mount namespace of this process's own, with an empty directory at the path."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("fastlam", stage, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=700,size=1m")


def _make_root(path: str) -> None:
    os.mkdir(f"{path}/{_ROOT}")
    os.chmod(f"{path}/{_ROOT}", 0o1777)


def _written_sectors(device: str) -> int:
    """The kernel's Documentation/block/stat.rst. 0 where there is no /sys: nothing is given back before the end."""
    try:
        with open(f"/sys/dev/block/{device}/stat") as file:
            return int(file.read().split()[6])
    except OSError:
        return 0


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
