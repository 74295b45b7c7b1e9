# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The long run: every Python and every ansible-core that this machine can offer."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from . import ansible_test, copies, venvs
from .gates import Gate, Step
from .places import NAME, NAMESPACE, WORK

# Pythons that code on a board may meet.
TARGETS = [f"3.{minor}" for minor in range(8, 15)]


class Core(NamedTuple):
    """A release of ansible-core, and the Pythons that its control node and its targets may have."""

    version: str
    controllers: tuple[str, ...]
    targets: tuple[str, ...]


CORES = (
    Core("2.17.14", ("3.12", "3.11", "3.10"), ("3.8", "3.9", "3.10", "3.11", "3.12")),
    Core("2.18.19", ("3.13", "3.12", "3.11"), ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")),
    Core("2.19.14", ("3.13", "3.12", "3.11"), ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")),
    Core("2.20.10", ("3.14", "3.13", "3.12"), ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")),
    Core("2.21.5", ("3.14", "3.13", "3.12"), ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")),
)


def pythons() -> dict[str, str]:
    """Return the interpreters at hand, by version ("3.11"): those on PATH and those that pyenv keeps."""
    found: dict[str, str] = {}
    for version in TARGETS:
        names = [shutil.which(f"python{version}")]
        pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
        names += [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)]
        for name in names:
            # pyenv's own entry on PATH is a script that refuses the versions not switched on: ask each what it is.
            real = _executable(name) if name else None
            if real:
                found[version] = real
                break
    return found


def _executable(python: str) -> str | None:
    about = "import ensurepip, sys, venv; print(sys.executable)"
    result = subprocess.run([python, "-c", about], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return result.stdout.decode().strip() if result.returncode == 0 else None


def gates() -> list[Gate]:
    """Return the gates of the long run: ansible-test's checks and the unit tests, for each core at hand."""
    at_hand = pythons()
    return [gate for core in CORES for gate in _gates(core, at_hand)]


def unit_pythons(core: Core, controller: str, at_hand: Iterable[str]) -> list[str]:
    """Return the Pythons on which CORE runs the unit tests: the oldest that it can manage, and its control node's.

    The newest core runs them on every other, too. So each Python and each core has its run, without all pairs of them;
    that the code can be imported is what `ansible-test sanity` tries on every pair.
    """
    targets = [version for version in core.targets if version in at_hand]
    return targets if core == CORES[-1] else [version for version in targets if version in (targets[0], controller)]


def _gates(core: Core, at_hand: dict[str, str]) -> Iterable[Gate]:
    series = core.version.rpartition(".")[0]
    controller = next((version for version in core.controllers if version in at_hand), None)
    if controller is None:
        needs = " or ".join(reversed(core.controllers))
        print(f"--- ansible-core {series}: left out, since there is no Python {needs} here", flush=True)
        return
    targets = unit_pythons(core, controller, at_hand)

    def steps() -> Iterable[Step]:
        venv = venvs.ensure(f"core-{series}", at_hand[controller], (f"ansible-core=={core.version}",))
        env = ansible_test.environment(venv)
        env["PATH"] = f"{_named_pythons(at_hand)}{os.pathsep}{env['PATH']}"
        # Two cores must not meet in one copy: ansible-test keeps its state there.
        copy = WORK / f"core-{series}" / "ansible_collections" / NAMESPACE / NAME
        for command in (["sanity", "--local"], *(["units", "--venv", "--python", version] for version in targets)):
            # What ansible-test leaves in tests/output would be taken for the next command's; refreshing removes it.
            copies.refresh(target=copy)
            # It ends with 0 where a check was left out, too; a Python that is not here is no fault.
            left_out = r"^WARNING: Skipping (?!.* on Python )"
            yield Step([venv / "ansible-test", *command, "--color", "no"], copy, env, clean=left_out)

    on = f"on Python {controller}, unit tests on {', '.join(targets)}"
    yield Gate(f"core {series}", f"ansible-test's checks and the unit tests with ansible-core {series} {on}", steps)


def _named_pythons(at_hand: dict[str, str]) -> Path:
    """Return a directory for PATH in which ansible-test finds each Python by its name (pyenv's entries may refuse)."""
    names = WORK / "pythons"
    names.mkdir(parents=True, exist_ok=True)
    for version, path in at_hand.items():
        link = names / f"python{version}"
        if not (link.is_symlink() and os.readlink(link) == path):
            link.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                link.symlink_to(path)
    return names
