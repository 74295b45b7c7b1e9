# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Twins by name: what the command line and the tests use."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from . import instance as instances
from .board import load_named
from .build import ensure_built, ensure_kernel
from .host import TwinError, locked, runtime_root
from .instance import BUILD_NAME, Instance

DEFAULT_NAME = "cm3588"
DEFAULT_BOARD = "cm3588"
DEFAULT_CARD = "0003:31:00.0"


class Twin:
    """A running twin. As a context manager it is stopped at the end, unless it ran before."""

    def __init__(self, instance: Instance, started_here: bool) -> None:
        self._instance = instance
        self._started_here = started_here

    @classmethod
    def start(
        cls, name: str = DEFAULT_NAME, *, board: str = DEFAULT_BOARD, reuse: bool = False, cold: bool = False
    ) -> Twin:
        """Resume a clone from the snapshot (``cold``: boot one), building first where there is nothing.

        TwinError: it does not come up, or one of this name runs already and ``reuse`` does not allow that.
        """
        _check_name(name)
        with _name_lock(name):
            existing = find(name)
            if existing is not None:
                if not reuse:
                    raise TwinError(f"{name} runs already; stop it with: python -m twin down {name}")
                return cls(existing._instance, started_here=False)
            built = ensure_built(board)
            instance = Instance.start(name, load_named(board), built, cold=cold)
            if cold:
                try:
                    instance.wait_for_ssh(300)
                except BaseException:
                    instance.stop()
                    raise
        refresh_ssh_config()
        return cls(instance, started_here=True)

    def __enter__(self) -> Twin:
        return self

    def __exit__(self, *_: object) -> None:
        if self._started_here:
            self.stop()

    @property
    def name(self) -> str:
        return self._instance.name

    @property
    def started_here(self) -> bool:
        """Whether this object started the machine, rather than finding it running."""
        return self._started_here

    @property
    def ssh_port(self) -> int:
        return self._instance.port

    @property
    def ssh_argv(self) -> list[str]:
        """Command that logs in; append what to run."""
        return instances.ssh_command(self._instance.key, self._instance.port)

    @property
    def built(self) -> Path:
        """Its folder of the cache."""
        return self._instance.built

    @property
    def console(self) -> Path:
        """What the kernel and systemd printed."""
        return self._instance.run / "console.log"

    def ssh(
        self, command: str, *, user: str = "root", timeout_s: float = 300, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the twin, as root or as the unprivileged ``owner``."""
        return self._instance.ssh(command, user=user, timeout_s=timeout_s, stdin=stdin)

    def reboot_and_wait(self, timeout_s: float = 300, *, kernel: str = "") -> str:
        """Boot again and wait for ssh: as a boot loader does, the kernel that /vmlinuz names. Its release.

        ``kernel`` is the release of another one, as if chosen in the boot loader's menu.
        TwinError: the root file system does not hold it, or the machine does not come back in time.
        """
        running, _unused, named = self.ssh("uname -r; readlink -f /vmlinuz").stdout.partition("\n")
        wanted = kernel or named.strip().partition("vmlinuz-")[2] or running
        if wanted == running:
            self._instance.reboot_and_wait(timeout_s)
        else:
            with _name_lock(self.name):
                self._instance.power_cycle(ensure_kernel(self._instance, wanted), timeout_s)
        return wanted

    def raise_msi(self, count: int = 1, event: int = 0) -> int:
        """Raise MSIs of the card from outside; how many its driver took. See Instance.raise_msi."""
        return self._instance.raise_msi(count, event)

    def set_link(self, bdf: str, gt_s: float, width: int) -> None:
        """Change a negotiated link; see Instance.set_link."""
        self._instance.set_link(bdf, gt_s, width)

    def kill(self, bdf: str) -> None:
        """Make a card dead until the next reset; see Instance.kill."""
        self._instance.kill(bdf)

    def revive(self, bdf: str, *, after_reset: bool = False, patience_s: float = 600) -> None:
        """Bring a dead card back, perhaps when its bus is reset; see Instance.revive."""
        self._instance.revive(bdf, after_reset=after_reset, patience_s=patience_s)

    def reset(self) -> None:
        """Back to the snapshot, on the same port."""
        name, board, built, port = (
            self._instance.name,
            self._instance.board,
            self._instance.built,
            self._instance.port,
        )
        with _name_lock(name):
            self._instance.stop()
            self._instance = Instance.start(name, board, built, cold=False, port=port)
        refresh_ssh_config()

    def stop(self) -> None:
        with _name_lock(self.name):
            self._instance.stop()
        refresh_ssh_config()


def running() -> list[Twin]:
    """The twins of this checkout that run now."""
    return [twin for twin in known() if twin._instance.is_alive()]


def known() -> list[Twin]:
    """The twins of this checkout, with those that ended by themselves and left files, but without a build's."""
    return [
        Twin(instance, started_here=False) for instance in instances.known(load_named) if instance.name != BUILD_NAME
    ]


def find(name: str) -> Twin | None:
    """The running twin of this name."""
    for twin in running():
        if twin.name == name:
            return twin
    return None


def refresh_ssh_config() -> Path:
    """Write the checkout's ssh_config anew; its path."""
    with locked(runtime_root() / ".ssh_config.lock"):
        return instances.write_ssh_config([twin._instance for twin in running()])


@contextmanager
def _name_lock(name: str) -> Iterator[None]:
    with locked(runtime_root() / f".{name}.lock"):
        yield


def _check_name(name: str) -> None:
    if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 24:
        raise TwinError(f"{name!r} cannot name a twin: letters, digits, - and _, at most 24 of them")
