# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A board with the driver, whose card dies in a chosen way and comes back by a chosen step, and by no weaker one."""

from __future__ import annotations

import re
import shutil
from typing import Callable, Dict, List, Optional, Sequence

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.recovery import BRIDGE_CONTROL, WHOLE_BUS, Clock
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import MODULES as ALL_MODULES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import MODULES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import DEVICES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.drivers import KERNEL, SMI, Box
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.hosts import BDF, SLOT
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree, config_space, pcie

PORT = "0003:30:00.0"
HEAD = """\
| AXCL-SMI  V3.6.4                                                                Driver  V3.6.4 |
+-----------------------------------------+--------------+---------------------------------------+
| Card  Name                     Firmware | Bus-Id       |                          Memory-Usage |
| Fan   Temp                Pwr:Usage/Cap | CPU      NPU |                             CMM-Usage |
|=========================================+==============+=======================================|
"""
ROW = """\
|    %d  AX650N                     V3.6.4 | %s |                181 MiB /      945 MiB |
|   --   52C                      -- / -- | 3%%        0%% |                 18 MiB /     7040 MiB |
+-----------------------------------------+--------------+---------------------------------------+
"""
PROCESSES = "| Processes:  |\n"


class Wires(hosts.Kernel):
    """A kernel that answers on PCI's own files, too. ACTED: the files that act, as they are written to."""

    def __init__(self, patient: Patient) -> None:
        super().__init__(patient.root)
        self.patient = patient
        self.acted: List[str] = []
        self.denied: Dict[str, str] = {}

    def trigger(self, path: str) -> Optional[str]:
        if path in self.denied:
            return self.denied[path]
        reason = super().trigger(path)
        if reason is None:
            self.acted.append(path)
            self.patient.triggered(path)
        return reason

    def set_byte(self, path: str, offset: int, value: int) -> Optional[str]:
        if path in self.denied:
            return self.denied[path]
        reason = super().set_byte(path, offset, value)
        assert offset == BRIDGE_CONTROL
        self.acted.append("%s %#x" % (path, value))
        self.patient.wired(path.split("/")[-2], value)
        return reason


class Ticking:
    """Time that passes only while somebody waits. DURING: called at each wait."""

    def __init__(self) -> None:
        self.time = 0.0
        self.during: Callable[[], None] = lambda: None

    def clock(self) -> Clock:
        """Return it as the code takes it."""
        return Clock(lambda: self.time, self.sleep)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds
        self.during()


class Patient(Box):
    """A CM3588 with the driver loaded, by hand and without a package of ours.

    CURES maps each card that is not alive to the step that brings it back ("" for none). MUTE: cards whose registers
    read all ones; such a card is not found by a rescan either. ANSWERS replaces what axcl-smi prints.
    """

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self.kernel: Wires = Wires(self)
        self.cures: Dict[str, str] = {}
        self.mute: List[str] = []
        self.answers: Dict[str, Ran] = {}
        self.log: List[str] = []
        self.cards: Dict[str, str] = {BDF: SLOT + "/" + BDF}  # address -> place below /sys/devices
        self.known: List[str] = []  # to the driver since it was loaded
        self.next_irq = 40
        self.stubborn: List[int] = []
        self.time = Ticking()
        tree.file(SMI)
        tree.file(WHOLE_BUS)
        self.pci_files(PORT, SLOT)
        self.pci_files(BDF, SLOT + "/" + BDF)
        self.built(KERNEL, "extra")
        for module in MODULES:
            self._modprobe([module])
        self.commands.clear()

    def pci_files(self, bdf: str, real: str) -> None:
        """Give a device the files that act."""
        self.tree.files("/sys/devices/" + real, {"remove": "", "rescan": ""})

    # ---- what happens to it -----------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Write a line to the kernel log."""
        self.log.append("[%8.3f] %s" % (len(self.log), text))

    def die(self, cure: str, bdf: str = BDF, mute: bool = False) -> None:
        """Let a card die until it is given its cure."""
        self.cures[bdf] = cure
        if mute:
            self.mute.append(bdf)
            path = self.path("/sys/devices/%s/config" % self.cards[bdf])
            path.write_bytes(b"\xff" * 4096)
        self.say("[heartbeat_recv_thread, 238]: device %x: dead!" % int(bdf.split(":")[1], 16))

    def treat(self, step: str, bdfs: Sequence[str]) -> None:
        """Give cards a step."""
        for bdf in bdfs:
            if self.cures.get(bdf) == step:
                del self.cures[bdf]
                if bdf in self.mute:
                    self.mute.remove(bdf)

    def use(self, pid: int, name: str = "axllm", stubborn: bool = False, service: str = "axllm.service") -> None:
        """Let a process have the driver's node open."""
        self.tree.file("/proc/%d/comm" % pid, name + "\n")
        self.tree.file("/proc/%d/cgroup" % pid, "0::/system.slice/%s\n" % service)
        self.tree.link("/proc/%d/fd/3" % pid, "/dev/axcl_host")
        if stubborn:
            self.stubborn.append(pid)

    def hang_in_load(self, pid: int) -> None:
        """Let the load of axcl_host hang in a process."""
        self.tree.file("/proc/%d/comm" % pid, "modprobe\n")
        self.tree.file("/proc/%d/cmdline" % pid, "/sbin/modprobe\0axcl_host\0")
        modules = [line for line in self.text("/proc/modules").splitlines() if line.split()[0] != "axcl_host"]
        self.tree.file("/proc/modules", "\n".join(["axcl_host 16384 1 - Loading 0x0", *modules]) + "\n")
        self.remove("/dev/axcl_host")

    # ---- how it answers ---------------------------------------------------------------------------------------------

    def run(self, argv: Sequence[str], timeout_s: float) -> Ran:
        words = list(argv)
        if words[:2] == ["sh", "-c"] and words[3] == "axcl-smi":
            assert words[4].endswith("edgenpu-tuning-axcl.lock")
            line = " ".join(["axcl-smi", *words[11:]])
            self.before(line)
            self.commands.append(line)
            return self._smi(words[9], words[11:])
        if words[:2] == ["sh", "-c"]:
            assert words[2] == 'kill -TERM "$@"'
            line = " ".join(["kill", "-TERM", *words[4:]])
            self.before(line)
            self.commands.append(line)
            for pid in words[4:]:
                self._terminated(int(pid))
            return Ran(0, "")
        return super().run(argv, timeout_s)

    def _terminated(self, pid: int) -> None:
        if pid in self.stubborn:
            return
        if self.has("/proc/%d/cmdline" % pid):
            lines = [line for line in self.text("/proc/modules").splitlines() if "Loading" not in line]
            self.tree.file("/proc/modules", "".join(line + "\n" for line in lines))
        self.remove("/proc/%d" % pid)
        for bdf in [bdf for bdf, cure in self.cures.items() if cure == "stop_users"]:
            self.treat("stop_users", [bdf])
            self.say("device %x: alive!" % int(bdf.split(":")[1], 16))

    def _smi(self, answer: str, words: List[str]) -> Ran:
        if " ".join(words) in self.answers:
            return self.answers[" ".join(words)]
        known = [bdf for bdf in sorted(self.known) if self.has("%s/%s/driver" % (DEVICES, bdf))]
        if not known:
            return Ran(0, "no device connected\n" + HEAD + PROCESSES)
        if words[:1] == ["reboot"]:
            assert answer == "y\n"
            bdf = known[int(words[2])]
            if self.cures.get(bdf) not in (None, "card_reboot"):
                return Ran(0, "reboot device %d fail, errno: 1 Operation not permitted\n" % int(bdf.split(":")[1], 16))
            self.treat("card_reboot", [bdf])
            self.say("device %x: alive!" % int(bdf.split(":")[1], 16))
            return Ran(0, "Do you want to reboot device 0 ? (y/n): reboot device %s success\n" % words[2])
        if words[:1] == ["info"]:
            bdf = known[int(words[3])]
            number = int(bdf.split(":")[1], 16)
            if bdf in self.cures:
                return Ran(0, "active device %d fail, ret = 0x80300186\n" % number)
            return Ran(0, "Device ID           : %d (0x%x)\ntemperature         : 54000\n\n" % (number, number))
        text = HEAD
        for at, bdf in enumerate(known):
            if bdf in self.cures:
                text = "request ports from device %d fail, errno: 1\n" % int(bdf.split(":")[1], 16) + text
            else:
                text += ROW % (at, bdf.upper())
        return Ran(0, text + PROCESSES)

    def _dmesg(self, words: List[str]) -> Ran:
        return Ran(0, "".join(line + "\n" for line in self.log))

    def _modprobe(self, words: List[str]) -> Ran:
        loaded = {line.split()[0] for line in self.text("/proc/modules").splitlines()}
        module = words[-1]
        if words[0] == "-r":
            if module == "axcl_host" and any(self.path("/proc").glob("[0-9]*/fd/3")):
                return Ran(1, "modprobe: FATAL: Module axcl_host is in use.\n")
            assert not loaded.intersection(ALL_MODULES[ALL_MODULES.index(module) + 1 :]), "the vendor's order"
            ran = super()._modprobe(words)
            if module == "ax_pcie_host_dev":
                for bdf in self.cards:
                    self.remove("/sys/devices/%s/driver" % self.cards[bdf])
                    self.remove("/sys/devices/%s/msi_irqs" % self.cards[bdf])
            return ran
        if module in loaded:
            return Ran(0, "")
        ran = super()._modprobe(words)
        if module == "axcl_host" and ran.status == 0:
            self._firmware()
        return ran

    def _firmware(self) -> None:
        """Do what loading axcl_host does to every card that the bus has."""
        self.known = [bdf for bdf in self.cards if self.has("%s/%s" % (DEVICES, bdf))]
        for bdf in self.known:
            assert bdf not in self.mute, "reading a card without a link ends in an abort"
            real = "/sys/devices/" + self.cards[bdf]
            if not self.has(real + "/driver"):
                self.tree.link(real + "/driver", "../" * (real.count("/") - 1) + "bus/pci/drivers/ax_pcie_dev_host")
            self.next_irq += 1
            self.tree.file("%s/msi_irqs/%d" % (real, self.next_irq), "msi\n")
            self.irq(self.next_irq)
            number = int(bdf.split(":")[1], 16)
            self.say("[axcl_pcie_host_init, 1]: axcl wait dev %x handshake..." % number)
            self.treat("reload", [bdf])
            if bdf in self.cures:
                self.say("[step1]: Handshake timeout!")
                self.say("axcl pcie check remote device %x failed" % number)
            else:
                self.say("base_addr: 0x1, size: 0x400000")

    # ---- PCI --------------------------------------------------------------------------------------------------------

    def triggered(self, path: str) -> None:
        """React to a file that acts."""
        bdf, action = path.split("/")[-2:]
        if action == "remove":
            assert not any(line.startswith("ax") for line in self.text("/proc/modules").splitlines()), "under a driver"
            self.path("%s/%s" % (DEVICES, bdf)).unlink()
            shutil.rmtree(str(self.path("/sys/devices/" + self.cards[bdf])))
            self.say("pci %s: removed" % bdf)
        elif action == "rescan":
            for card, real in self.cards.items():
                held = self._control(real.split("/")[-2]) & 0x40
                if self.has("%s/%s" % (DEVICES, card)) or card in self.mute or held:
                    continue
                if path == WHOLE_BUS or bdf in real.split("/"):
                    self.add_card(card, real, (), driver=False)
                    self.pci_files(card, real)
                    self.say("pci %s: [1f4b:0650] type 00 class 0x040000" % card)
                    self.treat("rescan", [card])
        elif action == "reset_subordinate":
            self.reset(bdf)

    def _control(self, port: str) -> int:
        return self.path("%s/%s/config" % (DEVICES, port)).read_bytes()[BRIDGE_CONTROL]

    def wired(self, port: str, value: int) -> None:
        """React to a port's bridge control register: its bus has been in reset when that ends."""
        if not value & 0x40:
            self.reset(port)

    def reset(self, port: str) -> None:
        """Reset what is behind a port."""
        for bdf, real in self.cards.items():
            if port in real.split("/"):
                self.treat("bus_reset", [bdf])

    def second_card(self, bdf: str = "0001:11:00.0") -> str:
        """Seat another card on a controller of its own, and load the driver again for both."""
        slot = "platform/fe160000.pcie/pci0001:10/0001:10:00.0"
        self.tree.pci(slot, config_space((0x1D87, 0x3588), 0x060400, [pcie(4, (3, 1), (2, 1))], header_type=1))
        self.pci_files("0001:10:00.0", slot)
        self.cards[bdf] = slot + "/" + bdf
        self.add_card(bdf, self.cards[bdf], (), driver=False)
        self.pci_files(bdf, self.cards[bdf])
        for module in reversed(MODULES):
            self._modprobe(["-r", module])
        for module in MODULES:
            self._modprobe([module])
        return bdf

    def neighbour(self, bdf: str = "0003:31:00.1") -> None:
        """Seat another function in the card's slot."""
        self.tree.pci(SLOT + "/" + bdf, config_space((0x10EC, 0x8125), 0x020000, [pcie(0, (2, 1), (2, 1))]))

    @property
    def on_bus(self) -> List[str]:
        """The cards that the bus has."""
        return [bdf for bdf in sorted(self.cards) if self.has("%s/%s" % (DEVICES, bdf))]

    def steps(self) -> List[str]:
        """Return what was done, without what only looks."""
        looking = re.compile(r"dmesg|axcl-smi$|axcl-smi info|udevadm settle")
        return [line for line in self.commands if not looking.match(line)]
