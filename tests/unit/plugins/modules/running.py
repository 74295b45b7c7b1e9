# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a module's main() as Ansible does: arguments in, one JSON document out, on a tree instead of the live system."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, NamedTuple, Tuple

import pytest
from ansible.module_utils import basic
from ansible.module_utils.common import warnings

from ansible_collections.edgenpu.tuning.plugins.module_utils import module as shared
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts


class Result(NamedTuple):
    """What a module printed, and the exit status that it ended with."""

    status: int
    data: Dict[str, Any]

    @property
    def paths(self) -> List[str]:
        """What it says it has changed."""
        return [change["path"] for change in self.data["changes"]]


def give(monkeypatch: pytest.MonkeyPatch, arguments: Dict[str, Any]) -> None:
    """Hand arguments to the next AnsibleModule, in the way of the ansible-core at hand."""
    warnings._global_warnings.clear()  # they are kept for the process, and on a host that is one module's
    whole = {"ANSIBLE_MODULE_ARGS": dict(arguments, _ansible_no_log=True)}  # unlogged: the tester's journal is theirs
    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps(whole).encode("utf-8"))
    if hasattr(basic, "_ANSIBLE_PROFILE"):  # since 2.19
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy")


class Modules:
    """Runs modules on a board. COMMANDS are those that they would have run; FAILING maps some to what they say."""

    def __init__(self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.board = board
        self.commands: List[str] = []
        self.failing: Dict[str, str] = {}
        self._monkeypatch = monkeypatch
        self._capsys = capsys

        def run_command(module: basic.AnsibleModule, argv: List[str], **more: Any) -> Tuple[int, str, str]:
            assert argv[:3] == ["timeout", "-k", "5"], "run_command has no time limit of its own"
            assert float(argv[3]) > 0
            line = " ".join(argv[4:])
            self.commands.append(line)
            return (1, "", self.failing[line]) if line in self.failing else (0, "", "")

        monkeypatch.setattr(basic.AnsibleModule, "run_command", run_command)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(shared, "unfit", lambda path: None)  # the tester's Python may be their own

    def run(self, module: Any, check: bool = False, **arguments: Any) -> Result:
        """Run one module."""
        if hasattr(module, "live_sink"):
            self._monkeypatch.setattr(module, "live_sink", lambda: self.board.kernel)
        give(self._monkeypatch, dict(arguments, _ansible_check_mode=check, _ansible_diff=True))
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            module.main()
        data: Dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return Result(int(caught.value.code or 0), data)
