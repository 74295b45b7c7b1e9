# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The only code that writes: files whole and atomically, kernel values with a read-back and a named refusal."""

from __future__ import annotations

import errno
import os
import stat
from typing import Callable, List, NamedTuple, Optional, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import parse_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root


class FileState(NamedTuple):
    """What stands at a path. CONTENT for a regular file, TARGET for a link; both None: nothing stands there.

    MODE is the permission bits, UID and GID the owner.
    """

    content: Optional[bytes] = None
    target: Optional[str] = None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


ABSENT = FileState()
# One name, not one for each process: all writers hold one lock, and what a killed run has left is found again.
SCRATCH = ".edgenpu-tuning.new"


# Reasons why an interrupt cannot be moved, whatever CPU is asked for
UNSTEERABLE = (
    "EIO: nobody can move this interrupt: the kernel manages it, it is a per-CPU one, or its controller cannot steer",
    "EPERM: nobody can move this interrupt: the kernel manages it, it is a per-CPU one, or its controller cannot steer",
    "EINVAL: the interrupt controller cannot steer this interrupt",
)

Parser = Callable[[str], Optional[Tuple[int, ...]]]


def _open_existing(path: str, flags: int) -> int:
    # O_CREAT makes the kernel answer EACCES instead of ENOENT where a value has just gone.
    return os.open(path, flags & ~os.O_CREAT)


class NotAFile(Exception):
    """A directory or a special file stands where one of our files belongs."""


class Sink:
    """Writes below a root: the live system ("/"), or the directory that a test names."""

    def __init__(self, root: Root) -> None:
        self.root = root

    def host_path(self, path: str) -> str:
        """Return where PATH is on the machine that runs this code."""
        return path if self.root.is_live else os.path.join(self.root.path, path.lstrip("/"))

    def state(self, path: str) -> FileState:
        """Return what stands at PATH; raises NotAFile for anything but a regular file or a link."""
        where = self.host_path(path)
        try:
            found = os.lstat(where)
        except (FileNotFoundError, NotADirectoryError):
            return ABSENT
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            return FileState(None, os.readlink(where), mode, found.st_uid, found.st_gid)
        if not stat.S_ISREG(found.st_mode):
            raise NotAFile("%s is neither a file nor a link; move it away, one of our files belongs there" % path)
        # Some of our files stand in directories that are not root's: what has been put there since may not be followed.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(where, flags), "rb") as stream:
            opened = os.fstat(stream.fileno())
            if not stat.S_ISREG(opened.st_mode):
                raise NotAFile("%s is not a file any more; look who changes it" % path)
            return FileState(stream.read(), None, stat.S_IMODE(opened.st_mode), opened.st_uid, opened.st_gid)

    def put(self, path: str, state: FileState) -> None:
        """Make PATH what STATE says, in one step: a reader sees the old or the new, never half of it."""
        where = self.host_path(path)
        self.tidy(path)
        if state.content is None and state.target is None:
            if os.path.lexists(where):
                os.unlink(where)
                self._sync(os.path.dirname(where))
            return
        self.make_parents(path)
        directory = os.path.dirname(where)
        scratch = os.path.join(directory, SCRATCH)
        if state.target is not None:
            os.symlink(state.target, scratch)
            os.chown(scratch, state.uid, state.gid, follow_symlinks=False)
        else:
            handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as stream:
                stream.write(state.content or b"")
                stream.flush()  # writing takes special bits away again, unless one may keep them
                os.fchown(stream.fileno(), state.uid, state.gid)
                os.fchmod(stream.fileno(), state.mode)
                os.fsync(stream.fileno())
        try:
            os.rename(scratch, where)
        except OSError:
            os.unlink(scratch)
            raise
        self._sync(directory)

    def tidy(self, path: str) -> None:
        """Remove what a killed run has left beside PATH."""
        scratch = os.path.join(os.path.dirname(self.host_path(path)), SCRATCH)
        if os.path.lexists(scratch):
            os.unlink(scratch)

    def make_parents(self, path: str) -> None:
        """Make the directories above PATH that do not exist yet, open to all whatever the umask is."""
        for parent in self.missing_parents(path):
            os.mkdir(self.host_path(parent))
            os.chmod(self.host_path(parent), 0o755)

    @staticmethod
    def _sync(directory: str) -> None:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def sync_tree(self, path: str) -> None:
        """Make a directory of ours durable with all it holds."""
        for directory, _below, files in os.walk(self.host_path(path)):
            for name in files:
                handle = os.open(os.path.join(directory, name), os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
            self._sync(directory)

    def missing_parents(self, path: str) -> List[str]:
        """Return the directories above PATH that do not exist yet, outermost first."""
        missing: List[str] = []
        parent = os.path.dirname(path)
        while parent != "/" and not os.path.isdir(self.host_path(parent)):
            missing.insert(0, parent)
            parent = os.path.dirname(parent)
        return missing

    def remove_tree(self, path: str) -> None:
        """Remove a directory of ours with all it holds; one that is gone already is no error."""
        where = self.host_path(path)
        for directory, below, files in os.walk(where, topdown=False):
            for name in files:
                os.unlink(os.path.join(directory, name))
            for name in below:
                child = os.path.join(directory, name)
                (os.unlink if os.path.islink(child) else os.rmdir)(child)
        if os.path.isdir(where):
            os.rmdir(where)

    def remove_if_empty(self, path: str) -> bool:
        """Remove a directory if nothing is in it (of a killed run's leavings apart); tell whether it is gone."""
        self.tidy(path + "/")
        try:
            os.rmdir(self.host_path(path))
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def set_value(self, path: str, value: str, parse: Parser = parse_list) -> Optional[str]:
        """Write a kernel value; return None if it took, else the named reason why it did not.

        PARSE tells whether two texts are the same CPUs: the kernel may print another form of what it was given.
        """
        try:
            with open(self.host_path(path), "w", encoding="ascii", opener=_open_existing) as stream:
                stream.write(value)
        except OSError as error:
            return self._refusal(path, value, error)
        after = self.root.text(path)
        if after is None:
            return "written, but %s cannot be read back" % path
        if after != value and (parse(value) is None or parse(after) != parse(value)):
            return "clamped: the kernel took %r and keeps %r" % (value, after)
        return None

    def trigger(self, path: str) -> Optional[str]:
        """Write 1 to a file of the kernel that acts and keeps nothing; return None if it took, else the reason."""
        try:
            with open(self.host_path(path), "w", encoding="ascii", opener=_open_existing) as stream:
                stream.write("1")
        except OSError as error:
            return self._refusal(path, "1", error)
        return None

    def set_byte(self, path: str, offset: int, value: int) -> Optional[str]:
        """Write one byte of a device's registers; return None if it took, else the named reason."""
        try:
            handle = os.open(self.host_path(path), os.O_RDWR | os.O_CLOEXEC)
            try:
                os.pwrite(handle, bytes([value]), offset)
                kept = os.pread(handle, 1, offset)
            finally:
                os.close(handle)
        except OSError as error:
            return self._refusal(path, "%#x" % value, error)
        return None if kept == bytes([value]) else "clamped: written %#x, and %s is read back" % (value, kept.hex())

    def _refusal(self, path: str, value: str, error: OSError) -> str:
        """Name why a write failed: the errno alone does not say, the same one means different things by place.

        Sources: kernel/irq/proc.c (write_irq_affinity), drivers/cpufreq/cpufreq.c (show/store), fs/sysfs.
        """
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        if path.startswith("/proc/irq/"):
            # EPERM since 6.12; whoever is not root is refused at opening, with EACCES
            if error.errno in (errno.EIO, errno.EPERM):
                return next(reason for reason in UNSTEERABLE if reason.startswith(code + ":"))
            if error.errno == errno.EINVAL:
                online = set(parse_list(self.root.text("/sys/devices/system/cpu/online") or "") or ())
                if not online.intersection(parse_list(value) or ()):
                    return "EINVAL: none of CPUs %s is online any more" % value
                return UNSTEERABLE[-1]
            if error.errno in (errno.EOVERFLOW, errno.ERANGE):
                return "%s: CPUs %s do not exist on this kernel" % (code, value)
            if error.errno == errno.ENOENT:
                return "ENOENT: the interrupt is gone, its driver has just been unloaded"
        elif "/cpufreq/" in path:
            if error.errno == errno.EBUSY:
                return "EBUSY: all CPUs of this policy are offline"
            if error.errno == errno.EINVAL:
                return "EINVAL: the kernel does not have %r" % value
        if error.errno == errno.EROFS:
            return "EROFS: mounted read-only here, as in a container; run this on the host itself"
        if error.errno in (errno.EACCES, errno.EPERM):
            return "%s: not allowed; root is needed" % code
        return "%s: %s" % (code, os.strerror(error.errno or 0))
