"""Copies of processes, by criu: what cannot be forked soundly, since it has threads, is restored from one.

criu runs within the namespaces that the process is in, or is to be in: it then has nothing but processes to copy, and
no namespace. Its own files do not exist there, so it is executed by descriptors, and its images lie in a mount that is
nowhere. It runs as the function's user, with a few capabilities, so that it need not change users.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from fastlam.wire import control
from fastlam.worker import kernel

# To read and to make what the function's own user may not: capabilities(7), numbers of linux/capability.h.
_CAPABILITIES: Final = (
    0,  # CAP_CHOWN: of memory files, which keep their owners
    3,  # CAP_FOWNER
    8,  # CAP_SETPCAP: the bounding set is emptied again
    19,  # CAP_SYS_PTRACE
    21,  # CAP_SYS_ADMIN: filters of system calls are read
    40,  # CAP_CHECKPOINT_RESTORE: processes are made with their numbers
)
_COMMON: Final = ("--unprivileged", "--shell-job", "--ext-unix-sk", "--tcp-close", "--manage-cgroups=ignore", "-v1")
_GHOST_BYTES_MAX: Final = 1 << 40  # of open files without a name: their room in /tmp is bound enough
_COPY_SECONDS_MAX: Final = 60.0
_REASON_BYTES_MAX: Final = 800
_NOT_RUN: Final = 126


class Criu:
    """The program, opened. All methods belong to a process with root's privileges. Raises OSError."""

    def __init__(self, paths: control.Criu) -> None:
        self._libraries = -1
        self._loader = -1
        self._program = os.open(paths.program, os.O_PATH | os.O_CLOEXEC)
        if paths.loader:
            self._loader = os.open(paths.loader, os.O_PATH | os.O_CLOEXEC)
            self._libraries = os.open(paths.libraries, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def copy(self, pid: int, uid: int, sockets: Sequence[int]) -> int:
        """Copies the process and all its descendants, which go on; returns the directory of the images. `uid` is their
        user, `sockets` are inodes of their ends of what leads elsewhere. Raises OSError with criu's reason.
        """
        mount = kernel.new_mount("tmpfs", [("mode", "700"), ("uid", str(uid)), ("gid", str(uid))], 0)
        try:
            images = os.open(f"/proc/self/fd/{mount}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.close(mount)
        arguments = ["dump", "--tree", str(pid), "--leave-running", "--ghost-limit", str(_GHOST_BYTES_MAX)]
        for inode in sockets:
            arguments += ["--external", f"unix[{inode}]"]
        pidfd = os.pidfd_open(pid)
        kinds = kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWCGROUP

        def become() -> None:
            kernel.setns(pidfd, kinds)

        try:
            self._run(lambda log: self._execute(arguments, images, [], uid, log, become), os.fork)
        except BaseException:
            os.close(images)
            raise
        finally:
            os.close(pidfd)
        return images

    def restore(
        self,
        images: int,
        uid: int,
        sockets: Sequence[tuple[int, socket.socket]],
        become: Callable[[], None],
        fork: Callable[[], int],
    ) -> None:
        """Makes the processes of the images once more; the first of them is this one's child. `sockets`: inodes, and
        what they have in the place of those. `fork` makes criu's own process, in whose pids they are; it does `become`
        first, to be where they are to be. Raises OSError with criu's reason.
        """
        arguments = ["restore", "--restore-detached", "--restore-sibling", "--file-validation", "filesize"]
        for inode, end in sockets:
            arguments += ["--inherit-fd", f"fd[{end.fileno()}]:socket:[{inode}]"]
        kept = [end.fileno() for _, end in sockets]
        self._run(lambda log: self._execute(arguments, images, kept, uid, log, become), fork)

    def _run(self, execute: Callable[[int], NoReturn], fork: Callable[[], int]) -> None:
        log = os.memfd_create("fastlam-criu", os.MFD_CLOEXEC)
        try:
            pid = fork()
            if pid == 0:
                execute(log)
            pidfd = os.pidfd_open(pid)
            try:
                ended = bool(select.select([pidfd], [], [], _COPY_SECONDS_MAX)[0])
                if not ended:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)
            _, status = os.waitpid(pid, 0)
            if not ended:
                raise OSError(f"criu has not ended after {_COPY_SECONDS_MAX:.0f} seconds")
            if status:
                raise OSError(_reason(log, status))
        finally:
            os.close(log)

    def _execute(
        self, arguments: list[str], images: int, kept: list[int], uid: int, log: int, become: Callable[[], None]
    ) -> NoReturn:
        """In the child. criu finds what kernels can do once, and writes it down beside the images."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(log, 1)
            os.dup2(log, 2)
            become()
            os.chdir("/")
            kernel.become_user_with(uid, _CAPABILITIES)
            directory = f"/proc/self/fd/{images}"
            given = [*_COMMON, "--images-dir", directory, "--work-dir", directory]
            line = ["criu", *arguments, *given]
            executed = self._program
            if self._loader >= 0:
                program = f"/proc/self/fd/{self._program}"
                line = ["criu", "--library-path", f"/proc/self/fd/{self._libraries}", program, *arguments, *given]
                executed = self._loader
                kept = [*kept, self._program, self._libraries]
            for descriptor in (executed, images, *kept):
                os.set_inheritable(descriptor, True)
            os.execve(f"/proc/self/fd/{executed}", line, {"XDG_RUNTIME_DIR": directory})
        except BaseException as error:  # noqa: BLE001 - nothing may climb back into the keeper
            os.write(2, f"{error}\n".encode(errors="replace"))
        finally:
            os._exit(_NOT_RUN)

    def close(self) -> None:
        for descriptor in (self._program, self._loader, self._libraries):
            if descriptor >= 0:
                os.close(descriptor)


def _reason(log: int, status: int) -> str:
    """What criu says about its failure: its first complaint, which the others follow from."""
    text = os.pread(log, 1 << 16, 0).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "Error (" in line and "criu/tun.c" not in line] or lines
    code = os.waitstatus_to_exitcode(status)
    return (told[0] if told else f"criu ended with status {code}")[:_REASON_BYTES_MAX]
