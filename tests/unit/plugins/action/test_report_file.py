# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report on the control node is whole or not there, and what cannot be written is told in a sentence.

Ansible runs in a process of its own: what it loads for a control node changes how modules behave in the same process.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ansible_collections
from ansible_collections.edgenpu.tuning.tests.unit.plugins.plugin_utils.staged import Stage


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
    for what, given in (("report", {"report": {"a": 1}}), ("bundle", {"bundle": "QUJD"})):
        status, output = run(tmp_path, path=f"file/{what}.out", **given)
        assert status != 0
        there = re.escape(str(tmp_path / "file"))
        sentence = rf"{what} {there}/{what}\.out cannot be written: File exists \({there}\); choose another directory"
        assert re.search(sentence, output), output
        assert "Errno" not in output, "the reason is told once"
        assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"


def test_what_cannot_be_removed_is_told(tmp_path: Path) -> None:
    (tmp_path / "nas.json" / "x").mkdir(parents=True)
    status, output = run(tmp_path, path="nas.json", state="absent")
    assert status != 0
    assert re.search(r"report \S+/nas\.json cannot be removed: Is a directory; choose", output), output


def test_bundle_is_written_as_it_is_and_for_nobody_else(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    status, output = run(tmp_path, path="new/nas.tar.gz", bundle=base64.b64encode(data).decode())
    assert status == 0, output
    path = tmp_path / "new" / "nas.tar.gz"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (data, 0o600)


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    status, output = run(tmp_path, path="nas.tar.gz", bundle="&&")
    assert status != 0
    assert re.search(r"bundle \S+/nas\.tar\.gz: .*; hand over what npu_host_info returned as bundle", output)
    assert "as bundle: " not in output, "the reason is told once"
    assert not (tmp_path / "nas.tar.gz").exists()


def test_report_is_needed_where_one_is_to_be_written(tmp_path: Path) -> None:
    status, output = run(tmp_path, path="nas.json")
    assert status != 0
    assert "state is present but any of the following are missing: report, fleet, bundle" in output


def test_page_of_what_is_no_report_and_nothing_is_written(tmp_path: Path) -> None:
    status, output = run(tmp_path, path="nas.json", page="nas.html", report={"a": 1})
    assert status != 0
    assert re.search(r"page \S+/nas\.html: it is no report; hand over what npu_host_info returned as report", output)
    assert list(tmp_path.glob("nas*")) == []


@pytest.fixture(name="stage")
def fixture_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stage:
    return Stage(tmp_path / "stage", monkeypatch, capsys, {})


def test_life_of_a_fleet_s_pages(tmp_path: Path, stage: Stage) -> None:
    """Written, kept beside those of earlier runs and what is no report, replaced, and removed one after the other."""
    reports = tmp_path / "reports"
    fleet = {"path": "reports/index.html", "fleet": "reports"}
    for name, report in (("nas.local", stage("dead_card")), ("lab", stage("two_cards"))):
        assert run(tmp_path, path=f"reports/{name}.json", page=f"reports/{name}.html", report=report)[0] == 0
    (reports / "notes.json").write_text("[1", encoding="utf-8")
    (reports / "later.json").write_text('{"schema": 99, "findings": []}', encoding="utf-8")
    status, output = run(tmp_path, **fleet)
    assert (status, '"changed": false' in output) == (0, True), output
    page = (reports / "index.html").read_text(encoding="utf-8")
    assert 'href="#box-nas.local"' in page and 'href="#box-lab"' in page
    assert "<code>notes.json</code>: it is no JSON" in page and "its schema is 99" in page
    assert (reports / "index.html").stat().st_mode & 0o777 == 0o644
    assert "<title>nas.local: Broken: " in (reports / "nas.local.html").read_text(encoding="utf-8")

    assert run(tmp_path, **fleet)[0] == 0
    assert (reports / "index.html").read_text(encoding="utf-8") == page, "the same reports, the same page"

    assert run(tmp_path, path="reports/lab.json", page="reports/lab.html", state="absent")[0] == 0
    for other in ("notes.json", "later.json"):
        (reports / other).unlink()
    assert run(tmp_path, **fleet)[0] == 0
    assert sorted(os.listdir(reports)) == ["index.html", "nas.local.html", "nas.local.json"]
    assert "box-lab" not in (reports / "index.html").read_text(encoding="utf-8")

    assert run(tmp_path, path="reports/nas.local.json", page="reports/nas.local.html", state="absent")[0] == 0
    assert run(tmp_path, **fleet)[0] == 0
    assert os.listdir(reports) == []


def test_earlier_report_tells_where_an_interrupt_was(tmp_path: Path, stage: Stage) -> None:
    later = stage("tuned")
    del later["cards"][0]["interrupts"][0]["before"]
    earlier = copy.deepcopy(later)
    earlier["cards"][0]["interrupts"][0].update(effective="0", counts={"0": 100})
    for report in (earlier, later, later):
        assert run(tmp_path, path="nas.json", page="nas.html", report=report)[0] == 0
    written = json.loads((tmp_path / "nas.json").read_text(encoding="utf-8"))
    assert written["cards"][0]["interrupts"][0]["before"] == {"effective": "0", "counts": {"0": 100}}
    assert "before it was moved" in (tmp_path / "nas.html").read_text(encoding="utf-8")
    (tmp_path / "nas.json").write_text("[" * 100_000, encoding="utf-8")
    assert run(tmp_path, path="nas.json", report=later)[0] == 0, "one that is damaged is replaced"
    assert json.loads((tmp_path / "nas.json").read_text(encoding="utf-8")) == later
