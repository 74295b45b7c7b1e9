# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What decides how a board routes its interrupts: architecture, kernel, and what its firmware was told."""

from __future__ import annotations

import os
import re
from typing import NamedTuple, Optional, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

DEVICE_TREES = ("/proc/device-tree", "/sys/firmware/devicetree/base")
BOOT_CONFIGS = ("/boot/firmware/config.txt", "/boot/config.txt")  # the second one points to the first since 2023
_PCIE_OPTION = re.compile(r"\s*(?:dtparam|dtoverlay)\s*=.*pcie", re.IGNORECASE)


class Board(NamedTuple):
    """What is known of a board before any of its devices is looked at."""

    architecture: str | None  # as uname -m says
    kernel: str | None  # release
    compatible: tuple[str, ...]  # device tree, most specific first
    boot_options: tuple[tuple[str, str], ...] = ()  # (file, line) of a Raspberry Pi's config.txt that touch PCIe


UNKNOWN = Board(None, None, ())


def read_architecture(root: Root) -> Optional[str]:
    """Return what uname -m says there; None if a captured tree does not tell."""
    told = root.text("/proc/sys/kernel/arch")  # since 6.1
    if told:
        return told
    return os.uname().machine if root.is_live else None


def read_compatible(root: Root) -> Tuple[str, ...]:
    """Return the board's names in the device tree, most specific first; () without one."""
    for tree in DEVICE_TREES:
        raw = root.data(tree + "/compatible")
        if raw:
            return tuple(part for part in raw.decode("utf-8", "replace").split("\0") if part)
    return ()


def parse_boot_options(text: str) -> Tuple[str, ...]:
    """Return the lines of a config.txt that touch PCIe; those that are commented out do not."""
    return tuple(line.strip() for line in text.splitlines() if _PCIE_OPTION.match(line))


def read_board(root: Root) -> Board:
    """Return the board."""
    compatible = read_compatible(root)
    options: Tuple[Tuple[str, str], ...] = ()
    if any(name.startswith("raspberrypi,") for name in compatible):
        path = next((path for path in BOOT_CONFIGS if root.exists(path)), BOOT_CONFIGS[0])
        options = tuple((path, line) for line in parse_boot_options(root.text(path) or ""))
    kernel = root.text("/proc/sys/kernel/osrelease") or None
    return Board(read_architecture(root), kernel, compatible, options)
