# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine: board, kernel, what surrounds it, and whether its settings can be written at all."""

from __future__ import annotations

import shlex
import struct
from typing import List, NamedTuple, Optional

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.board import (
    DEVICE_TREES,
    Board,
    read_board,
    read_compatible,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

DMI = "/sys/class/dmi/id/"
AT_PAGESZ = 6
# What boards print that nobody filled in
PLACEHOLDERS = (
    "",
    "to be filled by o.e.m.",
    "default string",
    "system product name",
    "system manufacturer",
    "not specified",
    "not applicable",
    "none",
    "unknown",
    "o.e.m.",
    "n/a",
)
# DMI system vendor or product (beginning, lower case) of virtual machines
_DMI_MACHINES = (
    ("qemu", "qemu"),
    ("kvm", "kvm"),
    ("vmware", "vmware"),
    ("innotek gmbh", "virtualbox"),
    ("virtualbox", "virtualbox"),
    ("xen", "xen"),
    ("bochs", "bochs"),
    ("parallels", "parallels"),
    ("google compute engine", "kvm"),
    ("amazon ec2", "kvm"),
    ("openstack", "kvm"),
    ("bhyve", "bhyve"),
    ("virtual machine", "hyper-v"),
    ("standard pc (", "qemu"),
    ("apple virtualization", "apple"),
)


class Host(NamedTuple):
    """One machine, without its name."""

    model: str | None  # device tree model, or DMI vendor and product
    compatible: tuple[str, ...]  # device tree, most specific first
    kernel: str | None  # release
    architecture: str | None  # as uname -m says
    page_size: int | None  # bytes
    boot_id: str | None
    virtualisation: str | None  # "container: docker", "qemu", "kvm", ...; None: none seen
    systemd: bool  # it runs this machine
    sysfs_writable: bool | None  # by mount options; None not known
    proc_irq_writable: bool | None
    os: str | None  # PRETTY_NAME
    boot_options: tuple[tuple[str, str], ...] = ()  # (file, line) of a Raspberry Pi's config.txt that touch PCIe

    @property
    def board(self) -> Board:
        """What decides how its interrupts are routed."""
        return Board(self.architecture, self.kernel, self.compatible, self.boot_options)


class Mount(NamedTuple):
    """One line of /proc/mounts."""

    source: str
    target: str
    kind: str
    options: tuple[str, ...]


def parse_mounts(text: str) -> List[Mount]:
    """Return the mounts in order; lines that are none are left out."""
    mounts = []
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) >= 4:
            target = fields[1]
            for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                target = target.replace(code, character)
            mounts.append(Mount(fields[0], target, fields[2], tuple(fields[3].split(","))))
    return mounts


def writable(mounts: List[Mount], path: str) -> Optional[bool]:
    """Return whether the mount that PATH is on was mounted to be written to; None if the list does not tell.

    The deepest mount point counts, and of several on one point the last. The root file system's own mount says nothing
    of /sys or /proc: without a mount of their own these are empty directories.
    """
    best: Optional[Mount] = None
    for mount in mounts:
        target = mount.target.rstrip("/")
        if not target or not (path == target or path.startswith(target + "/")):
            continue
        if best is None or len(target) >= len(best.target.rstrip("/")):
            best = mount
    if best is None or not ("rw" in best.options or "ro" in best.options):
        return None
    return "rw" in best.options


def parse_os_release(text: str) -> Optional[str]:
    """Return PRETTY_NAME from an os-release file."""
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if name == "PRETTY_NAME" and equals:
            try:
                return " ".join(shlex.split(value)) or None
            except ValueError:
                return value.strip("\"' ") or None
    return None


def parse_auxv_page_size(data: bytes) -> Optional[int]:
    """Return AT_PAGESZ from a little-endian process's /proc/PID/auxv, pairs of 64-bit or else 32-bit words."""
    for layout, size in (("<QQ", 16), ("<II", 8)):
        for key, value in struct.iter_unpack(layout, data[: len(data) - len(data) % size]):
            if key == AT_PAGESZ and 4096 <= value <= 1 << 20 and not value & value - 1:
                return int(value)
    return None


def _dmi(root: Root, name: str) -> Optional[str]:
    text = root.text(DMI + name)
    return None if text is None or text.lower() in PLACEHOLDERS else text


def _model(root: Root) -> Optional[str]:
    for tree in DEVICE_TREES:
        text = root.text(tree + "/model")
        if text:
            return text
    for vendor, product in (("sys_vendor", "product_name"), ("board_vendor", "board_name")):
        name = _dmi(root, product)
        if name:
            maker = _dmi(root, vendor)
            return name if maker is None or name.startswith(maker) else "%s %s" % (maker, name)
    return None


def _container(root: Root) -> Optional[str]:
    told = root.text("/run/systemd/container")  # systemd inside tells everyone
    if told:
        return told
    for word in (root.data("/proc/1/environ") or b"").split(b"\0"):  # root only
        if word.startswith(b"container=") and len(word) > 10:
            return word[10:].decode("utf-8", "replace")
    if root.exists("/run/.containerenv"):
        return "podman"
    if root.exists("/.dockerenv"):
        return "docker"
    return None


def _machine(root: Root) -> Optional[str]:
    kind = root.text("/sys/hypervisor/type")
    if kind:
        return kind
    for name in ("product_name", "sys_vendor", "board_vendor", "bios_vendor"):
        text = (root.text(DMI + name) or "").lower()
        for beginning, machine in _DMI_MACHINES:
            if text.startswith(beginning):
                return machine
    for tree in DEVICE_TREES:
        told = root.text(tree + "/hypervisor/compatible")
        if told:
            return told.split("\0")[0].rpartition(",")[2].partition("-")[0]  # "linux,kvm", "xen,xen-4.11"
        names = root.names(tree)
        if any(name.startswith("fw-cfg@") for name in names):
            return "qemu"  # its firmware configuration device is on no board
        if any(name.startswith("virtio_mmio@") for name in names):
            return "unknown hypervisor"  # QEMU, crosvm and others; no board has these
        if names:
            break
    if "linux,dummy-virt" in read_compatible(root):
        return "qemu"
    # the first CPU's block is enough, and reading on costs with many CPUs
    for line in (root.data("/proc/cpuinfo", 4096) or b"").split(b"\n"):
        if line.startswith(b"flags") and b"hypervisor" in line.split():
            return "unknown hypervisor"
    return None


def read_uptime(root: Root) -> Optional[float]:
    """Return the seconds since boot."""
    try:
        return float((root.text("/proc/uptime") or "").split()[0])
    except (IndexError, ValueError):
        return None


def read_host(root: Root) -> Host:
    """Return what is known of the machine; its host name is not read."""
    container = _container(root)
    board = read_board(root)
    text = root.text("/proc/self/mounts")
    mounts = parse_mounts((root.text("/proc/mounts") if text is None else text) or "")
    release = root.text("/etc/os-release")
    if release is None:
        release = root.text("/usr/lib/os-release")
    return Host(
        model=_model(root),
        compatible=board.compatible,
        kernel=board.kernel,
        architecture=board.architecture,
        page_size=parse_auxv_page_size(root.data("/proc/self/auxv") or b""),
        boot_id=root.text("/proc/sys/kernel/random/boot_id") or None,
        virtualisation="container: " + container if container else _machine(root),
        systemd=root.exists("/run/systemd/system"),
        sysfs_writable=writable(mounts, "/sys"),
        proc_irq_writable=writable(mounts, "/proc/irq"),
        os=parse_os_release(release or ""),
        boot_options=board.boot_options,
    )
