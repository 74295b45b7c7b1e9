# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Raspberry Pis as trees of files: device tree, boot partition, one card behind the slot."""

from __future__ import annotations

import struct
from typing import Optional

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

CONFIG = "/boot/firmware/config.txt"
PORT = "/axi/pcie@1000110000"
PI5 = b"raspberrypi,5-model-b\0brcm,bcm2712\0"
CM5 = b"raspberrypi,5-compute-module\0brcm,bcm2712\0"
PI4 = b"raspberrypi,4-model-b\0brcm,bcm2711\0"
NEW, OLD = 1746713597, 1695905823  # of boot loaders: 2025-05-08, 2023-09-28

# What an image of Raspberry Pi OS brings, in its structure
RASPBERRY_PI_OS = b"""\
# Options and overlays are explained in the documentation.

# Uncomment these to enable the optional interfaces
#dtparam=i2c_arm=on
#dtparam=spi=on
dtparam=audio=on
camera_auto_detect=1
display_auto_detect=1
auto_initramfs=1
dtoverlay=vc4-kms-v3d
max_framebuffers=2
disable_overscan=1
arm_boost=1

[cm4]
# host mode on the built-in controller
otg_mode=1

[cm5]
dtoverlay=dwc2,dr_mode=host

[all]
"""
# Ubuntu's names its kernel and ends below a filter
UBUNTU = b"""\
[all]
kernel=vmlinuz
cmdline=cmdline.txt
initramfs initrd.img followkernel

[pi4]
max_framebuffers=2
arm_boost=1

[all]
dtparam=audio=on
dtparam=i2c_arm=on
dtoverlay=vc4-kms-v3d
disable_overscan=1
arm_64bit=1

[cm4]
dtoverlay=dwc2,dr_mode=host
"""


def cell(number: int) -> bytes:
    """Return a device tree's 32-bit cell."""
    return struct.pack(">I", number)


class Pi:
    """A Raspberry Pi below a directory; `kernel` is what writes there."""

    def __init__(self, tree: Tree, compatible: bytes = PI5, model: str = "Raspberry Pi 5 Model B Rev 1.0") -> None:
        self.tree = tree
        self.root = tree.root
        self.kernel = Sink(tree.root)
        self._base = "/proc/device-tree"
        tree.file(self._base + "/compatible", compatible)
        tree.file(self._base + "/model", model.encode() + b"\0")
        tree.file(self._base + "/system/linux,revision", cell(0xC04170))
        tree.file(self._base + "/chosen/bootloader/build-timestamp", cell(NEW))
        tree.file(self._base + "/chosen/power/max_current", cell(5000))
        if b"bcm2712" in compatible:
            tree.file(self._base + "/__symbols__/pciex1", PORT.encode() + b"\0")
            self.boots()
        tree.file("/proc/self/mounts", "/dev/mmcblk0p2 / ext4 rw 0 0\n/dev/mmcblk0p1 /boot/firmware vfat rw 0 0\n")
        tree.file("/proc/sys/kernel/arch", "aarch64\n")
        tree.file("/boot/firmware/kernel8.img", "a kernel")
        for overlay in ("pciex1-compat-pi5", "pcie-32bit-dma-pi5"):
            tree.file("/boot/firmware/overlays/%s.dtbo" % overlay, "an overlay")
        self.pages(16384)
        self.write(RASPBERRY_PI_OS)

    def boots(self, pcie: bool = False, generation: int = 2, no_mip: bool = False, dma_32bit: bool = False) -> None:
        """Give the device tree what a boot with these settings would."""
        base = self._base + PORT
        self.tree.file(base + "/status", b"okay\0" if pcie else b"disabled\0")
        self.tree.file(base + "/max-link-speed", cell(generation))
        self.tree.file(base + "/phandle", cell(0x6E))
        self.tree.file(base + "/msi-parent", cell(0x6E if no_mip else 0x2F))
        seen = (0x0, 0x0) if dma_32bit else (0x10, 0x0)
        self.tree.file(base + "/dma-ranges", b"".join(map(cell, (0x02000000, *seen, 0, 0, 0x10, 0))))

    def pages(self, size: int) -> None:
        """Run a kernel with pages of this many bytes."""
        self.tree.file("/proc/self/auxv", struct.pack("<QQQQ", 6, size, 0, 0))

    def card(self, driver: Optional[str] = "ax_pcie_dev_host", msi: bool = True, device: str = "1f4b:0650") -> None:
        """Put a card into the slot."""
        vendor, _colon, number = device.partition(":")
        path = self.tree.pci(
            "platform/axi/1000110000.pcie/pci0001:00/0001:00:00.0/0001:01:00.0",
            contents={"vendor": "0x" + vendor, "device": "0x" + number, "class": "0x040000"},
        )
        for name in ("subsystem_vendor", "subsystem_device"):
            self.tree.file(path + "/" + name, "0x%s\n" % (vendor if name.endswith("vendor") else number))
        if driver is not None:
            self.tree.link(path + "/driver", "../../../../../../bus/pci/drivers/" + driver)
        if msi:
            self.tree.file(path + "/msi_irqs/38", "msi\n")

    def write(self, content: bytes) -> None:
        """Make config.txt this."""
        self.tree.file(CONFIG, content)

    @property
    def content(self) -> Optional[bytes]:
        """What stands in config.txt; None if it is not there."""
        path = self.tree.path / CONFIG.lstrip("/")
        return path.read_bytes() if path.is_file() else None
