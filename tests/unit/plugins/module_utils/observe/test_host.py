# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import platform
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import host
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import read_host
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

MOUNTS = """/dev/vda / ext4 rw,relatime 0 0
proc /proc proc rw,nosuid 0 0
sysfs /sys sysfs rw,nosuid 0 0
cgroup2 /sys/fs/cgroup cgroup2 ro,nosuid 0 0
"""


class TestHost:
    def test_cm3588(self, tree: Tree) -> None:
        tree.file("/proc/device-tree/model", "FriendlyElec CM3588 NAS\0")
        tree.file("/proc/device-tree/compatible", "friendlyarm,cm3588-nas\0friendlyarm,cm3588\0rockchip,rk3588\0")
        tree.files("/proc/sys/kernel", {"osrelease": "6.1.118", "arch": "aarch64", "random/boot_id": "11-22"})
        tree.file("/proc/self/mounts", MOUNTS)
        tree.file("/proc/self/auxv", struct.pack("<QQQQQQ", 33, 1, 6, 16384, 0, 0))
        tree.file("/etc/os-release", 'NAME=x\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
        tree.file("/run/systemd/system/x", "")
        assert read_host(tree.root) == host.Host(
            "FriendlyElec CM3588 NAS",
            ("friendlyarm,cm3588-nas", "friendlyarm,cm3588", "rockchip,rk3588"),
            "6.1.118",
            "aarch64",
            16384,
            "11-22",
            None,
            True,
            True,
            True,
            "Debian GNU/Linux 12 (bookworm)",
        )

    def test_empty_tree(self, tree: Tree) -> None:
        assert read_host(tree.root) == host.Host(None, (), None, None, None, None, None, False, None, None, None)

    def test_pc(self, tree: Tree) -> None:
        tree.files(
            "/sys/class/dmi/id",
            {
                "sys_vendor": "To Be Filled By O.E.M.",
                "product_name": "System Product Name",
                "board_vendor": "ASRock",
                "board_name": "X670E Pro",
            },
        )
        found = read_host(tree.root)
        assert (found.model, found.compatible, found.virtualisation) == ("ASRock X670E Pro", (), None)

    def test_vendor_is_not_said_twice(self, tree: Tree) -> None:
        tree.files("/sys/class/dmi/id", {"sys_vendor": "HP", "product_name": "HP Z2 Mini G1a"})
        assert read_host(tree.root).model == "HP Z2 Mini G1a"

    def test_device_tree_in_sysfs(self, tree: Tree) -> None:
        tree.file("/sys/firmware/devicetree/base/model", "Board\0")
        assert read_host(tree.root).model == "Board"

    def test_system_release_in_usr(self, tree: Tree) -> None:
        tree.file("/usr/lib/os-release", "PRETTY_NAME=Plain\n")
        assert read_host(tree.root).os == "Plain"

    def test_live_system(self) -> None:
        found = read_host(Root())
        assert found.kernel == platform.release()
        assert found.architecture == platform.machine()
        assert found.page_size == os.sysconf("SC_PAGE_SIZE")


class TestVirtualisation:
    @pytest.mark.parametrize(
        ("path", "content", "expected"),
        [
            ("/run/systemd/container", "systemd-nspawn\n", "container: systemd-nspawn"),
            ("/proc/1/environ", "HOME=/\0container=lxc\0", "container: lxc"),
            ("/run/.containerenv", "", "container: podman"),
            ("/.dockerenv", "", "container: docker"),
            ("/sys/hypervisor/type", "xen\n", "xen"),
            ("/sys/class/dmi/id/sys_vendor", "QEMU\n", "qemu"),
            ("/sys/class/dmi/id/product_name", "KVM Virtual Machine\n", "kvm"),
            ("/sys/class/dmi/id/product_name", "VMware7,1\n", "vmware"),
            ("/sys/class/dmi/id/sys_vendor", "Lenovo\n", None),
            ("/proc/device-tree/hypervisor/compatible", "linux,kvm\0", "kvm"),
            ("/proc/device-tree/hypervisor/compatible", "xen,xen-4.17\0xen,xen\0", "xen"),
            ("/proc/device-tree/fw-cfg@9020000/compatible", "qemu,fw-cfg-mmio\0", "qemu"),
            ("/proc/device-tree/virtio_mmio@a000000/compatible", "virtio,mmio\0", "unknown hypervisor"),
            ("/sys/firmware/devicetree/base/compatible", "linux,dummy-virt\0", "qemu"),
            ("/proc/device-tree/compatible", "rockchip,rk3588\0", None),
            ("/proc/cpuinfo", "processor : 0\nflags\t\t: fpu hypervisor sse\n", "unknown hypervisor"),
            ("/proc/cpuinfo", "processor : 0\nflags\t\t: fpu sse\n", None),
        ],
    )
    def test_signs(self, tree: Tree, path: str, content: str, expected: str | None) -> None:
        tree.file(path, content)
        assert read_host(tree.root).virtualisation == expected

    def test_container_in_a_virtual_machine(self, tree: Tree) -> None:
        tree.file("/sys/class/dmi/id/sys_vendor", "QEMU\n")
        tree.file("/.dockerenv")
        assert read_host(tree.root).virtualisation == "container: docker"


class TestMounts:
    @pytest.mark.parametrize(
        ("mounts", "sysfs", "proc_irq"),
        [
            (MOUNTS, True, True),
            (MOUNTS + "proc /proc/irq proc ro,nosuid 0 0\n", True, False),  # as docker does
            (MOUNTS + "sysfs /sys sysfs ro,nosuid 0 0\n", False, True),  # the last one on a place counts
            (MOUNTS + "proc /proc/irq/x proc ro 0 0\n", True, True),
            (MOUNTS + "proc /proc/irqx proc ro 0 0\nproc /proc/ir proc ro 0 0\n", True, True),
            ("/dev/vda / ext4 rw 0 0\n", None, None),
            ("sysfs /sys sysfs nosuid 0 0\nrubbish\n", None, None),
            ("", None, None),
        ],
    )
    def test_writable(self, tree: Tree, mounts: str, sysfs: bool | None, proc_irq: bool | None) -> None:
        tree.file("/proc/mounts", mounts)
        found = read_host(tree.root)
        assert (found.sysfs_writable, found.proc_irq_writable) == (sysfs, proc_irq)

    def test_own_view_before_the_general_one(self, tree: Tree) -> None:
        tree.file("/proc/mounts", MOUNTS)
        tree.file("/proc/self/mounts", MOUNTS.replace("sysfs rw", "sysfs ro"))
        assert read_host(tree.root).sysfs_writable is False

    def test_escapes(self) -> None:
        assert host.parse_mounts("a /mnt/a\\040b ext4 rw,x 0 0\n") == [host.Mount("a", "/mnt/a b", "ext4", ("rw", "x"))]


class TestSmallParsers:
    def test_auxv_of_a_32_bit_process(self) -> None:
        assert host.parse_auxv_page_size(struct.pack("<IIIIII", 16, 5, 6, 4096, 0, 0)) == 4096

    @pytest.mark.parametrize("value", [0, 4095, 4097, 1 << 21])
    def test_auxv_with_an_impossible_size(self, value: int) -> None:
        assert host.parse_auxv_page_size(struct.pack("<QQ", 6, value)) is None

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("PRETTY_NAME='A B'", "A B"),
            ('PRETTY_NAME="A', "A"),
            ("PRETTY_NAME=", None),
            ("NAME=x", None),
        ],
    )
    def test_os_release(self, text: str, name: str | None) -> None:
        assert host.parse_os_release(text) == name

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        size = host.parse_auxv_page_size(data)
        assert size is None or (4096 <= size <= 1 << 20 and size & (size - 1) == 0)
        text = data.decode("utf-8", "replace")
        assert all(mount.options for mount in host.parse_mounts(text))
        host.parse_os_release("PRETTY_NAME=" + text)
