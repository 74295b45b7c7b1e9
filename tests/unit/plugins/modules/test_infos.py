# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import pathlib
from typing import Any, Dict

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import bundle
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import files
from ansible_collections.edgenpu.tuning.plugins.modules import npu_host_info, pcie_info
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe import pcie_trees
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree
from ansible_collections.edgenpu.tuning.tests.unit.plugins.modules.running import Modules


@pytest.mark.parametrize("check", [False, True])
def test_host(modules: Modules, board: hosts.Board, check: bool) -> None:
    before = board.snapshot()
    status, data = modules.run(npu_host_info, check=check, root=str(board.tree.path))
    assert (status, data["changed"]) == (0, False)
    report = data["report"]
    assert (report["schema"], report["verdict"]) == (1, "Not as fast as it can be: 2 things to do")
    assert [card["bdf"] for card in report["cards"]] == [hosts.BDF]
    assert board.snapshot() == before


def test_commands_are_for_the_live_system(
    modules: Modules, board: hosts.Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit each; none is run for a captured tree."""
    snapshot = npu_host_info.look(board.root, BUILT_IN)

    def looked(root: Any, kinds: Any, run: Any = None) -> Any:
        return snapshot if run is None or run(("axcl-smi",), 5.0) == (0, "") else None

    monkeypatch.setattr(npu_host_info, "look", looked)
    modules.run(npu_host_info, root=str(board.tree.path))
    assert modules.commands == []
    modules.run(npu_host_info)
    assert modules.commands == ["axcl-smi"]
    modules.run(npu_host_info, bundle=True)
    assert [command.split()[0] for command in modules.commands[1:]] == ["axcl-smi", "dmesg", "journalctl"]


@pytest.mark.parametrize("check", [False, True])
def test_topology(modules: Modules, board: hosts.Board, check: bool) -> None:
    status, data = modules.run(pcie_info, check=check, root=str(board.tree.path))
    assert (status, data["changed"], data["unread"]) == (0, False, [])
    assert [device["bdf"] for device in data["devices"]] == ["0003:30:00.0", hosts.BDF]
    assert data["devices"][1]["npu"] == "Axera AX650N"
    assert data["devices"][1]["link_verdict"]["limit"] == "the card sets 5 GT/s, the slot sets x1"
    assert data["devices"][1]["bandwidth_mb_s"] == {"read": 410.3, "write": 453.7}
    assert "hops" not in data["devices"][0], "that is told of NPU cards"
    assert (data["empty_slots"], data["needs_rescan"]) == ([], [])


def test_cards_and_the_bridges_above_them(modules: Modules, board: hosts.Board) -> None:
    board.tree.pci("pci0000:00/0000:00:02.0", contents={"vendor": "0x8086", "device": "0x0001"})
    everything = modules.run(pcie_info, root=str(board.tree.path)).data["devices"]
    cards = modules.run(pcie_info, root=str(board.tree.path), npu_only=True).data["devices"]
    assert len(everything) == 3
    assert [device["bdf"] for device in cards] == ["0003:30:00.0", hosts.BDF]


def test_eight_cards_and_four_empty_slots(modules: Modules, tmp_path: pathlib.Path) -> None:
    tree = Tree(tmp_path / "eight")
    pcie_trees.eight_cards(tree)
    data = modules.run(pcie_info, root=str(tree.path), npu_only=True).data
    cards = [device for device in data["devices"] if device["npu"]]
    assert (len(cards), len(data["devices"])) == (8, 8 + 8 + 2)
    assert {len(card["hops"]) for card in cards} == {2}
    assert [slot["slot_number"] for slot in data["empty_slots"]] == [4, 6, 7, 12]


def test_files_that_could_not_be_read(modules: Modules, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = files.Root(str(board.tree.path))
    refusing.unread.append(("/sys/bus/pci/devices/%s/config" % hosts.BDF, "EACCES"))
    monkeypatch.setattr(pcie_info, "opened_root", lambda module: (refusing, []))
    data = modules.run(pcie_info, root=str(board.tree.path)).data
    assert data["unread"] == ["/sys/bus/pci/devices/%s/config: EACCES" % hosts.BDF]


class TestBundle:
    @pytest.fixture(name="packed")
    def fixture_packed(self, modules: Modules, board: hosts.Board) -> Dict[str, Any]:
        board.tree.pci("pci0000:00/0000:00:02.0", contents={"vendor": "0xabcd", "device": "0x0001"})
        mine = [{"vendor": "abcd", "device": "0001", "name": "mine"}]
        status, data = modules.run(npu_host_info, check=True, root=str(board.tree.path), bundle=True, devices=mine)
        assert (status, data["changed"]) == (0, False)
        return data

    def test_same_report_from_it(
        self, modules: Modules, packed: Dict[str, Any], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.mktemp("away") / "nas.tar.gz"
        path.write_bytes(base64.b64decode(packed["bundle"]))
        status, again = modules.run(npu_host_info, root=str(path))
        assert status == 0 and "bundle" not in again
        for report in (packed["report"], again["report"]):
            del report["host"]["boot_id"]
        assert again["report"] == packed["report"]
        assert [card["npu"] for card in again["report"]["cards"]] == ["mine", "Axera AX650N"]
        cards = modules.run(pcie_info, root=str(path), npu_only=True).data["devices"]
        assert [device["bdf"] for device in cards] == ["0000:00:02.0", "0003:30:00.0", hosts.BDF]
        status, data = modules.run(npu_host_info, root=str(path), bundle=True)
        assert (status, data["msg"]) == (1, "bundle: %s is a bundle already; leave root at /" % path)

    def test_nothing_is_written(self, modules: Modules, board: hosts.Board) -> None:
        before = board.snapshot()
        modules.run(npu_host_info, root=str(board.tree.path), bundle=True)
        assert (board.snapshot(), modules.commands) == (before, [])

    def test_too_much_for_one(self, modules: Modules, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bundle, "MAX_ENTRIES", 100)
        status, data = modules.run(npu_host_info, root=str(board.tree.path), bundle=True)
        assert status == 1
        assert data["msg"].startswith("this host has ") and data["msg"].endswith(
            " files to note, and a bundle holds 100"
        )

    def test_what_is_in_it(self, packed: Dict[str, Any]) -> None:
        assert set(packed["bundle_manifest"]) == {"schema", "taken", "logs", "scrubbed"}
        assert packed["bundle_manifest"]["taken"].endswith("Z")

    def test_logs_of_the_live_system(self, modules: Modules) -> None:
        """With a time limit, which the modules' own way of running commands has not."""
        data = modules.run(npu_host_info, bundle=True).data
        assert [command.split()[0] for command in modules.commands] == ["dmesg", "journalctl"]
        assert data["bundle_manifest"]["logs"]["kernel.txt"] == "0 lines"


@pytest.mark.parametrize("module", [npu_host_info, pcie_info])
class TestBoth:
    def test_user_s_card(self, module: Any, modules: Modules, board: hosts.Board) -> None:
        board.tree.pci("pci0000:00/0000:00:02.0", contents={"vendor": "0xabcd", "device": "0x0001"})
        mine = [{"vendor": "abcd", "device": "0001", "name": "mine"}]
        data = modules.run(module, root=str(board.tree.path), devices=mine).data
        cards = data["report"]["cards"] if "report" in data else data["devices"]
        assert [card["bdf"] for card in cards if card["npu"] == "mine"] == ["0000:00:02.0"]

    def test_no_identity(self, module: Any, modules: Modules, board: hosts.Board) -> None:
        bad = [{"vendor": "axera", "device": "0650"}]
        status, data = modules.run(module, root=str(board.tree.path), devices=bad)
        assert (status, data["failed"]) == (1, True)
        assert data["msg"].startswith("devices, entry 1: vendor 'axera' is no PCI identity; write ")

    def test_no_tree(self, module: Any, modules: Modules, board: hosts.Board) -> None:
        nowhere = str(board.tree.path / "nowhere")
        status, data = modules.run(module, root=nowhere)
        assert (status, data["msg"]) == (1, "root: %s: No such file or directory" % nowhere)
        status, data = modules.run(module, root=str(board.tree.path / "boot"))
        assert status == 1
        assert data["msg"].endswith("boot is no bundle to be read: it has neither manifest.json nor proc nor sys in it")

    def test_empty_tree(self, module: Any, modules: Modules, board: hosts.Board) -> None:
        board.tree.file("/empty/sys/x")
        status, data = modules.run(module, root=str(board.tree.path / "empty"))
        assert (status, data["changed"]) == (0, False)


def test_what_roles_would_change(board: hosts.Board, modules: Modules) -> None:
    """As they return it; a role that was not in the play has null, or nothing."""
    change = {"path": "/etc/x", "before": None, "after": "a", "why": "kept"}
    root = str(board.tree.path)
    board.wishes("irq_affinity", AffinityWishes(BUILT_IN).to_data())
    for nothing in (None, ""):
        _status, data = modules.run(npu_host_info, root=root, planned={"irq_affinity": nothing, "governor": nothing})
        assert [one["role"] for one in data["report"]["findings"] if one["id"] == "drift"] == ["irq_affinity"]
    _status, data = modules.run(npu_host_info, root=root, planned={"governor": [change], "irq_affinity": []})
    [drift] = [one for one in data["report"]["findings"] if one["id"] == "drift"]
    assert (drift["role"], list(drift["evidence"])) == ("governor", ["/etc/x"])
    status, data = modules.run(npu_host_info, root=root, planned={"governor": ["/etc/x"]})
    assert status == 1
    assert data["msg"].startswith("planned: governor: each change has path, before, after and why")
