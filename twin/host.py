# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The computer that twins run on: where things are kept, which programs it needs, how commands are run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Mapping, Sequence

CHECKOUT = Path(__file__).resolve().parent.parent


#: Leaves room for a twin's name and a socket's in the 107 bytes that a socket's path may have.
_RUNTIME_PATH_MAX = 70


class TwinError(Exception):
    """What went wrong and what to do about it, in a sentence for the user."""


class Requirement:
    """A Debian package and a path or program that shows it is there."""

    def __init__(self, package: str, *proofs: str) -> None:
        self.package = package
        self._proofs = proofs

    def is_met(self) -> bool:
        return all(Path(proof).exists() if proof.startswith("/") else _program(proof) for proof in self._proofs)


def _program(name: str) -> bool:
    # An unprivileged user's PATH often lacks the sbin folders, where mke2fs and depmod live.
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


REQUIREMENTS = (
    Requirement("qemu-system-arm", "qemu-system-aarch64"),
    Requirement("qemu-utils", "qemu-img"),
    Requirement("mmdebstrap", "mmdebstrap"),
    Requirement("debian-archive-keyring", "/usr/share/keyrings/debian-archive-keyring.gpg"),
    Requirement("device-tree-compiler", "dtc"),
    Requirement("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
    Requirement("make", "make"),
    Requirement("kmod", "depmod", "modprobe"),
    Requirement("e2fsprogs", "mke2fs"),
    Requirement("cpio", "cpio"),
    Requirement("tar", "tar"),
    Requirement("openssh-client", "ssh", "ssh-keygen"),
)
#: Only where arm64 programs do not run by themselves.
FOREIGN_REQUIREMENTS = (
    Requirement("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/include/stdio.h"),
    Requirement("qemu-user-static", "qemu-aarch64-static"),
    Requirement("binfmt-support", "update-binfmts"),
    Requirement("arch-test", "arch-test"),
)
#: Only for unprivileged users: mmdebstrap and the image need user namespaces with a range of user ids.
UNPRIVILEGED_REQUIREMENTS = (Requirement("uidmap", "newuidmap"),)


def is_foreign() -> bool:
    return platform.machine() not in ("aarch64", "arm64")


def missing_packages() -> list[str]:
    """Debian packages that this host still needs, in the order in which they are listed here."""
    needed = list(REQUIREMENTS)
    if is_foreign():
        needed += FOREIGN_REQUIREMENTS
    if os.geteuid() != 0:
        needed += UNPRIVILEGED_REQUIREMENTS
    return [requirement.package for requirement in needed if not requirement.is_met()]


def install_requirements() -> None:
    """apt-get install what is missing, through sudo for an unprivileged user. TwinError: apt-get failed."""
    packages = missing_packages()
    if not packages:
        return
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *packages]):
        if subprocess.run([*prefix, *environment, *command], check=False).returncode:
            raise TwinError(
                f"apt-get could not install {' '.join(packages)}; its messages above say why. "
                "Install them by hand and try again."
            )


def cache_root() -> Path:
    """Images and snapshots: large, shared by all checkouts of this user."""
    base = os.environ.get("EDGENPU_CACHE")
    if not base:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "edgenpu-tuning")
    return Path(base) / "twin"


def runtime_root() -> Path:
    """Sockets and state of this checkout's running twins."""
    digest = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]
    name = f"edgenpu-twin-{os.getuid()}-{digest}"
    root = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / name
    if len(str(root)) > _RUNTIME_PATH_MAX:
        root = Path("/tmp") / name
    root.mkdir(mode=0o700, exist_ok=True)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise TwinError(f"{root} is not a folder of yours alone; remove it and try again.")
    return root


def checkout_state() -> Path:
    """What the checkout shows of its twins (ssh_config), and their disks; git ignores it."""
    path = CHECKOUT / ".cache" / "twin"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, waiting for it, and saying so where that may take minutes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="ascii") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if path.name == "build.lock":
                print("twin: another build is under way, waiting for it", flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


class Log:
    """A build's log file, and the one-line progress messages with the seconds they took."""

    def __init__(self, path: Path, quiet: bool = False) -> None:
        self.path = path
        self._quiet = quiet
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        self._say(f"twin: {what} ...")
        yield
        self._say(f"twin: {what}: {time.monotonic() - start:.1f} s")

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line, flush=True)

    def run(
        self,
        command: Sequence[str],
        *,
        failure: str,
        cwd: Path | None = None,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command with its output in the log; its standard output. TwinError: it failed."""
        environment = {**os.environ, "LC_ALL": "C", **(env or {})}
        environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/sbin"
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(f"\n$ {shlex.join(command)}\n")
            stream.flush()
            try:
                result = subprocess.run(
                    command,
                    cwd=cwd,
                    input=stdin,
                    env=environment,
                    text=True,
                    check=False,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                )
            except OSError as error:
                stream.write(f"{error}\n")
                raise TwinError(f"{failure}: {error}. See {self.path}.") from error
            stream.write(result.stdout)
        if result.returncode:
            raise TwinError(
                f"{failure} (exit {result.returncode}). Why, says the end of {self.path}; "
                "once that is mended, run the same command again."
            )
        return result.stdout


def remove_tree(path: Path) -> None:
    """Remove a folder, also one with files that belong to another user of our namespace."""
    if os.geteuid() == 0:
        shutil.rmtree(path)
    else:
        subprocess.run([*user_namespace(), "rm", "-rf", str(path)], check=True)


def user_namespace() -> list[str]:
    """Prefix under which a command may own files as root: nothing for root itself."""
    if os.geteuid() == 0:
        return []
    return ["unshare", "--user", "--map-root-user", "--map-auto"]
