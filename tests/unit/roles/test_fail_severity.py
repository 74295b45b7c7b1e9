# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A diagnosis for CI: the playbook fails for hosts with findings that are too grave, after all reports were written."""

from __future__ import annotations

import json
import pathlib
import re
import sys
from typing import Any, Dict, List

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.agent import keep_in_force
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import keep
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree
from ansible_collections.edgenpu.tuning.tests.unit.roles.test_diagnose_bundle import play


@pytest.fixture(name="fleet", scope="module")
def fixture_fleet(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory with an inventory of three trees: one tuned, one untuned, one with a dead card."""
    directory = tmp_path_factory.mktemp("fleet")
    inventory: Dict[str, Any] = {}
    for name in ("tuned", "untuned", "dead"):
        (directory / name).mkdir()
        board = hosts.Board(Tree(directory / name))
        if name == "tuned":
            wishes = {"irq_affinity": AffinityWishes(BUILT_IN).to_data(), "governor": ClockWishes().to_data()}
            with pytest.MonkeyPatch.context() as patch:
                hosts.let_root_own_nothing(patch)
                for role, wish in wishes.items():
                    ledger = Ledger(board.kernel)
                    keep(board.kernel, ledger, role, wish, hosts.FRONT_DOOR, sys.executable, hosts.Commands(), False)
                keep_in_force(board.kernel)
        if name == "dead":
            (board.tree.path / "sys/devices" / hosts.SLOT / hosts.BDF / "config").write_bytes(b"\xff" * 256)
        inventory[name] = {"diagnostics_root": str(directory / name)}
    more = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "diagnostics_become": False}
    (directory / "fleet.yml").write_text(json.dumps({"all": {"hosts": inventory, "vars": more}}))
    return directory


def diagnose(fleet: pathlib.Path, *settings: str) -> Any:
    words: List[str] = [word for setting in settings for word in ("-e", setting)]
    return play(fleet, "-i", "fleet.yml", "edgenpu.tuning.diagnose", *words)


def failed(output: str) -> List[str]:
    """Return the hosts that the recap has as failed."""
    recap = re.findall(r"^(\w+) +: ok=\d+ +changed=\d+ +unreachable=0 +failed=(\d+)", output, re.MULTILINE)
    assert len(recap) == 3
    return sorted(host for host, count in recap if count != "0")


@pytest.mark.parametrize(
    ("least", "expected"), [("critical", ["dead"]), ("warning", ["dead", "untuned"]), ("never", [])]
)
def test_hosts_that_fail(fleet: pathlib.Path, least: str, expected: List[str]) -> None:
    reports = fleet / ("reports-" + least)
    done = diagnose(fleet, "diagnostics_fail_severity=" + least, "diagnostics_report_dir=%s" % reports)
    assert failed(done.stdout) == expected, done.stdout
    assert (done.returncode != 0) == bool(expected)
    assert {"tuned.json", "untuned.json", "dead.json"} <= {path.name for path in reports.iterdir()}
    if least == "warning":
        said = re.sub(r"\s+", " ", done.stdout)
        assert "untuned: 4 findings as grave as warning or graver: interrupt_on_slow_core (warning): interr" in said
        assert "; not_kept (warning): nothing on this host keeps" in said


def test_one_finding(fleet: pathlib.Path) -> None:
    done = diagnose(fleet, "diagnostics_fail_severity=critical", "diagnostics_report_dir=")
    assert "dead: 1 finding as grave as critical or graver: card_dead (critical): " in re.sub(r"\s+", " ", done.stdout)


def test_no_severity(fleet: pathlib.Path) -> None:
    done = diagnose(fleet, "diagnostics_fail_severity=grave", "diagnostics_report_dir=")
    assert done.returncode != 0
    assert "value of diagnostics_fail_severity must be one of: never, critical, warning, info, got: grave" in re.sub(
        r"\s+", " ", done.stdout
    )
