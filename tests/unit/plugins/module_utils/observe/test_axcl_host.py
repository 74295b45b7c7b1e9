# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
from typing import List, NamedTuple, Optional, Sequence

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import Driver, Module, Node, parse_table
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl_host import (
    AXCL_SMI,
    is_loading,
    parse_lockdown,
    read_allowed,
    read_answer,
    read_axcl_host,
    read_events,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import NO_RECORD, FileThere
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.packages import Package
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree, captured

BDF = "0003:31:00.0"
READY = Driver((Module("axcl_host", "Live"),), (Node("/dev/axcl_host", "0660", None, None),))


class Ran(NamedTuple):
    status: int
    output: str


@pytest.fixture(name="tree")
def fixture_tree(tmp_path: pathlib.Path) -> Tree:
    return Tree(tmp_path)


def test_nothing_there(tree: Tree) -> None:
    seen = read_axcl_host(tree.root, (), [BDF])
    assert seen == (Driver((), ()), None, (), NO_RECORD, None, (), (), (), (), None, (), None, None, (), None, ())


def test_all_there(tree: Tree) -> None:
    tree.file("/proc/modules", "axcl_host 1 2 - Live 0x0\n")
    tree.file("/var/lib/dpkg/status", "Package: axclhost\nStatus: hold ok installed\nVersion: 1\nArchitecture: all\n")
    tree.file("/etc/apt/apt.conf.d/10sandbox", "x\n")
    tree.file("/etc/udev/rules.d/axcl_host.rules", "y\n")
    tree.file("/lib/udev/rules.d/axcl_host.rules", "hidden\n")
    tree.file("/lib/udev/rules.d/60-net.rules", "of others\n")
    tree.files("/sys/power", {"state": "freeze mem disk"})
    tree.files("/sys/power/suspend_stats", {"success": "3"})
    tree.link("/etc/systemd/system/sleep.target", "/dev/null")
    tree.link("/run/systemd/system/suspend.target", "../../../dev/null")
    tree.link("/etc/systemd/system/hibernate.target", "/lib/systemd/system/hibernate.target")
    tree.link("/sys/bus/pci/devices/%s/iommu_group" % BDF, "../../../../kernel/iommu_groups/7")
    tree.files("/sys/kernel/iommu_groups/7", {"type": "DMA-FQ"})
    tree.files("/sys/kernel/security", {"lockdown": "none [integrity] confidentiality"})
    tree.files("/sys/module/module/parameters", {"sig_enforce": "Y"})
    seen = read_axcl_host(tree.root, (), [BDF, "0004:41:00.0"])
    assert seen.open_count == 2
    assert seen.packages == (Package("axclhost", "1", "all", "hold", "ok", "installed"),)
    assert seen.sandbox == "x"
    assert seen.rules == (FileThere("axcl_host.rules", "/etc/udev/rules.d/axcl_host.rules", "y"),)
    assert (seen.sleep_states, seen.slept) == (("freeze", "mem", "disk"), 3)
    assert seen.masked == ("sleep", "suspend")
    assert seen.iommu == ((BDF, "DMA-FQ"),)
    assert (seen.lockdown, seen.signatures_enforced) == ("integrity", True)


@pytest.mark.parametrize(
    ("text", "mode"),
    [("[none] integrity confidentiality", "none"), ("none [x]", "x"), ("none", None), ("[a] [b]", None), (None, None)],
)
def test_lockdown(text: Optional[str], mode: Optional[str]) -> None:
    assert parse_lockdown(text) == mode


def test_asked_for_a_time_that_fits_the_cards(tree: Tree) -> None:
    tree.file("/usr/bin/axcl/axcl-smi")
    limits: List[str] = []

    def run(argv: Sequence[str], timeout_s: float) -> Ran:
        limits.append(argv[6])
        assert timeout_s > float(argv[6])
        return Ran(0, captured("axcl/smi-table-v3.4.0-idle.txt"))

    for cards in (1, 4, 32):
        table = read_answer(tree.root, run, READY, cards)
        assert table is not None and len(table.cards) == 1
    assert limits == ["20", "35", "60"]
    assert tree.root.printed[AXCL_SMI].startswith("+---")


def test_log(tree: Tree) -> None:
    assert read_events(tree.root, lambda argv, timeout_s: Ran(1, "[1.0] device 31: dead!")) == ()
    assert read_events(tree.root, None) == () and tree.root.printed == {}
    [event] = read_events(tree.root, lambda argv, timeout_s: Ran(0, "[1.0] device 31: dead!"))
    assert event.id == "card_dead" and read_events(tree.root, None) == (event,)


def test_where_programs_may_run(tree: Tree) -> None:
    """One that has ended meanwhile, or does not tell, is left out."""
    table = parse_table(captured("axcl/smi-table-v2.18.0-one-process.txt"))
    assert read_allowed(tree.root, table) == ()
    tree.file("/proc/763/status", "Name:\tx\nCpus_allowed:\tf0\nCpus_allowed_list:\t4-6\nvoluntary_ctxt_switches:\t1\n")
    assert read_allowed(tree.root, table) == ((763, (4, 5, 6)),)
    tree.file("/proc/763/status", "Name:\tx\n")
    assert read_allowed(tree.root, table) == ()
    assert read_allowed(tree.root, None) == ()


def test_loading() -> None:
    assert not is_loading(READY) and not is_loading(Driver((), ()))
    assert is_loading(Driver((Module("axcl_host", "Loading"),), ()))
