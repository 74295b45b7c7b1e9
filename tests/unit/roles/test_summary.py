# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the summary of the role diagnostics says of cards and their links."""

from __future__ import annotations

import pathlib
import re
from typing import Any, List

import jinja2
import pytest
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import report
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe import pcie_trees
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

PATH = pathlib.Path(__file__).parents[3] / "roles" / "diagnostics" / "templates" / "summary.j2"


@pytest.fixture(name="tree")
def fixture_tree(tmp_path: pathlib.Path) -> Tree:
    return Tree(tmp_path)


def summary(tree: Tree, **more: Any) -> List[str]:
    """Return the summary's lines, made as Ansible makes them; MORE: what earlier roles of the play have left."""
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["zip"] = zip
    environment.filters["bool"] = boolean
    environment.globals["dict"] = dict
    environment.tests["search"] = lambda text, pattern: re.search(pattern, text) is not None
    given: Any = {
        "diagnostics_result": {"report": report(look(tree.root, BUILT_IN))},
        "diagnostics_report_name": "nas",
        "ansible_check_mode": False,
        "irq_affinity_result": None,
        "governor_result": None,
        **more,
    }
    return environment.from_string(PATH.read_text("utf-8")).render(given).splitlines()


def test_driver_is_told_before_what_runs_on_it(tree: Tree) -> None:
    hosts.Board(tree)
    built = {"path": "build: 6.1.118", "before": None, "after": "edgenpu-axcl/3.6.4", "why": "through DKMS"}
    unknown = "whether the card comes up: unknown until it has its firmware"
    lines = summary(
        tree,
        axcl_driver_result={"msg": "driver 3.6.4 is there", "changes": [built], "unknown": [unknown], "refused": []},
        axcl_driver_reboot=False,
        axcl_driver_reboot_required=True,
        axcl_driver_reboot_reason="the modules that are loaded are of another version",
    )
    assert lines[1:3] == [
        "  driver     driver 3.6.4 is there",
        "  reboot     is needed: the modules that are loaded are of another version",
    ]
    assert "             build: 6.1.118: nothing -> edgenpu-axcl/3.6.4" in lines
    assert "  unknown    " + unknown in lines


def test_boot_configuration_that_was_changed(tree: Tree) -> None:
    """As the module returns it; and the role that could reboot is not in this play any more."""
    hosts.Board(tree)
    change = {"path": "/boot/firmware/config.txt", "before": "a\n", "after": "a\nb\n", "why": "the slot is off"}
    lines = summary(
        tree,
        axcl_driver_boot={"msg": "config.txt was changed", "changed": True, "changes": [change], "refused": []},
        axcl_driver_reboot_required=True,
        axcl_driver_reboot_reason="the boot configuration was changed",
    )
    assert "             /boot/firmware/config.txt" in lines
    assert "  reboot     is needed: the boot configuration was changed" in lines


def test_driver_that_nobody_asked_for_is_not_spoken_of(tree: Tree) -> None:
    hosts.Board(tree)
    skipped = {"changed": False, "skipped": True}
    told = summary(tree, axcl_driver_result=skipped, axcl_driver_boot=skipped, axcl_driver_reboot_required=False)
    assert told == summary(tree)


def test_cm3588(tree: Tree) -> None:
    hosts.Board(tree)
    lines = summary(tree)
    assert lines[1:4] == [
        "  card       Axera AX650N at 0003:31:00.0, driver ax_pcie_dev_host",
        "  slot       fe180000.pcie, root port 0003:30:00.0",
        "  link       5.0 GT/s x1 (card: 5.0 GT/s x2): the card sets 5 GT/s, the slot sets x1",
    ]
    assert not [line for line in lines if line.startswith("  way up")]


def test_diagnosis_alone_tells_where_interrupts_and_clocks_are(tree: Tree) -> None:
    hosts.Board(tree)
    lines = summary(tree)
    assert "  interrupt  38 on CPU 0 (allowed 0-7)" in lines
    assert [line for line in lines if line.startswith("  clock")] == [
        "  clock      policy0 (CPUs 0-3): schedutil at 408 MHz",
        "  clock      policy4 (CPUs 4-5): schedutil at 408 MHz",
        "  clock      policy6 (CPUs 6-7): schedutil at 408 MHz",
    ]


def test_cards_behind_a_switch(tree: Tree) -> None:
    pcie_trees.eight_cards(tree, (3, 1))
    lines = summary(tree)
    way = "  way up     0000:03:00.0 < 0000:02:00.0 < 0000:01:00.0 < 0000:00:01.0; narrowest link above 0000:03:00.0"
    assert lines[lines.index(way) + 1] == (
        "             101 MB/s read, 112 write while all cards work (alone 410, 454); shared with 0000:04:00.0, "
        "0000:05:00.0, 0000:09:00.0, 0000:0a:00.0, 0000:0b:00.0, 0000:0d:00.0, 0000:0e:00.0"
    )


def test_processor_s_own_npu(tree: Tree) -> None:
    pcie_trees.strix(tree)
    assert "  link       none: part of the processor" in summary(tree)


def test_dead_card(tree: Tree) -> None:
    pcie_trees.dropped_card(tree)
    lines = summary(tree)
    assert "  link       could not be read" in lines
    assert [line for line in lines if "0000:03:00.0 is dead" in line and line.startswith("  left to you (critical)")]


def test_what_is_worth_doing_by_what_it_gains(tree: Tree) -> None:
    board = hosts.Board(tree)
    tree.file("/proc/device-tree/compatible", b"friendlyelec,cm3588-nas\0rockchip,rk3588\0")
    board.irqbalance()
    lines = summary(tree)
    at = lines.index("  verdict    Not as fast as it can be: 2 things to do")
    gain = "interrupt and clocks together: LLM decode 1.2 to 2 times as fast, single inferences "
    assert lines[at + 1].startswith("  to gain    " + gain)
    assert [line for line in lines[at:] if line.startswith("  left to you")] == [
        (
            "  left to you (warning) interrupt 38 of 0003:31:00.0 is served by CPU 0; the fastest are 4-7; irqbalance "
            "runs and may move the card's interrupt at its next pass; nothing on this host keeps the card's interrupt "
            "in place: a driver reload or a reboot loses it"
        ),
        (
            "  left to you (warning) policy4 (CPUs 4-5) drops its clock between the short calls to the card: governor "
            "schedutil; policy6 (CPUs 6-7) drops its clock between the short calls to the card: governor schedutil"
        ),
    ]
    assert not [line for line in lines if "to gain:" in line], "what stands above is not said again"


def test_what_gains_nothing_now_says_so(tree: Tree) -> None:
    board = hosts.Board(tree)
    board.irq(38, "4", "4")
    for first in (4, 6):
        tree.files("/sys/devices/system/cpu/cpufreq/policy%d" % first, {"scaling_governor": "performance"})
    lines = summary(tree)
    at = lines.index("  verdict    As fast as it can be, but 1 thing to do")
    assert lines[at + 1] == "  to gain    none from interrupts and clocks: they are in order, or as wished"
    assert lines[at + 4] == "             to gain: none now; without it what has been gained is lost again"
