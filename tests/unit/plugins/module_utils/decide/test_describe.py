# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import shutil
from typing import Any, Dict

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import describe
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import Link
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe import pcie_trees
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree, config_space, pcie


def report(tree: Tree) -> Dict[str, Any]:
    data = describe.report(look(tree.root, BUILT_IN))
    again: Dict[str, Any] = json.loads(json.dumps(data, allow_nan=False))
    assert again == data, "what JSON cannot hold as it is will not be in the report either"
    return data


def test_cm3588(tree: Tree) -> None:
    hosts.Board(tree)
    data = report(tree)
    assert data["schema"] == 1
    assert data["verdict"] == "Not as fast as it can be: 2 things to do"
    assert (data["host"]["model"], data["host"]["kernel"]) == ("FriendlyElec CM3588 NAS", "6.1.57")
    assert data["tiers"] == [
        {"cpus": "0-3", "basis": "capacity", "value": 414},
        {"cpus": "4-7", "basis": "capacity", "value": 1024},
    ]
    [card] = data["cards"]
    assert (card["bdf"], card["npu"], card["vendor"], card["device"]) == (hosts.BDF, "Axera AX650N", "1f4b", "0650")
    assert (card["subsystem_vendor"], card["class_code"], card["local_cpus"]) == ("1f4b", "040000", "0-7")
    assert card["path"] == [hosts.BDF, "0003:30:00.0"]
    assert card["link_verdict"]["limit"] == "the card sets 5 GT/s, the slot sets x1"
    assert card["driver"] == "ax_pcie_dev_host"
    [hop] = card["hops"]
    assert (hop["lower"], hop["upper"], hop["state"], hop["limited_by"]) == (
        hosts.BDF,
        "0003:30:00.0",
        "full",
        ["card", "slot"],
    )
    assert card["bandwidth_mb_s"] == card["share_mb_s"] == {"read": 410.3, "write": 453.7}
    assert (card["bottleneck"], card["shared_with"], card["internal"]) == (hosts.BDF, [], False)
    assert (data["empty_slots"], data["needs_rescan"]) == ([], [])
    [interrupt] = card["interrupts"]
    assert (interrupt["irq"], interrupt["affinity"], interrupt["effective"]) == (38, "0-7", "0")
    assert [(policy["name"], policy["cpus"], policy["affected"]) for policy in data["policies"]] == [
        ("policy0", "0-3", "0-3"),
        ("policy4", "4-5", "4-5"),
        ("policy6", "6-7", "6-7"),
    ]
    assert data["kept"] == []
    assert {finding["id"] for finding in data["findings"]} == {
        "interrupt_on_slow_core",
        "clock_drops",
        "not_kept",
        "link_at_limit",
    }
    assert set(data["findings"][0]) == {"id", "severity", "summary", "evidence", "remedy", "role", "expected_gain"}
    assert [deed["findings"] for deed in data["worth_doing"]] == [
        ["interrupt_on_slow_core", "not_kept"],
        ["clock_drops"],
    ]
    assert data["expected_gain"]["text"] == data["worth_doing"][0]["expected_gain"]


def test_what_a_shell_script_is_known_to_get_wrong(tree: Tree) -> None:
    """ax650n-diagnose.sh of MasterVVK/cm3588-ax650n-pcie-tuning, run on such a host.

    It took the hardware interrupt's number for a count ("CPU9 (143130624 total), LITTLE core"), the card for its own
    root port, and the payload size that the card can have (256) for the one in force (128).
    """
    board = hosts.Board(tree)
    board.irq(38, "4", "4")
    shutil.rmtree(str(tree.path / "sys/kernel/irq"))
    cpus = "".join("%11s" % ("CPU%d" % cpu) for cpu in range(8))
    counts = "".join("%11d" % (1234 if cpu == 4 else 0) for cpu in range(8))
    tree.file("/proc/interrupts", "    %s\n 38:%s   ITS-MSI 143130624 Edge      %s\n" % (cpus, counts, hosts.BDF))
    capable = config_space(hosts.AXERA, 0x040000, [pcie(0, (2, 2), (2, 1), payload=(1, 0))], subsystem=hosts.AXERA)
    (tree.path / "sys/bus/pci/devices" / hosts.BDF / "config").write_bytes(capable)
    data = report(tree)
    [card] = data["cards"]
    [interrupt] = card["interrupts"]
    assert {cpu: count for cpu, count in interrupt["counts"].items() if count} == {"4": 1234}
    assert interrupt["hwirq"] == "143130624"
    [fast] = [one for one in data["findings"] if one["id"] == "interrupt_on_fast_core"]
    assert "143130624" not in json.dumps(fast)
    assert card["path"] == [hosts.BDF, "0003:30:00.0"], "the card, then its root port"
    assert (card["mps_bytes"], card["mps_capable_bytes"]) == (128, 256)


def test_kept_wishes_are_named(tree: Tree) -> None:
    hosts.Board(tree).wishes("irq_affinity", {})
    data = report(tree)
    assert data["kept"] == ["irq_affinity"]
    assert "not_kept" not in {finding["id"] for finding in data["findings"]}


def test_policy_that_is_offline_is_no_unread_file(tree: Tree) -> None:
    """Reading it fails with EBUSY, and that is an answer; anything else is told."""
    hosts.Board(tree)
    tree.root.unread += [("/sys/devices/system/cpu/cpufreq/policy4/affected_cpus", "EBUSY"), ("/sys/x", "EIO")]
    data = report(tree)
    [unread] = [finding for finding in data["findings"] if finding["id"] == "unread"]
    assert unread["evidence"] == {"/sys/x": "EIO"}
    assert "root" not in unread["remedy"]
    tree.root.unread.append(("/sys/y", "EACCES"))
    [unread] = [finding for finding in report(tree)["findings"] if finding["id"] == "unread"]
    assert unread["remedy"].startswith("Run as root")


def test_no_card(tree: Tree) -> None:
    hosts.Board(tree, card=False)
    data = report(tree)
    assert data["cards"] == []
    assert data["verdict"] == "Nothing to tune: no NPU card of the catalogue among 1 PCI devices"
    assert [finding["id"] for finding in data["findings"]] == ["card_missing"]


def test_empty_tree(tree: Tree) -> None:
    data = report(tree)
    assert (data["cards"], data["tiers"], data["policies"]) == ([], [], [])


def test_line_interrupt(tree: Tree) -> None:
    """A card without MSI has an interrupt, too."""
    board = hosts.Board(tree, driver=False)
    card = "/sys/devices/%s/%s" % (hosts.SLOT, hosts.BDF)
    tree.link(card + "/driver", "../../../../../../bus/pci/drivers/ax_pcie_dev_host")
    tree.files(card, {"irq": "16"})
    board.irq(16)
    assert [interrupt["irq"] for interrupt in report(tree)["cards"][0]["interrupts"]] == [16]


def test_plain() -> None:
    nested = {"changes": (Change("/x", None, "4", "why"),), 5: (1, Link(5.0, 2, None, 0))}
    assert describe.plain(nested) == {
        "changes": [{"path": "/x", "before": None, "after": "4", "why": "why"}],
        "5": [1, {"capable_gt_s": 5.0, "capable_width": 2, "negotiated_gt_s": None, "negotiated_width": 0}],
    }


def test_eight_cards(tree: Tree) -> None:
    pcie_trees.eight_cards(tree, (3, 1))
    data = report(tree)
    assert len(data["cards"]) == 8
    for card in data["cards"]:
        assert card["share_mb_s"] == {"read": 101.0, "write": pytest.approx(111.7, abs=0.1)}
        assert len(card["shared_with"]) == 7
        assert [hop["lower"] for hop in card["hops"]] == [card["bdf"], "0000:01:00.0"]
    assert [port["bdf"] for port in data["empty_slots"]] == [
        "0000:02:04.0",
        "0000:02:06.0",
        "0000:02:07.0",
        "0000:02:0c.0",
    ]


def test_port_that_needs_a_rescan(tree: Tree) -> None:
    tree.pci("pci0000:00/0000:00:1c.0", pcie_trees.bridge(4, (3, 4), (2, 1), slot=(7, True), active=True))
    data = report(tree)
    assert (data["empty_slots"], [port["bdf"] for port in data["needs_rescan"]]) == ([], ["0000:00:1c.0"])
    assert [finding["id"] for finding in data["findings"]] == ["card_missing", "port_needs_rescan"]


def test_processor_s_own_npu(tree: Tree) -> None:
    pcie_trees.strix(tree)
    [card] = report(tree)["cards"]
    assert (card["bdf"], card["internal"], card["hops"], card["link_verdict"]) == ("0000:c6:00.1", True, [], None)
    assert (card["bandwidth_mb_s"], card["share_mb_s"], card["bottleneck"]) == (None, None, None)


def test_errors_by_the_hour(tree: Tree) -> None:
    board = hosts.Board(tree)
    board.tree.file("/sys/devices/%s/%s/aer_dev_correctable" % (hosts.SLOT, hosts.BDF), "RxErr 3\nTOTAL_ERR_COR 3\n")
    board.tree.file("/proc/uptime", "7200.50 50000.00\n")
    [told] = [finding for finding in report(tree)["findings"] if finding["id"] == "link_errors"]
    assert told["summary"].endswith("since boot: 3 corrected, 1.5 an hour")


def test_unknown_identities_stay_unknown() -> None:
    nobody = hosts.card(vendor=None, device=None, subsystem_vendor=None, class_code=None, local_cpus=None, parent=None)
    data = describe.pci_device(nobody, {nobody.bdf: nobody}, BUILT_IN)
    assert {data[name] for name in ("vendor", "device", "subsystem_vendor", "class_code", "npu", "local_cpus")} == {
        None
    }
    assert data["link_verdict"] is None
    assert data["path"] == [hosts.BDF]
