# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gates: what must hold before a change goes in, each a command that fails if it does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from . import ansible_test, copies, venvs
from .places import COPY, COPY_ROOT, LINK_ROOT, NAME, NAMESPACE, ROOT, WORK, make_link


class Step(NamedTuple):
    """One command of a gate; paths among its words become strings.

    ``clean`` is a pattern that the output must not match, for tools that end with 0 whatever they have found.
    """

    command: Sequence[object]
    cwd: Path
    env: Mapping[str, str]
    clean: str | None = None


class Gate(NamedTuple):
    """A gate: its name, what it watches over, and the function that returns its steps when it is its turn.

    ``live`` gates run alone, with their output on the terminal as it comes; the others run side by side and show theirs
    only if they fail, or, with ``tells``, line by line as it comes, each named by the gate. ``slow`` ones are not
    started once another has failed.
    """

    name: str
    watches: str
    steps: Callable[[], Iterable[Step]]
    live: bool = False
    slow: bool = False
    tells: bool = False


def say(text: str) -> None:
    """Print a line at once, also into a pipe, and in one piece: several gates may speak."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(gates: Iterable[Gate], jobs: int) -> int:
    """Run GATES, up to JOBS of those that may run side by side; return 0 if all hold, 1 otherwise."""
    failed: list[str] = []
    waiting: list[Gate] = []

    def finish_waiting() -> None:
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            for gate, held in zip(waiting, pool.map(_run_one, waiting), strict=True):
                if not held:
                    failed.append(gate.name)
        waiting.clear()

    for gate in gates:
        if not gate.live:
            waiting.append(gate)
            continue
        finish_waiting()
        if gate.slow and failed:
            say(f"--- {gate.name}: not run, since {', '.join(failed)} failed")
        elif not _run_one(gate):
            failed.append(gate.name)
    finish_waiting()
    if failed:
        say(f"--- failed: {', '.join(failed)}")
    return 1 if failed else 0


def _run_one(gate: Gate) -> bool:
    say(f"==> {gate.name}: {gate.watches}")
    began = time.monotonic()
    held = True
    for step in gate.steps():
        words = [str(word) for word in step.command]
        try:
            status, output = _run_step(gate, step, words)
        except OSError as error:
            say(f"{words[0]}: {error.strerror}")
            held = False
            break
        held = status == 0 and not (step.clean and re.search(step.clean, output, re.MULTILINE))
        if not held:
            shown = "" if gate.tells else output.rstrip()
            say(f"{shown}\n{gate.name}: `{' '.join(words)}` ended with {status}".lstrip())
            break
    say(f"<== {gate.name}: {'ok' if held else 'FAILED'} in {time.monotonic() - began:.1f} s")
    return held


def _run_step(gate: Gate, step: Step, words: Sequence[str]) -> tuple[int, str]:
    """Run one command; return its exit status and its output, which is empty where it went to the terminal."""
    with subprocess.Popen(
        words,
        cwd=step.cwd,
        env=dict(step.env),
        stdin=subprocess.DEVNULL,
        stdout=None if gate.live else subprocess.PIPE,
        stderr=None if gate.live else subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        name = f"{gate.name}: "
        lines = []
        try:
            for line in process.stdout or ():
                lines.append(line)
                if gate.tells:
                    say(name + line.rstrip().removeprefix(name))
            return process.wait(), "".join(lines)
        except BaseException:  # somebody has had enough
            process.kill()
            raise


def _environment(venv_bin: Path, collections: Path) -> dict[str, str]:
    """Return the environment for Ansible's tools out of VENV_BIN, finding the collection below COLLECTIONS."""
    return {
        **os.environ,
        "PATH": f"{venv_bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def lint_gates() -> list[Gate]:
    """Return the gates that read the code without running it."""
    venv = venvs.ensure("check")
    copies.refresh()
    env = _environment(venv, COPY_ROOT)

    def one(*command: str | Path, clean: str | None = None) -> Callable[[], Iterable[Step]]:
        return lambda: [Step([venv / command[0], *command[1:]], COPY, env, clean)]

    docs = ["--plugin-docs", "--skip-rstcheck", "--validate-collection-refs=all", "--disallow-unknown-collection-refs"]
    cache = WORK / "ruff"
    return [
        Gate(
            "ansible-lint",
            "playbooks and roles, by the production profile",
            # A rule that breaks down over a file says so and goes on.
            one("ansible-lint", "--nocolor", clean=r"^WARNING +Ignored exception"),
        ),
        Gate(
            "galaxy",
            "what a user installs: the collection builds, and Galaxy would take it",
            lambda: _galaxy(venv, env),
        ),
        Gate("mypy", "types", lambda: _mypy(venv, env)),
        Gate("docs", "documentation of modules and roles", one("antsibull-docs", "lint-collection-docs", *docs, ".")),
        Gate("changelog", "the changelog's fragments", one("antsibull-changelog", "lint")),
        Gate("yamllint", "layout of YAML", one("yamllint", "--strict", ".")),
        Gate("ruff", "mistakes in Python", one("ruff", "check", "--output-format=concise", f"--cache-dir={cache}")),
        Gate(
            "format",
            "layout of Python",
            one("ruff", "format", "--check", "--output-format=concise", f"--cache-dir={cache}"),
        ),
    ]


def _mypy(venv: Path, env: Mapping[str, str]) -> Iterable[Step]:
    mypy = [venv / "mypy", f"--config-file={COPY / 'pyproject.toml'}", f"--cache-dir={WORK / 'mypy'}"]
    # For a board, under the collection's full name, as the imports have it; then for the control node.
    yield Step([*mypy, f"ansible_collections/{NAMESPACE}/{NAME}/plugins"], COPY_ROOT, env)
    yield Step([*mypy, "--python-version=3.10", "--exclude=/tests/", "bench", "tools", "twin"], COPY, env)


def _galaxy(venv: Path, env: Mapping[str, str]) -> Iterable[Step]:
    with tempfile.TemporaryDirectory(prefix="edgenpu-galaxy-") as directory:
        here = Path(directory)
        importer = [venv / "python", "-m", "galaxy_importer.main", "--git-clone-path", COPY, "--output-path", here]
        # Our own gate runs ansible-lint, and asks for more than the importer does.
        settings = {"GALAXY_IMPORTER_CHECK_REQUIRED_TAGS": "true", "GALAXY_IMPORTER_RUN_ANSIBLE_LINT": "false"}
        # It leaves a report in its working directory, ends with 0 whatever it finds, and only says WARNING or ERROR; a
        # missing README of a role is one.
        yield Step(importer, here, {**env, **settings}, clean=r"^(WARNING|ERROR)")


def sanity_gates() -> list[Gate]:
    """Return the gate of ansible-test's own checks, with the newest core that this Python can run."""
    venv = venvs.ensure("check")
    copies.refresh()
    return [Gate("sanity", "ansible-test's checks", lambda: [_sanity(venv)])]


def _sanity(venv: Path, python: str = f"{sys.version_info.major}.{sys.version_info.minor}") -> Step:
    command = [venv / "ansible-test", "sanity", "--local", "--color", "no", "--python", python]
    # It ends with 0 where a check was left out, too.
    return Step(command, COPY, ansible_test.environment(venv), clean=r"^WARNING: (Skipping|Required program)")


def unit_gates() -> list[Gate]:
    """Return the gate of the unit tests, run where the files lie."""
    venv = venvs.ensure("run")
    make_link()
    step = Step([venv / "python", "-m", "pytest"], ROOT, _environment(venv, LINK_ROOT))
    return [Gate("unit", "parsers, decisions, writers, architecture", lambda: [step], live=True)]


def report_gates() -> list[Gate]:
    """Return the gate that opens the pages of a staged fleet in a browser; $EDGENPU_SCREENSHOTS names a directory."""
    venv = venvs.ensure("report")
    make_link()
    step = Step([venv / "python", "-m", "pytest", "tests/report"], ROOT, _environment(venv, LINK_ROOT))
    return [Gate("report", "pages of reports in a browser: three widths, light and dark", lambda: [step], live=True)]


def twin_gates() -> list[Gate]:
    """Return the gate that builds what the scenarios run on; minutes once, beside the other gates, so it tells."""
    venv = venvs.ensure("run")
    step = Step([venv / "python", "-m", "twin", "build"], ROOT, _environment(venv, LINK_ROOT))
    return [Gate("twin", "the digital twin can be built, or is", lambda: [step], tells=True)]


def molecule_gates() -> list[Gate]:
    """Return the gate of the scenario that every change must pass."""
    return [_molecule("default")]


def scenario_gates() -> list[Gate]:
    """Return a gate for every scenario in molecule/, the default one first."""
    names = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")}
    return [_molecule(name) for name in sorted(names, key=lambda name: (name != "default", name))]


def _molecule(scenario: str) -> Gate:
    venv = venvs.ensure("run")
    make_link()
    # Molecule finds it by itself only in a checkout of git.
    base = ROOT / ".config/molecule/config.yml"
    molecule = [venv / "molecule", "--base-config", base, "test", "--scenario-name", scenario]
    step = Step(molecule, ROOT, _environment(venv, LINK_ROOT))
    return Gate(f"molecule {scenario}", f"molecule/{scenario} on the twin", lambda: [step], live=True, slow=True)
