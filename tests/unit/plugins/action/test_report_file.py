# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report on the control node is whole or not there, and what cannot be written is told in a sentence.

Ansible runs in a process of its own: what it loads for a control node changes how modules behave in the same process.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import ansible_collections


def run(directory: Path, **options: Any) -> tuple[int, str]:
    """Run the action on localhost, with DIRECTORY as working directory; return exit status and output."""
    places = os.pathsep.join(str(Path(place).parent) for place in ansible_collections.__path__)
    words = ["localhost", "-m", "edgenpu.tuning.report_file", "-a", json.dumps(options), "--check"]
    done = subprocess.run(
        [sys.executable, "-m", "ansible.cli.adhoc", *words],
        cwd=directory,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": places,
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_HOME": str(directory / ".ansible"),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout.decode())


def test_report_is_written_whole_with_the_directories_above_it_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "er" / "nas.json"
    for report in ({"verdict": "größer", "much": "x" * 5000}, {"verdict": "kleiner"}):
        status, output = run(tmp_path, path="new/er/nas.json", report=report)
        assert status == 0, output
        assert '"changed": false' in output and str(path) in output
        assert json.loads(path.read_text(encoding="utf-8")) == report
        assert path.stat().st_mode & 0o777 == 0o644
        assert os.listdir(path.parent) == ["nas.json"]


def test_report_is_removed_and_then_there_is_nothing_to_remove(tmp_path: Path) -> None:
    path = tmp_path / "nas.json"
    path.write_text("{}", encoding="utf-8")
    for _time in range(2):
        status, output = run(tmp_path, path=str(path), state="absent")
        assert (status, path.exists()) == (0, False), output


def test_place_that_cannot_be_written_is_named_and_what_stood_there_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    status, output = run(tmp_path, path="file/nas.json", report={"a": 1})
    assert status != 0
    assert re.search(r"report \S+/file/nas\.json: .*choose another directory", output), output
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"


def test_bundle_is_written_as_it_is_and_for_nobody_else(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    status, output = run(tmp_path, path="new/nas.tar.gz", bundle=base64.b64encode(data).decode())
    assert status == 0, output
    path = tmp_path / "new" / "nas.tar.gz"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (data, 0o600)


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    status, output = run(tmp_path, path="nas.tar.gz", bundle="&&")
    assert status != 0
    assert "hand over what npu_host_info returned as bundle" in output
    assert not (tmp_path / "nas.tar.gz").exists()


def test_report_is_needed_where_one_is_to_be_written(tmp_path: Path) -> None:
    status, output = run(tmp_path, path="nas.json")
    assert status != 0
    assert "state is present but any of the following are missing: report, bundle" in output
