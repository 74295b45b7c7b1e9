# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes to a host, and what does not."""

from __future__ import annotations

import hashlib
import pathlib
from types import SimpleNamespace
from typing import Any, Dict, List

import pytest
from ansible.errors import AnsibleError

from ansible_collections.edgenpu.tuning.plugins.action.axcl_driver import ActionModule

CONTENT = b"a package"
SHA = hashlib.sha256(CONTENT).hexdigest()


class Action(ActionModule):  # type: ignore[misc]
    """The action on a host that answers NEEDS to the first question, with what was sent to it."""

    def __init__(self, source: Any, files: pathlib.Path, needs: bool = True) -> None:
        self._task = SimpleNamespace(args={"group": "npu"} if source is None else {"group": "npu", "source": source})
        shell = SimpleNamespace(tmpdir="/tmp/x", join_path=lambda *parts: "/".join(parts))
        self._connection = SimpleNamespace(_shell=shell)
        self.files = files
        self.needs = needs
        self.asked: List[Dict[str, Any]] = []
        self.sent: List[Any] = []
        self.removed: List[str] = []

    def _find_needle(self, directory: str, needle: str) -> str:
        path = self.files / needle
        if not path.exists():
            raise AnsibleError("Could not find %s" % needle)
        return str(path)

    def _execute_module(self, module_args: Any = None, task_vars: Any = None, **more: Any) -> Dict[str, Any]:
        self.asked.append(module_args)
        source = module_args.get("source") or {}
        needs = self.needs and "path" not in source
        return {"changed": not needs, "needs_file": True} if needs else {"changed": True}

    def _transfer_file(self, local: str, remote: str) -> str:
        self.sent.append((local, remote))
        return remote

    def _fixup_perms2(self, paths: Any, **more: Any) -> None:
        assert self.sent

    def _remove_tmp_path(self, path: str, force: bool = False) -> None:
        self.removed.append(path)


@pytest.fixture
def run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "axcl.deb").write_bytes(CONTENT)
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda self, tmp=None, task_vars=None: {})

    def runner(source: Any, needs: bool = True) -> Any:
        action = Action(source, tmp_path, needs)
        return action, action.run(task_vars={})

    return runner


def test_file_goes_to_the_host_that_asks_for_it(run: Any, tmp_path: pathlib.Path) -> None:
    action, result = run({"file": "axcl.deb", "sha256": SHA.upper()})
    assert result == {"changed": True}
    assert action.sent == [(str(tmp_path / "axcl.deb"), "/tmp/x/axcl.deb")]
    assert [one["source"].get("path") for one in action.asked] == [None, "/tmp/x/axcl.deb"]
    assert {one["source"]["sha256"] for one in action.asked} == {SHA}
    assert action.removed == ["/tmp/x"]


def test_file_stays_where_it_is_installed(run: Any) -> None:
    action, result = run({"file": "axcl.deb", "sha256": SHA}, needs=False)
    assert (result, action.sent, len(action.asked)) == ({"changed": True}, [], 1)


@pytest.mark.parametrize("source", [None, {"path": "/root/a.deb"}, {"package": "axclhost"}])
def test_other_sources_are_the_module_s(run: Any, source: Any) -> None:
    action, result = run(source, needs=False)
    assert (result, action.sent) == ({"changed": True}, [])
    assert [one.get("source") for one in action.asked] == [source]


def test_checksum_is_not_made_up(run: Any) -> None:
    """Without one the module has to refuse; with the waiver the file's own tells hosts apart."""
    action, _result = run({"file": "axcl.deb"}, needs=False)
    assert action.asked[0]["source"].get("sha256") is None
    action, _result = run({"file": "axcl.deb", "checksum_none_accepted": True}, needs=False)
    assert action.asked[0]["source"]["sha256"] == SHA


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"file": "axcl.deb", "sha256": "ab" * 32}, "is %s and not %s; get the file again" % (SHA, "ab" * 32)),
        ({"file": "missing.deb", "sha256": SHA}, "source: file missing.deb on the control node: Could not find"),
        ({"file": "axcl.deb", "path": "/x"}, "file and path given"),
    ],
)
def test_wrong_sources_touch_no_host(run: Any, source: Any, sentence: str) -> None:
    action, result = run(source)
    assert result["failed"] is True
    assert sentence in result["msg"]
    assert (action.asked, action.sent) == ([], [])
