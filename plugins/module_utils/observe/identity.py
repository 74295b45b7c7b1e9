# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tells one host from another: names, serial numbers, addresses. Read only so that it can be removed elsewhere."""

from __future__ import annotations

import re
from typing import Iterator, List, NamedTuple, Optional, Set, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.board import DEVICE_TREES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import DMI, PLACEHOLDERS

_SERIAL_FILES = (
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    *(DMI + name for name in ("product_serial", "product_uuid", "board_serial", "chassis_serial")),
    *(DMI + name for name in ("board_asset_tag", "chassis_asset_tag")),
    *(tree + "/serial-number" for tree in DEVICE_TREES),
    "/sys/devices/soc0/serial_number",
)
# (directory, what to read below each of its entries)
_SERIAL_DIRECTORIES = (
    ("/sys/class/nvme", ("serial", "subsysnqn")),
    ("/sys/block", ("wwid", "device/serial", "device/wwid", "device/cid")),
    ("/sys/bus/usb/devices", ("serial",)),
    ("/sys/class/net", ("address",)),
)
_CPU_SERIAL = re.compile(r"^Serial\s*:\s*(\S+)", re.MULTILINE)


class Identity(NamedTuple):
    """Host names (whole and first label), serial numbers and MAC addresses, and names of people who log in."""

    hosts: tuple[str, ...]
    serials: tuple[str, ...]
    users: tuple[str, ...]


def _names(text: Optional[str]) -> List[str]:
    words = (text or "").split()
    if not words or words[0] in ("localhost", "(none)"):
        return []
    return [words[0], words[0].partition(".")[0]]


def _serials(root: Root) -> Iterator[Optional[str]]:
    for path in _SERIAL_FILES:
        yield root.text(path)
    for directory, files in _SERIAL_DIRECTORIES:
        for name in root.names(directory):
            for inner in files:
                yield root.text("%s/%s/%s" % (directory, name, inner))
    match = _CPU_SERIAL.search(root.text("/proc/cpuinfo") or "")
    yield match.group(1) if match else None


def parse_people(text: str) -> Tuple[str, ...]:
    """Return the names of those who log in, from /etc/passwd."""
    found = []
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 7 and fields[2].isdecimal() and 1000 <= int(fields[2]) < 60000:
            found.append(fields[0])
    return tuple(found)


def read_identity(root: Root) -> Identity:
    """Return what identifies the host, as far as this user may read it."""
    hosts = [name for path in ("/proc/sys/kernel/hostname", "/etc/hostname") for name in _names(root.text(path))]
    domain = root.text("/proc/sys/kernel/domainname")
    serials: Set[str] = set()
    for text in _serials(root):
        value = (text or "").strip("\0 \t\n")
        # "0", "123456789" and what else nobody filled in tells nothing; a short word may be any word
        filled_in = value.lower() not in PLACEHOLDERS and value.strip("0:-.")
        if len(value) >= 6 and filled_in and any(letter.isdigit() for letter in value):
            serials.add(value)
    return Identity(
        tuple(dict.fromkeys([*hosts, *_names(domain)])),
        tuple(sorted(serials)),
        parse_people(root.text("/etc/passwd") or ""),
    )
