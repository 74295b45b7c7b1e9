# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a role's files say, for the rules that they must keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

# Actions that stay on the control node. Everything else, with its own loop or without, is a round trip to each host.
LOCAL_ACTIONS = {
    "add_host",
    "assert",
    "debug",
    "fail",
    "group_by",
    "include_role",
    "include_tasks",
    "include_vars",
    "import_role",
    "import_tasks",
    "meta",
    "pause",
    "set_fact",
    "set_stats",
    "validate_argument_spec",
}
KEYWORDS = {
    "any_errors_fatal",
    "args",
    "async",
    "become",
    "become_exe",
    "become_flags",
    "become_method",
    "become_user",
    "changed_when",
    "check_mode",
    "collections",
    "connection",
    "debugger",
    "delay",
    "delegate_facts",
    "delegate_to",
    "diff",
    "environment",
    "failed_when",
    "ignore_errors",
    "ignore_unreachable",
    "listen",
    "loop",
    "loop_control",
    "module_defaults",
    "name",
    "no_log",
    "notify",
    "poll",
    "port",
    "register",
    "remote_user",
    "retries",
    "run_once",
    "tags",
    "throttle",
    "timeout",
    "until",
    "vars",
    "when",
}
BLOCKS = ("block", "rescue", "always")
HERE = {"localhost", "127.0.0.1"}


def load(path: Path) -> Any:
    """Return what a YAML file holds."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def variables(role: Path) -> dict[str, Any]:
    """Return the role's defaults."""
    return load(role / "defaults" / "main.yml") or {}


def options(role: Path) -> dict[str, dict[str, Any]]:
    """Return the options of all entry points in the role's argument_specs."""
    specs = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    return {name: option for spec in specs.values() for name, option in (spec.get("options") or {}).items()}


def entry_points(role: Path) -> list[str]:
    """Return the names of the role's entry points."""
    return sorted(load(role / "meta" / "argument_specs.yml")["argument_specs"])


def tasks(entries: list[dict[str, Any]] | None, inherited: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the tasks of a file with blocks taken apart; a task has the delegation that its block gives it."""
    for entry in entries or []:
        whole = {**{key: value for key, value in (inherited or {}).items() if key == "delegate_to"}, **entry}
        if "block" in entry:
            for part in BLOCKS:
                yield from tasks(entry.get(part), whole)
        else:
            yield whole


def action(task: dict[str, Any]) -> str:
    """Return the task's action without ansible.builtin in front; modules of a collection keep their full name."""
    if "action" in task or "local_action" in task:
        value = task.get("action", task.get("local_action"))
        word = value["module"] if isinstance(value, dict) else str(value).split()[0]
    else:
        (word,) = [key for key in task if key not in KEYWORDS and not key.startswith("with_")]
    return word.removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")


def is_remote(task: dict[str, Any]) -> bool:
    """Return True for a task that goes to the managed host."""
    return action(task) not in LOCAL_ACTIONS and "local_action" not in task and task.get("delegate_to") not in HERE


def repeats(task: dict[str, Any]) -> bool:
    """Return True for a task that is run once for each item: as many round trips."""
    return "loop" in task or any(key.startswith("with_") for key in task)


def remote_tasks(role: Path, entry_point: str = "main") -> list[str]:
    """Return the names of the remote tasks of one run of the role, the longest run there can be.

    Files taken in by name count as if they stood there. Where the name is an expression ("{{ state }}.yml"), one of the
    role's other files is taken in: the one with the most remote tasks counts. A task that repeats counts twice. Tasks
    that exclude each other by ``when`` in one file all count: put them into files chosen by name. Handlers count, since
    a first run calls them.
    """
    count = _in_file(role, f"{entry_point}.yml", ())
    handlers = role / "handlers" / "main.yml"
    return count + (_in_tasks(role, load(handlers), ()) if handlers.is_file() else [])


def _in_file(role: Path, name: str, above: tuple[str, ...]) -> list[str]:
    if name in above:
        return []
    return _in_tasks(role, load(role / "tasks" / name), (*above, name))


def _in_tasks(role: Path, entries: list[dict[str, Any]] | None, above: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for task in tasks(entries):
        if is_remote(task):
            found += [str(task.get("name"))] * (2 if repeats(task) else 1)
        elif action(task) in ("include_tasks", "import_tasks"):
            taken = _taken_in(role, task, above)
            found += taken * (2 if repeats(task) else 1)
        elif action(task) in ("include_role", "import_role"):
            other = next(value for key, value in task.items() if key.endswith("_role"))
            name = other["name"].rpartition(".")[2]
            found += remote_tasks(role.parent / name, other.get("tasks_from", "main").removesuffix(".yml"))
    return found


def _taken_in(role: Path, task: dict[str, Any], above: tuple[str, ...]) -> list[str]:
    value = next(value for key, value in task.items() if key.endswith(("include_tasks", "import_tasks")))
    name = value["file"] if isinstance(value, dict) else str(value)
    if "{{" not in name:
        return _in_file(role, name, above)
    others = {path.name for path in (role / "tasks").glob("*.yml")} - set(above)
    return max((_in_file(role, other, above) for other in sorted(others)), key=len, default=[])
