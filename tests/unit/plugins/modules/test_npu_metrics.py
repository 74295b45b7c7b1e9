# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shutil
from typing import Any, Dict

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.metrics import write_metrics
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import read_wishes
from ansible_collections.edgenpu.tuning.plugins.modules import cpufreq, irq_affinity, npu_metrics
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.modules.running import Modules

PLACE = "/var/lib/node_exporter/textfile_collector"
DOOR = {"front_door": hosts.FRONT_DOOR}
ASKED: Dict[str, Any] = dict(DOOR, directory=PLACE)


def test_keeps(modules: Modules, board: hosts.Board) -> None:
    result = modules.run(npu_metrics, **ASKED)
    assert (result.status, result.data["changed"]) == (0, True)
    assert result.data["msg"] == "metrics are written to %s every 5min" % PLACE
    assert result.data["metrics"] == [PLACE + "/edgenpu_tuning.prom", PLACE + "/edgenpu_tuning_agent.prom"]
    assert modules.commands[-1] == "systemctl restart edgenpu-tuning-metrics.timer"
    assert read_wishes(board.root)[0]["diagnostics"]["interval"] == "5min"
    write_metrics(board.kernel, lambda: 1.0)
    modules.commands.clear()
    result = modules.run(npu_metrics, **ASKED)
    assert (result.data["changed"], result.data["changes"], modules.commands) == (False, [], [])
    assert (board.affinity(), board.governor(4)) == ("0-7", "schedutil"), "that is for the other modules"


def test_check_mode_predicts(modules: Modules, board: hosts.Board) -> None:
    before = board.snapshot()
    predicted = modules.run(npu_metrics, check=True, **ASKED)
    assert (board.snapshot(), modules.commands) == (before, [])
    assert predicted.data["msg"] == "metrics would be written to %s every 5min" % PLACE
    made = modules.run(npu_metrics, **ASKED)
    for name in ("changed", "changes", "diff", "unknown", "refused", "metrics"):
        assert predicted.data[name] == made.data[name]


@pytest.mark.parametrize("first", ["metrics", "others"])
def test_everything_is_given_back(modules: Modules, board: hosts.Board, first: str) -> None:
    before = board.snapshot()
    asked = [(irq_affinity, DOOR), (cpufreq, DOOR), (npu_metrics, ASKED)]
    for module, arguments in asked if first == "others" else reversed(asked):
        assert modules.run(module, **arguments).data["changed"] is True
    write_metrics(board.kernel, lambda: 1.0)
    gone = []
    for module, role in ((npu_metrics, "diagnostics"), (cpufreq, "governor"), (irq_affinity, "irq_affinity")):
        predicted = modules.run(module, check=True, state="absent", after_roles=gone)
        made = modules.run(module, state="absent", after_roles=gone)
        assert (made.status, made.data["changed"]) == (0, True)
        assert predicted.data["changes"] == made.data["changes"]
        assert modules.run(module, state="absent").data["changed"] is False
        gone.append(role)
    assert board.snapshot() == before
    assert (board.affinity(), board.governor(4)) == ("0-7", "schedutil")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(ASKED, interval="often"), "interval: 'often' is no time span of systemd; write one such as 5min"),
        (dict(ASKED, interval="1s"), "interval: 1s is less than 10 s"),
        (dict(ASKED, directory="relative"), "directory: 'relative' is no absolute path of a directory"),
        (dict(ASKED, devices=[{"vendor": "x", "device": "1"}]), "devices, entry 1: vendor 'x' is no PCI identity"),
        ({"directory": PLACE}, "state is present but all of the following are missing: front_door"),
        (DOOR, "state is present but all of the following are missing: directory"),
    ],
)
def test_refused_before_anything_is_changed(
    modules: Modules, board: hosts.Board, arguments: Dict[str, Any], message: str
) -> None:
    before = board.snapshot()
    status, data = modules.run(npu_metrics, **arguments)
    assert (status, data["failed"]) == (1, True)
    assert data["msg"].startswith(message)
    assert (board.snapshot(), modules.commands) == (before, [])


def test_no_systemd(modules: Modules, board: hosts.Board) -> None:
    shutil.rmtree(str(board.tree.path / "run/systemd"))
    status, data = modules.run(npu_metrics, **ASKED)
    assert status == 1 and "systemd does not run here" in data["msg"]


def test_systemd_refuses(modules: Modules) -> None:
    modules.failing["systemctl restart edgenpu-tuning-metrics.timer"] = "Failed to connect to bus"
    result = modules.run(npu_metrics, **ASKED)
    assert (result.status, [one["path"] for one in result.data["refused"]]) == (
        0,
        ["systemctl restart edgenpu-tuning-metrics.timer"],
    )
    assert modules.run(npu_metrics, strict=True, **ASKED).status == 1
    modules.failing.clear()
    modules.commands.clear()
    assert modules.run(npu_metrics, **ASKED).data["refused"] == []
    assert "systemctl restart edgenpu-tuning-metrics.timer" in modules.commands
