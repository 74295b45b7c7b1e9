# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole hosts to decide about and to act upon: values put together by hand, and trees with a kernel that answers."""

from __future__ import annotations

import json
import os
import struct
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import pytest
from hypothesis import settings

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import FileState, Parser, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list, parse_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import Cpu
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import Interrupt
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import Link, PciDevice
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree, config_space, pcie

STEADY = settings(max_examples=150, deadline=None, database=None, derandomize=True)

AXERA = (0x1F4B, 0x0650)
BDF = "0003:31:00.0"
SLOT = "platform/fe180000.pcie/pci0003:30/0003:30:00.0"
RELEASE = "6.1.57"
BOOT = "11111111-2222-3333-4444-555555555555"
FRONT_DOOR = "print('the front door')\n"
IRQBALANCE_UNIT = (
    "[Service]\nEnvironmentFile=-/etc/default/irqbalance\nExecStart=/usr/sbin/irqbalance $IRQBALANCE_ARGS\n"
)
OUR_POLICY = "/usr/lib/edgenpu-tuning/irqbalance.d"


def let_root_own_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files be given to root without effect, so that tests can be run by somebody else."""
    fchown, chown = os.fchown, os.chown

    def lenient_fchown(handle: int, uid: int, gid: int) -> None:
        if uid != 0:
            fchown(handle, uid, gid)

    def lenient_chown(path: Any, uid: int, gid: int, **more: Any) -> None:
        if uid != 0:
            chown(path, uid, gid, **more)

    monkeypatch.setattr(os, "fchown", lenient_fchown)
    monkeypatch.setattr(os, "chown", lenient_chown)


def cpu(number: int, capacity: Optional[int] = None, online: bool = True, **more: Any) -> Cpu:
    """Return a CPU of which nothing else is known."""
    plain = Cpu(number, online, capacity, None, None, None, None, None, (), False, False)
    return plain._replace(**more)


def cpus(capacities: Sequence[Optional[int]], offline: Sequence[int] = ()) -> Tuple[Cpu, ...]:
    """Return CPUs 0, 1, 2, ... of these capacities."""
    return tuple(cpu(number, capacity, number not in offline) for number, capacity in enumerate(capacities))


def rk3588(offline: Sequence[int] = ()) -> Tuple[Cpu, ...]:
    """Return four slow and four fast CPUs."""
    return cpus([414] * 4 + [1024] * 4, offline)


def card(bdf: str = BDF, irqs: Sequence[int] = (38,), **more: Any) -> PciDevice:
    """Return an AX650N in a slot that gives it one of its two lanes, bound, with these MSIs."""
    plain = PciDevice(
        bdf=bdf,
        vendor=AXERA[0],
        device=AXERA[1],
        subsystem_vendor=AXERA[0],
        subsystem_device=AXERA[1],
        class_code=0x040000,
        revision=1,
        driver="ax_pcie_dev_host",
        module="ax_pcie_host_dev",
        parent="0003:30:00.0",
        controller="fe180000.pcie",
        of_node="/pcie@fe180000",
        port_type="endpoint",
        link=Link(5.0, 2, 5.0, 1),
        mps_capable_bytes=128,
        mps_bytes=128,
        mrrs_bytes=512,
        msi=None,
        msix=None,
        aspm=None,
        aer=None,
        msi_irqs=tuple(irqs),
        legacy_irq=None,
        numa_node=None,
        local_cpus=None,
        alive=True,
        config_bytes=4096,
        power_state="D0",
    )
    return plain._replace(**more)


SLOT_LINK = Link(8.0, 1, 5.0, 1)


def port(link: Optional[Link] = SLOT_LINK, **more: Any) -> PciDevice:
    """Return the root port above `card`: PCIe 3.0, one lane."""
    identity = {"vendor": 0x1D87, "device": 0x3588, "subsystem_vendor": None, "subsystem_device": None}
    plain = card("0003:30:00.0", (), link=link, parent=None, driver="pcieport", port_type="root port", **identity)
    return plain._replace(class_code=0x060400, **more)


def cards(count: int) -> List[PciDevice]:
    """Return several cards with one MSI each: 38, 39, ..."""
    return [card("%04d:01:00.0" % number, (38 + number,)) for number in range(count)]


def interrupt(
    irq: int = 38, affinity: Optional[str] = "0-7", effective: Optional[str] = "0", has_proc_irq: bool = True
) -> Interrupt:
    """Return an MSI as the kernel has it by default; CPUs are lists."""
    asked = None if affinity is None else parse_list(affinity)
    served = None if effective is None else parse_list(effective)
    return Interrupt(irq, "ITS-MSI", str(irq), "edge", ("MSI",), asked, served, {}, has_proc_irq)


def interrupts(*found: Interrupt) -> Dict[int, Interrupt]:
    """Return interrupts by number."""
    return {one.irq: one for one in found}


class Kernel(Sink):
    """A tree in which a kernel answers: it steers interrupts, keeps what was set, and can be told to refuse.

    WRITES lists the paths of kernel values as they are written, FILES those of files as they are put, EVENTS both.
    REFUSALS maps a path to the reason, ERRORS to the errno that its write ends with, KEEPS to what the kernel makes of
    any value. BEFORE_PUT, BEFORE_VALUE and AFTER_VALUE are called with a path, for tests that interfere.
    """

    def __init__(self, root: Root) -> None:
        super().__init__(root)
        self.events: List[Tuple[str, str]] = []
        self.refusals: Dict[str, str] = {}
        self.errors: Dict[str, int] = {}
        self.keeps: Dict[str, str] = {}
        self.before_put: Callable[[str], None] = lambda path: None
        self.before_value: Callable[[str], None] = lambda path: None
        self.after_value: Callable[[str], None] = lambda path: None

    @property
    def writes(self) -> List[str]:
        return [path for kind, path in self.events if kind == "value"]

    @property
    def files(self) -> List[str]:
        return [path for kind, path in self.events if kind == "file"]

    def put(self, path: str, state: FileState) -> None:
        self.before_put(path)
        self.events.append(("file", path))
        super().put(path, state)

    def set_value(self, path: str, value: str, parse: Parser = parse_list) -> Optional[str]:
        self.before_value(path)
        if path in self.refusals:
            return self.refusals[path]
        if path in self.errors:
            return self._refusal(path, value, OSError(self.errors[path], ""))
        self.events.append(("value", path))
        reason = super().set_value(path, value, parse)
        directory, _slash, name = path.rpartition("/")
        if path in self.keeps:
            self._answer(path, self.keeps[path])
            reason = "clamped"
        elif reason is None and name == "smp_affinity_list":
            online = parse_list(self.root.text("/sys/devices/system/cpu/online") or "") or ()
            served = sorted(set(parse_list(value) or ()) & set(online))[:1]
            self._answer(directory + "/effective_affinity_list", format_list(served))
        self.after_value(path)
        return reason

    def _answer(self, path: str, text: str) -> None:
        with open(self.host_path(path), "w", encoding="ascii") as stream:
            stream.write(text + "\n")


class Board:
    """A CM3588 NAS with its card as it comes up: interrupt on CPU 0, schedutil everywhere, systemd, no irqbalance."""

    def __init__(self, tree: Tree, card: bool = True, driver: bool = True) -> None:
        self.tree = tree
        self.root = tree.root
        self.kernel = Kernel(tree.root)
        tree.cpus(8, "0-7", [414] * 4 + [1024] * 4)
        for first, members in ((0, "0 1 2 3"), (4, "4 5"), (6, "6 7")):
            tree.policy(first, members, members, self.policy_files(first))
        tree.file("/sys/class/dmi/id/.keep")
        tree.file("/proc/device-tree/model", b"FriendlyElec CM3588 NAS\0")
        tree.file("/proc/mounts", "proc /proc proc rw 0 0\nsysfs /sys sysfs rw 0 0\n")
        tree.files("/proc/sys/kernel", {"osrelease": RELEASE})
        self.boot(BOOT)
        tree.file("/lib/modules/%s/modules.dep" % RELEASE, "kernel/drivers/cpufreq/cpufreq_ondemand.ko.xz:\n")
        tree.file("/boot/config-" + RELEASE, "CONFIG_CPU_FREQ_DEFAULT_GOV_SCHEDUTIL=y\n")
        tree.file("/proc/irq/default_smp_affinity", "ff\n")
        tree.file("/run/systemd/system/.keep")
        tree.file("/usr/bin/systemctl")
        tree.file("/proc/1/comm", "systemd\n")
        tree.file("/etc/systemd/system/sysinit.target.wants/.keep")
        tree.file("/etc/udev/rules.d/.keep")
        tree.file("/usr/local/bin/.keep")
        tree.file("/usr/lib/.keep")
        tree.file("/var/lib/.keep")
        tree.file("/run/lock/.keep")
        tree.pci(
            SLOT, config_space((0x1D87, 0x3588), 0x060400, [pcie(4, (3, 1), (2, 1), read_request=2)], header_type=1)
        )
        if card:
            self.add_card(BDF, SLOT + "/" + BDF, (38,), driver)

    def policy_files(self, first: int) -> Dict[str, str]:
        highest = "1800000" if first == 0 else "2400000"
        return {
            "scaling_governor": "schedutil",
            "scaling_available_governors": "performance powersave schedutil",
            "scaling_driver": "cpufreq-dt",
            "scaling_min_freq": "408000",
            "scaling_max_freq": highest,
            "cpuinfo_min_freq": "408000",
            "cpuinfo_max_freq": highest,
            "scaling_cur_freq": "408000",
        }

    def add_card(self, bdf: str, real: str, irqs: Sequence[int], driver: bool = True) -> None:
        """Seat an AX650N; its interrupts come up on CPU 0."""
        space = config_space(
            AXERA,
            0x040000,
            [pcie(0, (2, 2), (2, 1)), (0x05, struct.pack("<H", 1) + bytes(12))],
            subsystem=AXERA,
        )
        identity = {"vendor": "0x1f4b", "device": "0x0650", "local_cpulist": "0-7", "numa_node": "-1", "irq": "0"}
        path = self.tree.pci(real, space, dict(identity, power_state="D0"))
        if driver:
            self.tree.link(path + "/driver", "../" * (real.count("/") + 2) + "bus/pci/drivers/ax_pcie_dev_host")
            for irq in irqs:
                self.tree.file("%s/msi_irqs/%d" % (path, irq), "msi\n")
                self.irq(irq)

    def irq(self, irq: int, affinity: str = "0-7", effective: str = "0") -> None:
        """Make an interrupt that its driver has asked for."""
        self.tree.files("/proc/irq/%d" % irq, {"smp_affinity_list": affinity, "effective_affinity_list": effective})
        self.tree.files(
            "/sys/kernel/irq/%d" % irq, {"chip_name": "ITS-MSI", "hwirq": "0", "type": "edge", "actions": "MSI"}
        )

    def boot(self, identity: str) -> None:
        """Give this boot an identity."""
        self.tree.files("/proc/sys/kernel/random", {"boot_id": identity})

    def online(self, listed: str) -> None:
        """Say which CPUs are online."""
        self.tree.files("/sys/devices/system/cpu", {"online": listed})

    def affinity(self, irq: int = 38) -> Optional[str]:
        """Return an interrupt's CPUs."""
        return self.root.text("/proc/irq/%d/smp_affinity_list" % irq)

    def governor(self, policy: int) -> Optional[str]:
        """Return a policy's governor."""
        return self.root.text("/sys/devices/system/cpu/cpufreq/policy%d/scaling_governor" % policy)

    def wishes(self, role: str, wishes: Any) -> None:
        """Keep wishes on the box, whatever they are."""
        self.tree.file(
            "/etc/edgenpu-tuning/wishes.d/%s.json" % role, json.dumps({"schema": 1, "wishes": wishes}) + "\n"
        )

    def irqbalance(self, arguments: str = "", installed: bool = True) -> None:
        """Start irqbalance."""
        if installed:
            self.tree.file("/usr/sbin/irqbalance")
            self.tree.file("/usr/lib/systemd/system/irqbalance.service", IRQBALANCE_UNIT)
        self.tree.file("/proc/500/comm", "irqbalance\n")
        self.tree.file("/proc/500/cmdline", "\0".join(["/usr/sbin/irqbalance", *arguments.split()]) + "\0")

    def snapshot(self) -> Dict[str, Tuple[str, Any, int]]:
        """Return every file, link and directory below the root with content and mode, /proc, /sys and /run left out."""
        found: Dict[str, Tuple[str, Any, int]] = {}
        for path in sorted(self.tree.path.rglob("*")):
            name = "/" + str(path.relative_to(self.tree.path))
            if name.split("/")[1] in ("proc", "sys", "run"):
                continue
            mode = path.lstat().st_mode & 0o7777
            if path.is_symlink():
                found[name] = ("link", os.readlink(str(path)), 0)
            elif path.is_dir():
                found[name] = ("directory", None, mode)
            else:
                found[name] = ("file", path.read_bytes(), mode)
        return found


class Commands:
    """A runner that remembers what it was asked to run; FAILING maps a command's words to what it says."""

    def __init__(self, failing: Optional[Dict[str, str]] = None) -> None:
        self.run: List[str] = []
        self.failing = failing or {}

    def __call__(self, argv: Sequence[str], timeout_s: float) -> Ran:
        line = " ".join(argv)
        self.run.append(line)
        return Ran(1, self.failing[line]) if line in self.failing else Ran(0, "")
