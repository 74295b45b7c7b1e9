# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.identity import (
    Identity,
    parse_people,
    read_identity,
)
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree


def test_everything(tree: Tree) -> None:
    tree.files("/proc/sys/kernel", {"hostname": "nas.lan", "domainname": "example.org"})
    tree.file("/etc/hostname", "nas\n")
    tree.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nbob:x:1000:100::/home/bob:/bin/sh\n")
    tree.file("/proc/device-tree/serial-number", b"a1b2c3d4e5f60718\0")
    tree.file("/proc/cpuinfo", "processor: 0\nSerial\t\t: 00000000deadbeef\n")
    tree.files("/sys/class/dmi/id", {"product_serial": "To be filled by O.E.M.", "board_serial": "BSN 12345"})
    tree.files("/sys/class/net/eth0", {"address": "d8:3a:dd:12:ab:ef"})
    tree.files("/sys/class/net/lo", {"address": "00:00:00:00:00:00"})
    tree.files("/sys/block/mmcblk0/device", {"serial": "0x1234abcd", "cid": "0000000000"})
    serials = ("00000000deadbeef", "0x1234abcd", "BSN 12345", "a1b2c3d4e5f60718", "d8:3a:dd:12:ab:ef")
    names = ("nas.lan", "nas", "example.org", "example")
    assert read_identity(tree.root) == Identity(names, serials, ("bob",))


def test_nothing(tree: Tree) -> None:
    tree.files("/proc/sys/kernel", {"hostname": "localhost", "domainname": "(none)"})
    assert read_identity(tree.root) == Identity((), (), ())


def test_people() -> None:
    text = "daemon:x:1:1::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\nbroken\na:b:c\nbob:x:1001:1:B:/:/bin/sh\n"
    assert parse_people(text) == ("bob",)
