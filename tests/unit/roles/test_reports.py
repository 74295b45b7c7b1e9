# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role diagnostics leaves on the control node, and the schema that is published for it."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any, Callable, Dict, List

import jsonschema
import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import SCHEMA
from ansible_collections.edgenpu.tuning.tests.unit.conftest import report_validator
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree
from ansible_collections.edgenpu.tuning.tests.unit.plugins.plugin_utils.staged import Stage
from ansible_collections.edgenpu.tuning.tests.unit.roles.test_diagnose_bundle import play

PUBLISHED = pathlib.Path(__file__).parents[3] / "roles" / "diagnostics" / "files" / "report.schema.json"


def diagnose(directory: pathlib.Path, inventory: str, *more: str) -> str:
    """Run the playbook on what lies in DIRECTORY/tree; return what it printed."""
    settings = (
        "diagnostics_root=%s" % (directory / "tree"),
        "diagnostics_become=false",
        "ansible_python_interpreter=%s" % sys.executable,
        *more,
    )
    options = [word for setting in settings for word in ("-e", setting)]
    done = play(directory, "-i", inventory, "-c", "local", "edgenpu.tuning.diagnose", *options)
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout
    return str(done.stdout)


def test_reports_of_two_hosts_and_the_fleet_s_page(tmp_path: pathlib.Path) -> None:
    """The third host's report is of an earlier run; check mode and absent."""
    (tmp_path / "tree").mkdir()
    hosts.Board(Tree(tmp_path / "tree"))
    reports = tmp_path / "reports"
    diagnose(tmp_path, "attic,")
    output = diagnose(tmp_path, "nas,lab,")
    assert output.count("TASK [edgenpu.tuning.diagnostics : Write the page of all reports that are there]") == 1
    names = ("attic", "lab", "nas")
    assert sorted(os.listdir(str(reports))) == sorted(
        ["index.html", *(name + end for name in names for end in (".html", ".json"))]
    )
    for name in names:
        report = json.loads((reports / (name + ".json")).read_text("utf-8"))
        report_validator().validate(report)
        assert (report["inventory_hostname"], report["check_mode"]) == (name, False)
        assert 'href="#box-%s"' % name in (reports / "index.html").read_text("utf-8")
        assert "<h1>%s</h1>" % name in (reports / (name + ".html")).read_text("utf-8")

    diagnose(tmp_path, "lab,attic,", "diagnostics_state=absent")
    assert sorted(os.listdir(str(reports))) == ["index.html", "nas.html", "nas.json"]
    diagnose(tmp_path, "nas,", "diagnostics_state=absent")
    assert os.listdir(str(reports)) == []


def test_dry_run_tells_what_a_run_would_change(tmp_path: pathlib.Path) -> None:
    """As a finding, so that a host that has drifted from its inventory can fail in CI."""
    (tmp_path / "tree").mkdir()
    hosts.Board(Tree(tmp_path / "tree"))
    change = {"path": "/sys/x/scaling_governor", "before": "schedutil", "after": "performance", "why": "fast"}
    text = {"path": "/etc/x", "before": None, "after": "a\nb\n", "why": "kept"}
    told = json.dumps(
        {
            "axcl_driver_result": {"changed": False, "skipped": True},
            "governor_result": {"changed": True, "changes": [change, text], "refused": [], "unknown": []},
        }
    )
    Tree(tmp_path / "tree").file(
        "/etc/edgenpu-tuning/wishes.d/irq_affinity.json",
        json.dumps({"schema": 1, "wishes": AffinityWishes(BUILT_IN).to_data()}),
    )
    for mode, expected in ((["--check"], ["governor", "irq_affinity"]), ([], ["irq_affinity"])):
        settings = ["-e", "diagnostics_root=%s" % (tmp_path / "tree"), "-e", "diagnostics_become=false", "-e", told]
        settings += ["-e", "ansible_python_interpreter=%s" % sys.executable, *mode]
        done = play(tmp_path, "-i", "nas,", "-c", "local", "edgenpu.tuning.diagnose", *settings)
        assert done.returncode == 0, done.stdout
        report = json.loads((tmp_path / "reports" / "nas.json").read_text("utf-8"))
        report_validator().validate(report)
        assert (report["actions"]["axcl_driver"], report["actions"]["irq_affinity"]) == ({}, {}), "they did not run"
        drift = [one for one in report["findings"] if one["id"] == "drift"]
        assert [one["role"] for one in drift] == expected
    settings[-1:] = [settings[-1], "--check", "-e", "diagnostics_fail_severity=warning"]
    done = play(tmp_path, "-i", "nas,", "-c", "local", "edgenpu.tuning.diagnose", *settings)
    assert done.returncode != 0
    sentence = (
        "the role governor would change 2 things: /sys/x/scaling_governor: schedutil, wished performance, and 1 more"
    )
    assert sentence in " ".join(done.stdout.split())


def test_report_of_a_bundle_is_called_like_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "tree").mkdir()
    hosts.Board(Tree(tmp_path / "tree"))
    done = play(
        tmp_path, "edgenpu.tuning.diagnose_bundle", "-e", "bundle=tree", "-e", "diagnostics_report_dir=pages", "--check"
    )
    assert done.returncode == 0, done.stdout
    assert sorted(os.listdir(str(tmp_path / "pages"))) == ["index.html", "tree.html", "tree.json"]
    report = json.loads((tmp_path / "pages" / "tree.json").read_text("utf-8"))
    assert report["check_mode"] is True
    report_validator().validate(report)


@pytest.fixture(name="stage")
def fixture_stage(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Stage:
    return Stage(tmp_path / "stage", monkeypatch, capsys, {})


class TestSchema:
    """conftest.py holds every report that a test makes against it."""

    def test_its_version_is_the_report_s(self) -> None:
        assert json.loads(PUBLISHED.read_text("utf-8"))["properties"]["schema"]["const"] == SCHEMA

    def test_reports_with_what_roles_did(self, stage: Stage) -> None:
        for report in stage.fleet().values():
            report_validator().validate(json.loads(json.dumps(report)))

    def test_report_with_a_driver_that_was_installed(self, stage: Stage) -> None:
        kernel = {"release": "6.1.118", "running": True, "headers": True, "has_driver": True}
        proof = dict(stage("two_cards")["findings"][0], id="card_handshake", severity="ok")
        done = {"msg": "driver 3.6.4 is installed and works, 1 card", "changed": True, "changes": [], "refused": []}
        done.update(unknown=[], reboot_required=False, reboot_reason=None, kernels=[kernel], proof=[proof])
        report = json.loads(json.dumps(dict(stage("two_cards"), actions={"axcl_driver": done})))
        report_validator().validate(report)
        report["actions"]["axcl_driver"]["kernels"][0].pop("has_driver")
        assert not report_validator().is_valid(report)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda report: report.pop("verdict"),
            lambda report: report.update(schema=2),
            lambda report: report["host"].update(kernel=6.1),
            lambda report: report["findings"][0].update(severity="bad"),
            lambda report: report["findings"][0].update(id="Not An Id"),
            lambda report: report["findings"][0].pop("evidence"),
            lambda report: report["cards"][0]["hops"][0].update(state="odd"),
            lambda report: report["cards"][0].update(bdf="31:00.0"),
            lambda report: report["cards"][0]["interrupts"][0].update(affinity="0-"),
            lambda report: report["cards"][0]["interrupts"][0].update(counts={"0": -1}),
            lambda report: report["policies"][0].update(max_khz="2400000"),
            lambda report: report["actions"]["irq_affinity"]["changes"][0].pop("path"),
        ],
    )
    def test_what_it_refuses(self, stage: Stage, spoil: Callable[[Dict[str, Any]], Any]) -> None:
        report = json.loads(json.dumps(stage("two_cards")))
        spoil(report)
        published = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text("utf-8")))
        assert not published.is_valid(report)

    @pytest.mark.parametrize("place", [[], ["host"], ["cards", 0], ["findings", 0], ["cards", 0, "interrupts", 0]])
    def test_key_that_it_lacks(self, stage: Stage, place: List[Any]) -> None:
        """A later version may have more; in the tests of this one it is an omission."""
        report = json.loads(json.dumps(stage("two_cards")))
        part: Any = report
        for step in place:
            part = part[step]
        part["new"] = 1
        assert jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text("utf-8"))).is_valid(report)
        assert not report_validator().is_valid(report)
