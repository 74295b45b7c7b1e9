# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from typing import Any, List, Tuple

import pytest
from ansible.module_utils import basic

from ansible_collections.edgenpu.tuning.plugins.modules import axcl_info
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import captured
from ansible_collections.edgenpu.tuning.tests.unit.plugins.modules.running import Modules, Result

TOOL = "/usr/bin/axcl/axcl-smi"
TABLE = captured("axcl/smi-table-v3.6.5-rk3588-54c.txt").replace("0001:11:00.0", hosts.BDF.upper())
VERSION = captured("axcl/smi-version-v3.6.5.txt")
RELEASE = {"release": "3.6.5", "stamp": "20250908154509", "built": None}


class Tool:
    """What axcl-smi says: OUTPUT for the table, the version for -v. CALLS are its arguments."""

    def __init__(self, output: str = TABLE, status: int = 0) -> None:
        self.output = output
        self.status = status
        self.calls: List[List[str]] = []
        self.limits: List[float] = []

    def run_command(self, argv: List[str]) -> Tuple[int, str, str]:
        assert argv[:3] == ["timeout", "-k", "5"]
        self.limits.append(float(argv[3]))
        self.calls.append(argv[argv.index(TOOL) + 1 :])
        return (0, VERSION, "") if self.calls[-1] == ["-v"] else (self.status, self.output, "")


@pytest.fixture
def tool(modules: Modules, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """A board with driver and tool, whose tree is taken for the live system's."""
    made = Tool()

    def run_command(module: basic.AnsibleModule, argv: List[str], **more: Any) -> Tuple[int, str, str]:
        return made.run_command(argv)

    monkeypatch.setattr(basic.AnsibleModule, "run_command", run_command)

    ask = axcl_info.ask_tool
    monkeypatch.setattr(axcl_info, "ask_tool", lambda module, is_live, *more: ask(module, True, *more))
    run = modules.run
    monkeypatch.setattr(modules, "run", lambda *args, **more: run(*args, root=str(board.tree.path), **more))
    board.tree.file(TOOL)
    board.tree.file("/dev/axcl_host")
    os.chmod(board.tree.path / "dev/axcl_host", 0o666)
    board.tree.file(
        "/proc/modules",
        "axcl_host 24576 0 - Live 0x0\nnvme 1 0 - Live 0x0\nax_pcie_host_dev 20480 1 axcl_host, Live 0x0\n",
    )
    return made


def ids(result: Result) -> List[str]:
    """Return the ids of the problems."""
    return [one["id"] for one in result.data["problems"]]


@pytest.mark.parametrize("check", [False, True])
def test_healthy(modules: Modules, tool: Tool, board: hosts.Board, check: bool) -> None:
    before = board.snapshot()
    status, data = modules.run(axcl_info, check=check)
    assert (status, data["changed"], data["problems"], data["not_understood"]) == (0, False, [], [])
    assert (data["asked"], data["tool"], data["tool_version"], data["missing"]) == (True, TOOL, RELEASE, [])
    assert data["cards"] == [
        {
            "index": 0,
            "bdf": hosts.BDF,
            "name": "AX650N",
            "firmware": "V3.6.5",
            "temperature_c": 54,
            "cpu_percent": 2,
            "npu_percent": 0,
            "memory_mib": {"used": 148, "total": 945},
            "cmm_mib": {"used": 18, "total": 7040},
        }
    ]
    assert data["modules"] == [
        {"name": "ax_pcie_host_dev", "state": "Live"},
        {"name": "axcl_host", "state": "Live"},
    ]
    assert [(node["path"], node["mode"]) for node in data["device_nodes"]] == [("/dev/axcl_host", "0666")]
    assert (tool.calls, board.snapshot()) == ([[]], before)


def test_processes(modules: Modules, tool: Tool) -> None:
    tool.output = captured("axcl/smi-table-v2.18.0-one-process.txt")
    data = modules.run(axcl_info).data
    assert data["processes"] == [
        {"card": 0, "pid": 763, "name": "/opt/bin/axcl/axcl_run_model", "name_cut": False, "npu_memory_kib": 160}
    ]


def test_card_without_a_row(modules: Modules, tool: Tool) -> None:
    tool.output = TABLE.replace("0003:31:00.0", "0001:11:00.0")
    result = modules.run(axcl_info)
    assert result.data["missing"] == [hosts.BDF]
    assert ids(result) == ["not_on_bus", "dead_card"]
    assert result.data["problems"][1]["device"] == 0x31


def test_dead_card_is_told_once(modules: Modules, tool: Tool) -> None:
    tool.output = captured("axcl/smi-error-dead-card-table.txt")  # device 49 is bus 31, which is the board's card
    result = modules.run(axcl_info)
    assert (ids(result), result.data["missing"]) == (["dead_card"], [hosts.BDF])
    assert "request ports from device 49 fail" in result.data["problems"][0]["evidence"]


def test_driver_without_a_card(modules: Modules, tool: Tool) -> None:
    tool.output = captured("axcl/smi-error-no-device.txt")
    result = modules.run(axcl_info)
    assert (ids(result), result.data["missing"]) == (["no_card"], [hosts.BDF])


def test_hangs(modules: Modules, tool: Tool) -> None:
    tool.output, tool.status = "", 124
    result = modules.run(axcl_info, timeout=7)
    assert (result.status, ids(result), result.data["missing"]) == (0, ["timed_out"], [hosts.BDF])
    assert "7 s" in result.data["problems"][0]["evidence"]
    assert tool.limits[0] > 7


def test_driver_is_not_there(modules: Modules, tool: Tool, board: hosts.Board) -> None:
    board.tree.file("/proc/modules", "nvme 1 0 - Live 0x0\n")
    result = modules.run(axcl_info)
    assert (ids(result), result.data["asked"], result.data["missing"]) == (["no_driver"], False, None)
    assert (tool.calls, result.data["tool_version"]["built"]) == ([["-v"]], "Sep  8 2025 16:14:02")


def test_driver_still_loads(modules: Modules, tool: Tool, board: hosts.Board) -> None:
    board.tree.file("/proc/modules", "axcl_host 24576 1 - Loading 0x0\n")
    result = modules.run(axcl_info)
    assert (ids(result), tool.calls) == (["driver_loading"], [["-v"]])


def test_nothing_is_there(modules: Modules, tool: Tool, board: hosts.Board) -> None:
    board.tree.file("/proc/modules", "")
    (board.tree.path / TOOL.lstrip("/")).unlink()
    (board.tree.path / "dev/axcl_host").unlink()
    result = modules.run(axcl_info)
    assert (result.status, ids(result), tool.calls) == (0, ["no_driver", "tool_missing"], [])
    assert (result.data["tool"], result.data["device_nodes"], result.data["modules"]) == (None, [], [])


def test_line_that_nobody_knows(modules: Modules, tool: Tool) -> None:
    tool.output = TABLE + "Something new\n"
    assert modules.run(axcl_info).data["not_understood"] == ["Something new"]


def test_card_of_another_driver_is_not_expected(modules: Modules, tool: Tool, board: hosts.Board) -> None:
    board.tree.pci("pci0000:00/0000:00:02.0", contents={"vendor": "0x1e60", "device": "0x2864"})
    board.tree.pci("pci0000:00/0000:00:03.0", contents={"vendor": "0x1f4b", "device": "0x8860"})
    assert modules.run(axcl_info).data["missing"] == []


def test_user_s_card_is_expected(modules: Modules, tool: Tool, board: hosts.Board) -> None:
    board.tree.pci("pci0000:00/0000:00:02.0", contents={"vendor": "0xabcd", "device": "0x0001"})
    mine = [{"vendor": "abcd", "device": "0001", "drivers": ["ax_pcie_dev_host"]}]
    assert modules.run(axcl_info, devices=mine).data["missing"] == ["0000:00:02.0"]


def test_captured_tree(modules: Modules, board: hosts.Board) -> None:
    board.tree.file("/proc/modules", "axcl_host 24576 0 - Live 0x0\n")
    status, data = modules.run(axcl_info, root=str(board.tree.path))
    assert (status, data["asked"], data["missing"], data["problems"]) == (0, False, None, [])
    assert (data["modules"], modules.commands) == ([{"name": "axcl_host", "state": "Live"}], [])


@pytest.mark.parametrize("seconds", [0, -1, "nan"])
def test_no_time(modules: Modules, seconds: Any) -> None:
    status, data = modules.run(axcl_info, timeout=seconds)
    assert (status, data["failed"]) == (1, True)
    assert data["msg"].startswith("timeout: ") and data["msg"].endswith("write a number of seconds above 0")


def test_no_identity(modules: Modules, board: hosts.Board) -> None:
    status, data = modules.run(axcl_info, root=str(board.tree.path), devices=[{"vendor": "axera", "device": "0650"}])
    assert (status, data["failed"]) == (1, True)
    assert data["msg"].startswith("devices, entry 1: vendor 'axera' is no PCI identity; write ")
