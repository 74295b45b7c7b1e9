# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import platform

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.board import (
    UNKNOWN,
    parse_boot_options,
    read_board,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import read_host
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

CONFIG = """\
# dtparam=pciex1
dtparam=audio=on
[all]
  dtparam=pciex1
dtparam=pciex1_gen=3
dtoverlay=pciex1-compat-pi5,no-mip
#dtoverlay=pciex1-compat-pi5
arm_boost=1
"""
LINES = ("dtparam=pciex1", "dtparam=pciex1_gen=3", "dtoverlay=pciex1-compat-pi5,no-mip")
NAMES = b"raspberrypi,5-model-b\0brcm,bcm2712\0"


def test_lines_about_pcie() -> None:
    assert parse_boot_options(CONFIG) == LINES


def test_raspberry_pi(tree: Tree) -> None:
    tree.file("/proc/device-tree/compatible", NAMES)
    tree.file("/boot/firmware/config.txt", CONFIG)
    tree.file("/boot/config.txt", "dtparam=pciex1_gen=2\n")
    tree.files("/proc/sys/kernel", {"arch": "aarch64", "osrelease": "6.6.51+rpt-rpi-2712"})
    board = read_board(tree.root)
    assert (board.architecture, board.kernel) == ("aarch64", "6.6.51+rpt-rpi-2712")
    assert board.compatible == ("raspberrypi,5-model-b", "brcm,bcm2712")
    assert board.boot_options == tuple(("/boot/firmware/config.txt", line) for line in LINES)
    assert read_host(tree.root).board == board


def test_older_raspberry_pi_os(tree: Tree) -> None:
    tree.file("/proc/device-tree/compatible", NAMES)
    tree.file("/boot/config.txt", "dtparam=pciex1_gen=2\n")
    assert read_board(tree.root).boot_options == (("/boot/config.txt", "dtparam=pciex1_gen=2"),)


def test_another_board(tree: Tree) -> None:
    """Its file of that name is not read: it may be anything."""
    tree.file("/proc/device-tree/compatible", b"friendlyelec,cm3588-nas\0rockchip,rk3588\0")
    tree.file("/boot/config.txt", CONFIG)
    assert read_board(tree.root).boot_options == ()


def test_nothing_known(tree: Tree) -> None:
    assert read_board(tree.root) == UNKNOWN


def test_this_machine() -> None:
    assert read_board(Root("/")).architecture == platform.machine()
