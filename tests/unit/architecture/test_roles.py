# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roles: documented, specified, and one round trip to a host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ansible_collections.edgenpu.tuning.tests.unit.architecture import roles

ROLES = sorted(path for path in (Path(__file__).parents[3] / "roles").iterdir() if path.is_dir())
each_role = pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)

# A fleet's time is round trips: a role asks its module for everything at once. A role that truly needs more says why
# here, beside its number.
# axcl_driver: a reboot, only where the user allows it, and a look at the driver or the cards after it; a Raspberry Pi's
# boot configuration, where it is wished.
# diagnostics: metrics, only where the user wishes for them (and to take them back).
MOST_REMOTE_TASKS: dict[str, int] = {"axcl_driver": 4, "diagnostics": 2}


def test_there_are_roles() -> None:
    assert ROLES


@each_role
def test_role_has_its_papers(role: Path) -> None:
    papers = ["README.md", "defaults/main.yml", "meta/argument_specs.yml", "meta/main.yml", "tasks/main.yml"]
    assert [paper for paper in papers if not (role / paper).is_file()] == []


@each_role
def test_defaults_are_what_the_specification_lists(role: Path) -> None:
    optional = {name for name, option in roles.options(role).items() if not option.get("required")}
    assert set(roles.variables(role)) == optional


@each_role
def test_defaults_have_the_specified_values(role: Path) -> None:
    """An option need not name its default in the specification, but if it does, it is the true one."""
    specified = {name: option["default"] for name, option in roles.options(role).items() if "default" in option}
    assert {name: roles.variables(role).get(name) for name in specified} == specified


@each_role
def test_text_that_says_no_is_no(role: Path) -> None:
    """What -e and INI inventories hand over is text, and "false" is true as a condition of a task."""
    switches = {name for name, option in roles.options(role).items() if option.get("type") == "bool"}
    bare = []
    for path in sorted((role / "tasks").glob("*.yml")):
        for name in switches:
            text = path.read_text(encoding="utf-8")
            for found in re.findall(rf"^.*(?<![\w.\"]){name}(?!\w)(?! \| bool)(?! }}}}\"$).*$", text, re.MULTILINE):
                bare.append(f"{path.name}: {found.strip()}")
    assert bare == []


@each_role
def test_role_goes_to_a_host_once(role: Path) -> None:
    for entry_point in roles.entry_points(role):
        found = roles.remote_tasks(role, entry_point)
        assert len(found) <= MOST_REMOTE_TASKS.get(role.name, 1), f"{role.name}/{entry_point}: {found}"


def _role(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        path = tmp_path / "sample" / name.replace("__", "/")
        path = path.with_suffix(".yml")
        path.parent.mkdir(parents=True, exist_ok=True)
        yaml.safe_load(text)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "sample"


REMOTE = "- name: {0}\n  ansible.builtin.ping:\n"


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        (REMOTE.format("a"), ["a"]),
        (REMOTE.format("a") + "  loop: [1, 2]\n", ["a", "a"]),
        (REMOTE.format("a") + "  delegate_to: localhost\n", []),
        ("- name: b\n  ansible.builtin.debug:\n    msg: x\n", []),
        ("- name: b\n  edgenpu.tuning.debug:\n", ["b"]),
        ("- name: b\n  ansible.builtin.setup:\n", ["b"]),
        ("- block:\n    - name: c\n      ping:\n  rescue:\n    - name: d\n      ping:\n", ["c", "d"]),
        ("- delegate_to: localhost\n  block:\n    - name: c\n      ping:\n", []),
        ("- ansible.builtin.import_tasks: one.yml\n", ["one"]),
        ("- ansible.builtin.include_tasks: '{{ state }}.yml'\n", ["two", "two more"]),
        ("- name: x\n  ansible.builtin.include_role:\n    name: edgenpu.tuning.sample\n    tasks_from: one\n", ["one"]),
    ],
)
def test_remote_tasks_are_counted(tmp_path: Path, main: str, expected: list[str]) -> None:
    role = _role(
        tmp_path,
        tasks__main=main,
        tasks__one=REMOTE.format("one"),
        tasks__two=REMOTE.format("two") + REMOTE.format("two more"),
    )
    assert roles.remote_tasks(role) == expected


def test_handlers_count(tmp_path: Path) -> None:
    role = _role(tmp_path, tasks__main=REMOTE.format("a"), handlers__main=REMOTE.format("b"))
    assert roles.remote_tasks(role) == ["a", "b"]
