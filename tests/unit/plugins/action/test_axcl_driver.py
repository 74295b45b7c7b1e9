# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes to a host, and what does not.

Ansible runs in a process of its own: what it loads for a control node changes how modules behave in the same process.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any, Dict

import pytest

import ansible_collections
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.repository import wrong_repository
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.openpgp import PRIVATE, armour
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import keys

CONTENT = b"a package"
SHA = hashlib.sha256(CONTENT).hexdigest()

# The action on a host that answers "needs_file" until it has a copy, told as JSON: result, questions, what was sent.
PROGRAM = """
import json, sys, threading
from pathlib import Path
from types import SimpleNamespace
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.edgenpu.tuning.plugins.action import axcl_driver
from ansible_collections.edgenpu.tuning.plugins.action.axcl_driver import ActionModule

files, arguments, needs = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3] == "needs"
told = {"asked": [], "sent": [], "removed": [], "displayed": []}
displayed = threading.Event()
axcl_driver.TELL_EVERY_S = 0.01 if arguments.get("strict") is False else 60


def display(line):
    told["displayed"].append(line)
    displayed.set()


class Action(ActionModule):
    def __init__(self):
        self._task = SimpleNamespace(args=arguments)
        shell = SimpleNamespace(tmpdir="/tmp/x", join_path=lambda *parts: "/".join(parts))
        self._connection = SimpleNamespace(_shell=shell)
        self._display = SimpleNamespace(display=display)

    def _find_needle(self, directory, needle):
        if not (files / needle).exists():
            raise AnsibleError("Could not find %s" % needle)
        return str(files / needle)

    def _execute_module(self, module_args=None, task_vars=None, **more):
        told["asked"].append(module_args)
        if arguments.get("strict") is False:
            assert displayed.wait(60)
        source = module_args.get("source") or {}
        lacks = needs and any("path" not in one for one in source.get("files") or [source])
        return {"changed": False, "needs_file": True} if lacks else {"changed": True}

    def _transfer_file(self, local, remote):
        told["sent"].append([local, remote])

    def _fixup_perms2(self, paths, **more):
        assert told["sent"]

    def _remove_tmp_path(self, path, force=False):
        told["removed"].append(path)


ActionBase.run = lambda self, tmp=None, task_vars=None: {}
told["result"] = Action().run(task_vars={"inventory_hostname": "nas"})
assert threading.active_count() == 1
print(json.dumps(told))
"""


def run(files: pathlib.Path, source: Any, needs: bool = True, **more: Any) -> Dict[str, Any]:
    """Run the action; return what it did."""
    (files / "axcl.deb").write_bytes(CONTENT)
    arguments = {"group": "npu"} if source is None else {"group": "npu", "source": source}
    arguments.update(more)
    places = os.pathsep.join(
        [*(str(pathlib.Path(place).parent) for place in ansible_collections.__path__), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(files), json.dumps(arguments), "needs" if needs else "has"],
        env={**os.environ, "PYTHONPATH": places, "ANSIBLE_HOME": str(files / ".ansible")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    told: Dict[str, Any] = json.loads(done.stdout.decode())
    return told


def test_file_goes_to_the_host_that_asks_for_it(tmp_path: pathlib.Path) -> None:
    told = run(tmp_path, {"file": "axcl.deb", "sha256": SHA.upper()})
    assert told["result"] == {"changed": True}
    assert told["sent"] == [[str(tmp_path / "axcl.deb"), "/tmp/x/axcl.deb"]]
    assert [one["source"].get("path") for one in told["asked"]] == [None, "/tmp/x/axcl.deb"]
    assert {one["source"]["sha256"] for one in told["asked"]} == {SHA}
    assert told["removed"] == ["/tmp/x"]


def test_who_waits_long_is_told_where_to_look(tmp_path: pathlib.Path) -> None:
    """The module runs until something was told; nothing is where it is quick."""
    told = run(tmp_path, None, needs=False, strict=False)
    assert told["result"] == {"changed": True}
    assert told["displayed"][0].startswith("nas: the driver's installation is under way for 0 s; ")
    assert told["displayed"][0].endswith("journalctl -f -t ansible-edgenpu.tuning.axcl_driver")
    assert run(tmp_path, None, needs=False)["displayed"] == []


def test_file_stays_where_it_is_installed(tmp_path: pathlib.Path) -> None:
    told = run(tmp_path, {"file": "axcl.deb", "sha256": SHA}, needs=False)
    assert (told["result"], told["sent"], len(told["asked"])) == ({"changed": True}, [], 1)


@pytest.mark.parametrize("source", [None, {"path": "/srv/a.deb", "sha256": SHA}, {"package": "axclhost"}])
def test_other_sources_are_the_module_s(tmp_path: pathlib.Path, source: Any) -> None:
    told = run(tmp_path, source, needs=False)
    assert (told["result"], told["sent"]) == ({"changed": True}, [])
    assert [one.get("source") for one in told["asked"]] == [source]


def test_removal_needs_no_file(tmp_path: pathlib.Path) -> None:
    told = run(tmp_path, {"file": "missing.deb"}, needs=False, state="absent")
    assert (told["result"], told["sent"], len(told["asked"])) == ({"changed": True}, [], 1)


def test_checksum_is_not_made_up(tmp_path: pathlib.Path) -> None:
    """Without one the source is refused; with the waiver the file's own tells hosts apart."""
    told = run(tmp_path, {"file": "axcl.deb"}, needs=False)
    assert told["asked"] == []
    assert told["result"]["msg"].startswith("source: file needs sha256")
    told = run(tmp_path, {"file": "axcl.deb", "checksum_none_accepted": True}, needs=False)
    assert told["asked"][0]["source"]["sha256"] == SHA


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"file": "axcl.deb", "sha256": "ab" * 32}, "is %s and not %s; get the file again" % (SHA, "ab" * 32)),
        ({"file": "missing.deb", "sha256": SHA}, "source: file missing.deb is not on the control node, neither"),
        ({"file": "axcl.deb", "path": "/x"}, "file and path given"),
        ({"file": "missing.deb", "url": "https://x/y.deb"}, "file and url given"),
        ({"file": "missing.deb", "sha256": "12"}, "'12' is no checksum"),
    ],
)
def test_wrong_sources_touch_no_host(tmp_path: pathlib.Path, source: Any, sentence: str) -> None:
    told = run(tmp_path, source)
    assert told["result"]["failed"] is True
    assert sentence in told["result"]["msg"]
    assert (told["asked"], told["sent"]) == ([], [])


def test_all_files_of_a_driver_go_together(tmp_path: pathlib.Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "axcl.deb").write_bytes(b"another")
    other = hashlib.sha256(b"another").hexdigest()
    there = {"path": "/root/b.deb", "sha256": SHA}
    files = [{"file": "axcl.deb", "sha256": SHA}, there, {"file": "one/axcl.deb", "sha256": other}]
    told = run(tmp_path, {"files": files})
    assert told["result"] == {"changed": True}
    assert [where for _local, where in told["sent"]] == ["/tmp/x/0-axcl.deb", "/tmp/x/2-axcl.deb"]
    assert told["asked"][0]["source"]["files"] == files
    assert [one["path"] for one in told["asked"][1]["source"]["files"]] == [
        "/tmp/x/0-axcl.deb",
        "/root/b.deb",
        "/tmp/x/2-axcl.deb",
    ]
    wrong = run(tmp_path, {"files": [files[0], dict(files[2], sha256=SHA)]})
    assert "is %s and not %s; get the file again" % (other, SHA) in wrong["result"]["msg"]
    assert (wrong["asked"], wrong["sent"]) == ([], [])
    waived = run(tmp_path, {"files": [{"file": "axcl.deb"}], "checksum_none_accepted": True}, needs=False)
    assert waived["asked"][0]["source"]["files"][0]["sha256"] == SHA


REPOSITORY = {
    "uri": "https://example.org/apt",
    "suite": "axclhost",
    "components": ["main"],
    "fingerprint_none_accepted": True,
}


@pytest.mark.parametrize("armoured", [False, True])
def test_key_in_a_file_is_handed_over_as_text(tmp_path: pathlib.Path, armoured: bool) -> None:
    packets = keys.public(b"one")
    (tmp_path / "key.gpg").write_bytes(armour(packets).encode() if armoured else packets)
    repository = dict(REPOSITORY, key_file="key.gpg")
    told = run(tmp_path, {"package": "axclhost", "repository": repository}, needs=False)
    handed = told["asked"][0]["source"]["repository"]
    assert handed == dict(repository, key=armour(packets), key_file=None)
    assert wrong_repository(handed) is None
    both = dict(repository, key=armour(packets))
    told = run(tmp_path, {"package": "axclhost", "repository": both}, needs=False)
    assert "key and key_file given" in told["result"]["msg"]
    assert told["asked"] == []
    fetched = dict(REPOSITORY, key_url="https://example.org/key", fingerprint=["ab" * 20])
    told = run(tmp_path, {"package": "axclhost", "repository": fetched}, needs=False)
    assert told["asked"][0]["source"]["repository"] == fetched


def test_private_key_never_leaves_the_control_node(tmp_path: pathlib.Path) -> None:
    (tmp_path / "key.gpg").write_bytes(keys.private(b"one"))
    (tmp_path / "page").write_bytes(b"<html>")
    text = armour(keys.private(b"one"))
    for given, sentence in (
        ({"key_file": "key.gpg"}, "key.gpg is of no use as a key: " + PRIVATE),
        ({"key": text}, "key is of no use as a key: " + PRIVATE),
        ({"key_file": "page"}, "page is of no use as a key: it is no OpenPGP key: it begins with '<html>'"),
        ({"key_file": "missing"}, "file missing is not on the control node"),
    ):
        told = run(tmp_path, {"package": "axclhost", "repository": dict(REPOSITORY, **given)})
        assert sentence in told["result"]["msg"]
        assert (told["asked"], told["sent"]) == ([], [])
