# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each finding is there where it belongs, and not on the same host put right."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN, CardKind
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.expected_gain import verdict
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import Snapshot, findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import (
    CRITICAL,
    INFO,
    OK,
    SEVERITIES,
    WARNING,
    Finding,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import Policy
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import Host
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import Interrupt
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.irqbalance import Irqbalance
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.kernels import Built, Kernel
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import Aer, Link, PciDevice
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts

SYSFS = "/sys/bus/pci/devices/" + hosts.BDF
NO_BALANCER = Irqbalance(False, False, None, None, None, (), None, False)
BALANCER = NO_BALANCER._replace(installed=True, running=True, pid=500, arguments=("--foreground",))


def policy(first: int, cpus: Any, governor: Optional[str] = "performance", **more: Any) -> Policy:
    plain = Policy(
        "policy%d" % first,
        tuple(cpus),
        tuple(cpus),
        "cpufreq-dt",
        governor,
        ("performance", "schedutil"),
        408000,
        2400000,
        408000,
        2400000,
        408000,
        (),
        None,
        False,
    )
    return plain._replace(**more)


def added(release: str, running: bool) -> Kernel:
    """Return a kernel with a driver that did not come with it."""
    path = "/lib/modules/%s/updates/dkms/ax_pcie_host_dev.ko" % release
    return Kernel(release, running, True, (Built("ax_pcie_host_dev", path, release + " SMP", None),))


def tuned(card: Optional[PciDevice] = None, **more: Any) -> Snapshot:
    """Return a CM3588 as it should be."""
    plain = Snapshot(
        Host("FriendlyElec CM3588 NAS", (), "6.1.57", "aarch64", 4096, hosts.BOOT, None, True, True, True, "Debian"),
        (hosts.port(), card or hosts.card()),
        BUILT_IN,
        hosts.interrupts(hosts.interrupt(38, "4", "4")),
        hosts.rk3588(),
        (policy(0, range(4), "schedutil"), policy(4, (4, 5)), policy(6, (6, 7))),
        NO_BALANCER,
        {"irq_affinity": {}, "governor": {}},
    )
    return plain._replace(**more)


def found(snapshot: Snapshot) -> Dict[str, Finding]:
    return {finding.id: finding for finding in findings(snapshot)}


def test_tuned_host() -> None:
    """Nothing on a healthy tuned host asks for attention."""
    everything = findings(tuned())
    assert [(finding.id, finding.severity) for finding in everything] == [
        ("link_at_limit", INFO),
        ("interrupt_on_fast_core", OK),
        ("clock_held", OK),
        ("clock_held", OK),
    ]
    assert verdict(everything) == "As fast as it can be"


def test_untuned_host() -> None:
    untuned = tuned(
        interrupts=hosts.interrupts(hosts.interrupt()),
        policies=(policy(0, range(4), "schedutil"), policy(4, (4, 5), "schedutil"), policy(6, (6, 7), "schedutil")),
        wishes={},
    )
    assert [finding.id for finding in findings(untuned) if finding.severity == WARNING] == [
        "interrupt_on_slow_core",
        "clock_drops",
        "clock_drops",
        "not_kept",
    ]
    assert verdict(findings(untuned)) == "Not as fast as it can be: 2 things to do"


class Case(NamedTuple):
    """A host with one thing amiss, and what is to be said of it."""

    id: str
    severity: str
    snapshot: Callable[[], Snapshot]
    summary: str
    evidence: Dict[str, Any]
    role: Optional[str] = None


def counted(correctable: int = 0, nonfatal: int = 0, fatal: int = 0) -> PciDevice:
    return hosts.card(aer=Aer({"BadTLP": correctable, "RxErr": 0}, {"CmpltTO": nonfatal}, {"DLP": fatal}))


def stuck(affinity: str, effective: str, counts: Dict[int, int]) -> Interrupt:
    """Return an interrupt that a DesignWare controller serves; the host's kernel is 6.1."""
    return hosts.interrupt(38, affinity, effective)._replace(chip="PCI-MSI", counts=counts)


HELD = (policy(0, range(4)), policy(4, (4, 5)), policy(6, (6, 7)))
AER = SYSFS + "/aer_dev_"
PORT = "/sys/bus/pci/devices/0003:30:00.0/config"
CASES = [
    Case(
        "card_missing",
        WARNING,
        lambda: tuned()._replace(devices=(hosts.port(),)),
        "no NPU card of the catalogue among 1 PCI devices",
        {"/sys/bus/pci/devices": 1},
    ),
    Case(
        "card_dead",
        CRITICAL,
        lambda: tuned(hosts.card(alive=False, link=None)),
        "Axera AX650N at 0003:31:00.0 is dead: its configuration space reads all ones",
        {SYSFS + "/config": "ff ff ff ff"},
    ),
    Case(
        "card_unbound",
        WARNING,
        lambda: tuned(hosts.card(irqs=(), driver=None)),
        "Axera AX650N at 0003:31:00.0 has no driver, so it has no interrupt to place",
        {SYSFS + "/driver": None},
        "axcl_driver",
    ),
    Case(
        "next_kernel_without_driver",
        WARNING,
        lambda: tuned(kernels=(added("6.1.57", True), added("6.1.84", False)._replace(modules=()))),
        "kernel 6.1.84 is installed and lacks ax_pcie_host_dev: after a reboot into it the card has no driver",
        {"/lib/modules/6.1.84": []},
        "axcl_driver",
    ),
    Case(
        "card_wrong_driver",
        WARNING,
        lambda: tuned(hosts.card(driver="vfio-pci")),
        "Axera AX650N at 0003:31:00.0 is held by vfio-pci instead of ax_pcie_dev_host",
        {SYSFS + "/driver": "vfio-pci"},
    ),
    Case(
        "link_unknown",
        INFO,
        lambda: tuned(hosts.card(link=None, config_bytes=64)),
        "the link of 0003:31:00.0 could not be read",
        {SYSFS + "/config": "64 bytes readable"},
    ),
    Case(
        "link_degraded",
        WARNING,
        lambda: tuned(hosts.card(link=Link(5.0, 2, 2.5, 1))),
        "the link of 0003:31:00.0 runs at 2.5 GT/s x1, below what card and slot can do",
        {SYSFS + "/config": "can 5 GT/s x2, negotiated 2.5 GT/s x1", PORT: "can 8 GT/s x1"},
    ),
    Case(
        "mrrs_unusual",
        CRITICAL,
        lambda: tuned(hosts.card(mrrs_bytes=256)),
        "0003:31:00.0 has a maximum read request size of 256 bytes; its driver assumes 512 (crashes were seen)",
        {SYSFS + "/config": "MRRS 256"},
    ),
    Case(
        "mrrs_unusual",
        WARNING,
        lambda: tuned(hosts.card(mrrs_bytes=4096)),
        "0003:31:00.0 has a maximum read request size of 4096 bytes; its driver assumes 512 (30 % less speed was seen)",
        {SYSFS + "/config": "MRRS 4096"},
    ),
    Case(
        "mrrs_unusual",
        WARNING,
        lambda: tuned(hosts.card(mrrs_bytes=1024)),
        "0003:31:00.0 has a maximum read request size of 1024 bytes; its driver assumes 512 (untested)",
        {SYSFS + "/config": "MRRS 1024"},
    ),
    Case(
        "mrrs_unusual",
        CRITICAL,
        lambda: tuned(hosts.card(mrrs_bytes=128)),
        "0003:31:00.0 has a maximum read request size of 128 bytes; its driver assumes 512 (crashes were seen)",
        {SYSFS + "/config": "MRRS 128"},
    ),
    Case(
        "link_errors",
        INFO,
        lambda: tuned(counted(correctable=3)),
        "0003:31:00.0 has reported corrected PCIe errors since boot",
        {AER + "correctable": {"BadTLP": 3}},
    ),
    Case(
        "link_errors",
        WARNING,
        lambda: tuned(counted(correctable=3, nonfatal=1)),
        "0003:31:00.0 has reported uncorrectable PCIe errors since boot",
        {AER + "correctable": {"BadTLP": 3}, AER + "nonfatal": {"CmpltTO": 1}},
    ),
    Case(
        "link_errors",
        WARNING,
        lambda: tuned(counted(fatal=1)),
        "0003:31:00.0 has reported uncorrectable PCIe errors since boot",
        {AER + "fatal": {"DLP": 1}},
    ),
    Case(
        "interrupt_on_slow_core",
        WARNING,
        lambda: tuned(interrupts=hosts.interrupts(hosts.interrupt(38, "0-7", "0"))),
        "interrupt 38 of 0003:31:00.0 is served by CPU 0; the fastest are 4-7",
        {"/proc/irq/38/smp_affinity_list": "0-7", "/proc/irq/38/effective_affinity_list": "0"},
        "irq_affinity",
    ),
    Case(
        "interrupt_unsteerable",
        WARNING,
        lambda: tuned(interrupts=hosts.interrupts(stuck("0-7", "", {0: 70, 4: 0})), policies=HELD),
        "interrupt 38 of 0003:31:00.0 cannot be put on another CPU: "
        "the MSI controller inside the DesignWare PCIe block serves it (PCI-MSI), which cannot steer",
        {
            "/proc/irq/38/smp_affinity_list": "0-7",
            "/proc/irq/38/effective_affinity_list": (),
            "/sys/kernel/irq/38/chip_name": "PCI-MSI",
            "counts since boot, by CPU": {0: 70},
        },
        "governor",
    ),
    Case(
        "interrupt_unsteerable",
        INFO,
        lambda: tuned(interrupts=hosts.interrupts(stuck("0-7", "5", {}))),
        "interrupt 38 of 0003:31:00.0 cannot be put on another CPU: "
        "the MSI controller inside the DesignWare PCIe block serves it (PCI-MSI), which cannot steer",
        {
            "/proc/irq/38/smp_affinity_list": "0-7",
            "/proc/irq/38/effective_affinity_list": "5",
            "/sys/kernel/irq/38/chip_name": "PCI-MSI",
        },
        "governor",
    ),
    Case(
        "interrupt_missing",
        WARNING,
        lambda: tuned(hosts.card(irqs=())),
        "0003:31:00.0 has a driver, but no interrupt",
        {SYSFS + "/msi_irqs": None},
    ),
    Case(
        "irqbalance_may_move",
        WARNING,
        lambda: tuned(irqbalance=BALANCER),
        "irqbalance runs and may move the card's interrupt at its next pass",
        {"irqbalance": "--foreground"},
        "irq_affinity",
    ),
    Case(
        "irqbalance_foreign_policy",
        INFO,
        lambda: tuned(irqbalance=BALANCER._replace(policy_script="/etc/mine.sh")),
        "irqbalance has a policy script of its own, /etc/mine.sh",
        {"irqbalance": "--foreground"},
    ),
    Case(
        "clock_drops",
        WARNING,
        lambda: tuned(policies=(policy(0, range(4)), policy(4, (4, 5), "schedutil"), policy(6, (6, 7)))),
        "policy4 (CPUs 4-5) drops its clock between the short calls to the card: governor schedutil",
        {"/sys/devices/system/cpu/cpufreq/policy4/scaling_governor": "schedutil"},
        "governor",
    ),
    Case(
        "clock_capped",
        WARNING,
        lambda: tuned(policies=(policy(4, (4, 5), max_khz=1800000),)),
        "policy4 (CPUs 4-5) is capped at 1800 MHz of 2400",
        {
            "/sys/devices/system/cpu/cpufreq/policy4/scaling_max_freq": 1800000,
            "/sys/devices/system/cpu/cpufreq/policy4/cpuinfo_max_freq": 2400000,
        },
    ),
    Case(
        "not_kept",
        WARNING,
        lambda: tuned(wishes={"governor": {}}),
        "nothing on this host keeps the card's interrupt in place: a driver reload or a reboot loses it",
        {"/etc/edgenpu-tuning/wishes.d": ["governor"]},
        "irq_affinity",
    ),
    Case(
        "drift",
        WARNING,
        lambda: tuned(interrupts=hosts.interrupts(hosts.interrupt(38, "5", "5"))),
        "1 interrupt is not as the wishes on this host say: /proc/irq/38/smp_affinity_list is 5, wished 4",
        {
            "/proc/irq/38/smp_affinity_list": {
                "before": "5",
                "after": "4",
                "why": "vector 0 of 0003:31:00.0: fastest tier, CPUs 4-7 (capacity 1024 of 414/1024); CPU 7 left to "
                "the application",
            }
        },
        "irq_affinity",
    ),
    Case(
        "unread",
        INFO,
        lambda: tuned(unread=(("/sys/x", "EACCES"), ("/sys/y", "EIO"))),
        "2 files could not be read",
        {"/sys/x": "EACCES", "/sys/y": "EIO"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "%s-%s" % (case.id, case.severity))
def test_amiss(case: Case) -> None:
    assert case.id not in found(tuned())
    finding = found(case.snapshot())[case.id]
    assert (finding.severity, finding.summary) == (case.severity, case.summary)
    assert finding.evidence == case.evidence
    assert finding.role == case.role
    assert finding.remedy.endswith(".")


@pytest.mark.parametrize("case", CASES, ids=lambda case: "%s-%s" % (case.id, case.severity))
def test_gravest_first(case: Case) -> None:
    severities = [finding.severity for finding in findings(case.snapshot())]
    assert severities == sorted(severities, key=SEVERITIES.index, reverse=True)


def test_every_finding_above_info_is_a_case() -> None:
    """A finding that nobody has staged may be one that nobody can cause."""
    staged = {finding.id for case in CASES for finding in findings(case.snapshot())}
    assert {case.id for case in CASES} | {"link_at_limit", "interrupt_on_fast_core", "clock_held"} == staged


class TestNextKernel:
    def test_without_headers_these_come_first(self) -> None:
        bare = added("6.1.84", False)._replace(modules=(), headers=False)
        finding = found(tuned(kernels=(added("6.1.57", True), bare)))["next_kernel_without_driver"]
        assert finding.remedy == "Install this kernel's headers, then build it, before a reboot."

    @pytest.mark.parametrize(
        "kernels",
        [
            (),
            (added("6.1.57", True), added("6.1.84", False)),
            (added("6.1.9", False)._replace(modules=()), added("6.1.57", True)),
            (added("6.1.57", True)._replace(modules=()), added("6.1.84", False)._replace(modules=())),
        ],
    )
    def test_nothing_to_say(self, kernels: Any) -> None:
        """An older kernel is a way back, and a driver that comes with the kernel is in none of these places."""
        assert "next_kernel_without_driver" not in found(tuned(kernels=kernels))


class TestCard:
    def test_a_driver_of_its_own_is_right(self) -> None:
        """Nothing is known of this device's drivers, so none is wrong."""
        kinds = (CardKind("mine", *hosts.AXERA),)
        assert "card_wrong_driver" not in found(tuned(hosts.card(driver="mine"), catalogue=kinds))

    def test_unbound_card_of_another_maker_has_no_role(self) -> None:
        finding = found(tuned(hosts.card(irqs=(), driver=None, vendor=0x1E60, device=0x2864)))["card_unbound"]
        assert finding.role is None

    def test_nothing_more_is_said_of_a_dead_card(self) -> None:
        dead = hosts.card(alive=False, link=None, mrrs_bytes=128, irqs=(), aer=Aer({"BadTLP": 1}, {}, {}))
        assert {"link_unknown", "mrrs_unusual", "interrupt_missing", "link_errors"}.isdisjoint(found(tuned(dead)))

    def test_unbound_card_misses_no_interrupt(self) -> None:
        assert "interrupt_missing" not in found(tuned(hosts.card(irqs=(), driver=None)))

    def test_another_maker_s_read_requests(self) -> None:
        assert "mrrs_unusual" not in found(tuned(hosts.card(vendor=0x1E60, device=0x2864, mrrs_bytes=256)))

    def test_read_requests_not_known(self) -> None:
        assert "mrrs_unusual" not in found(tuned(hosts.card(mrrs_bytes=None)))

    def test_no_error_counted(self) -> None:
        assert "link_errors" not in found(tuned(counted()))

    def test_each_card_is_judged(self) -> None:
        two = tuned()._replace(devices=(hosts.port(), hosts.card(), hosts.card("0004:41:00.0", alive=False)))
        assert [finding.id for finding in findings(two)][:2] == ["card_dead", "link_at_limit"]


class TestLink:
    def test_at_its_limit(self) -> None:
        finding = found(tuned())["link_at_limit"]
        assert finding.summary == (
            "the link of 0003:31:00.0 runs at 5 GT/s x1 (about 410 MB/s read, 454 MB/s write), the most it can: "
            "the card sets 5 GT/s, the slot sets x1"
        )
        assert finding.evidence == {
            SYSFS + "/config": "can 5 GT/s x2, negotiated 5 GT/s x1",
            PORT: "can 8 GT/s x1",
        }

    def test_payload_not_known(self) -> None:
        assert "410 MB/s" in found(tuned(hosts.card(mps_bytes=None)))["link_at_limit"].summary

    def test_degraded_is_not_at_its_limit(self) -> None:
        assert "link_at_limit" not in found(tuned(hosts.card(link=Link(5.0, 2, 2.5, 1))))


class TestInterrupt:
    @staticmethod
    def seen(affinity: Optional[str], effective: Optional[str], **more: Any) -> List[str]:
        one = hosts.interrupt(38, affinity, effective)
        snapshot = tuned(interrupts=hosts.interrupts(one), **more)
        return [finding.id for finding in findings(snapshot) if finding.id.startswith("interrupt")]

    @pytest.mark.parametrize(
        ("affinity", "effective", "expected"),
        [
            ("4", "4", "fast"),
            ("4-7", "6", "fast"),
            ("0-7", "5", "fast"),
            ("0-7", "0", "slow"),
            ("4", "", "fast"),
            ("0-7", "", "slow"),
            ("4", None, "fast"),
            ("0", None, "slow"),
        ],
    )
    def test_where(self, affinity: str, effective: Optional[str], expected: str) -> None:
        """Where it is served counts; where the kernel does not tell that, where it may be."""
        assert self.seen(affinity, effective) == ["interrupt_on_%s_core" % expected]

    def test_not_told(self) -> None:
        assert self.seen(None, None) == []

    def test_equally_fast(self) -> None:
        assert self.seen("0-3", "0", cpus=hosts.cpus([1024] * 4)) == []

    def test_as_the_user_wants_it(self) -> None:
        slow = hosts.interrupts(hosts.interrupt(38, "2", "2"))
        wished = tuned(interrupts=slow, wishes={"irq_affinity": {"cpus": "0-3"}})
        finding = found(wished)["interrupt_on_slow_core"]
        assert (finding.severity, finding.remedy) == (
            INFO,
            "It is where irq_affinity_cpus wants it; leave that empty to have a fast one chosen.",
        )

    def test_all_fast_ones_isolated(self) -> None:
        quiet = tuple(cpu._replace(isolated=cpu.number > 3) for cpu in hosts.rk3588())
        finding = found(tuned(interrupts=hosts.interrupts(hosts.interrupt(38, "1", "1")), cpus=quiet))[
            "interrupt_on_slow_core"
        ]
        assert finding.severity == INFO
        assert "taken only by name" in finding.remedy

    def test_a_move_that_waits_is_no_finding(self) -> None:
        waits = hosts.interrupts(hosts.interrupt(38, "4", "0")._replace(chip="IR-PCI-MSI-0000:03:00.0"))
        host = tuned().host._replace(architecture="x86_64")
        assert not [name for name in found(tuned(interrupts=waits, host=host)) if name.startswith("interrupt")]
        arm = tuned(interrupts=hosts.interrupts(hosts.interrupt(38, "4", "0")))
        assert "interrupt_on_slow_core" in found(arm)

    def test_raspberry_pi_5(self) -> None:
        """All its cores are equal: a note, with both ways out, and the clocks are what counts."""
        line = "dtoverlay=pciex1-compat-pi5,no-mip"
        host = tuned().host._replace(
            compatible=("raspberrypi,5-model-b", "brcm,bcm2712"),
            boot_options=(("/boot/firmware/config.txt", "dtparam=pciex1"), ("/boot/firmware/config.txt", line)),
        )
        one = hosts.interrupt(38, "0-3", "")._replace(chip="BRCM STB PCIe MSI", counts={0: 70})
        pi = tuned(
            host=host,
            interrupts=hosts.interrupts(one),
            cpus=hosts.cpus([1024] * 4),
            policies=(policy(0, range(4), "ondemand"),),
        )
        finding = found(pi)["interrupt_unsteerable"]
        assert finding.severity == INFO
        assert finding.evidence["/boot/firmware/config.txt"] == "dtparam=pciex1; " + line
        assert "served by CPU 0. All CPUs are equally fast" in finding.remedy
        assert "without `no-mip` the MIP serves the card" in finding.remedy
        assert "clock_drops" in found(pi)
        bare = pi._replace(wishes={}, irqbalance=BALANCER)
        assert not {"not_kept", "irqbalance_may_move"} & found(bare).keys(), "nobody can move it"
        free = bare._replace(interrupts=hosts.interrupts(one._replace(chip="ITS-MSI")))
        assert {"not_kept", "irqbalance_may_move"} <= found(free).keys()

    def test_clock_where_one_is_stuck_on_a_slow_cpu(self) -> None:
        slow = tuned(interrupts=hosts.interrupts(stuck("0-7", "", {0: 70})))
        assert found(slow)["clock_drops"].summary.startswith("policy0 (CPUs 0-3) drops its clock")
        assert "clock_drops" not in found(slow._replace(wishes={"governor": {"others": "schedutil"}}))

    def test_read_only_since_6_12(self) -> None:
        managed = hosts.interrupts(hosts.interrupt(38, "0-7", "0")._replace(settable=False))
        finding = found(tuned(interrupts=managed))["interrupt_unsteerable"]
        assert "the kernel shows its affinity as read-only" in finding.summary
        assert finding.evidence["/proc/irq/38/smp_affinity_list"] == "read-only (mode 0444)"

    def test_not_yet_asked_for(self) -> None:
        granted = hosts.interrupt(38, "0-7", "0", has_proc_irq=False)
        for snapshot in (tuned(interrupts={}), tuned(interrupts=hosts.interrupts(granted))):
            told = [finding.id for finding in findings(snapshot) if finding.id.startswith("interrupt")]
            assert told == ["interrupt_not_requested"]

    def test_line(self) -> None:
        shared = tuned(hosts.card(irqs=(), legacy_irq=16), interrupts=hosts.interrupts(hosts.interrupt(16)))
        assert found(shared)["interrupt_on_slow_core"].summary.startswith("interrupt 16 of ")

    def test_line_that_others_share(self) -> None:
        line = hosts.interrupt(16, "4", "4")
        alone = tuned(hosts.card(irqs=(), legacy_irq=16), interrupts=hosts.interrupts(line))
        assert "interrupt_shared" not in found(alone)
        handlers = hosts.interrupts(line._replace(actions=("ahci", "ax_pcie")))
        finding = found(alone._replace(interrupts=handlers))["interrupt_shared"]
        assert (finding.severity, finding.evidence["/sys/kernel/irq/16/actions"]) == (INFO, "ahci,ax_pcie")
        assert finding.summary == (
            "interrupt 16 of 0003:31:00.0 is a line that others share (ahci, ax_pcie): one CPU serves them all"
        )
        assert "interrupt_shared" not in found(tuned(hosts.card(irqs=(38, 39), legacy_irq=38)))

    @pytest.mark.parametrize(
        ("neighbour", "told"),
        [
            ({}, True),
            ({"driver": None}, False),  # its line is not in use
            ({"msi_irqs": (77,)}, False),
            ({"legacy_irq": 17}, False),
        ],
    )
    def test_device_on_the_same_line(self, neighbour: Dict[str, Any], told: bool) -> None:
        snapshot = tuned(hosts.card(irqs=(), legacy_irq=16), interrupts=hosts.interrupts(hosts.interrupt(16, "4", "4")))
        other = hosts.port(legacy_irq=16, bdf="0000:00:1f.2")._replace(driver="ahci")._replace(**neighbour)
        findings_ = found(snapshot._replace(devices=(*snapshot.devices, other)))
        assert ("interrupt_shared" in findings_) == told
        if told:
            finding = findings_["interrupt_shared"]
            assert "(0000:00:1f.2): one CPU serves them all" in finding.summary
            assert finding.evidence["/sys/bus/pci/devices/0000:00:1f.2/irq"] == 16


class TestIrqbalance:
    def test_kept_off(self) -> None:
        kept = BALANCER._replace(policy_script=hosts.OUR_POLICY, own_drop_in=True)
        finding = found(tuned(irqbalance=kept))["irqbalance_kept_off"]
        assert (finding.severity, finding.role) == (OK, "irq_affinity")

    def test_another_policy_wins_over_our_drop_in(self) -> None:
        """A drop-in that sorts after ours, or a process that was not started again: ours being there does not help."""
        overridden = BALANCER._replace(policy_script="/etc/mine.sh", own_drop_in=True)
        assert "irqbalance_kept_off" not in found(tuned(irqbalance=overridden))
        assert "irqbalance_foreign_policy" in found(tuned(irqbalance=overridden))

    def test_not_started_again_since_our_drop_in(self) -> None:
        assert "irqbalance_may_move" in found(tuned(irqbalance=BALANCER._replace(own_drop_in=True)))

    def test_not_started_again_since_the_unit_changed(self) -> None:
        stale = BALANCER._replace(exec_start="x", unit_policy=hosts.OUR_POLICY, own_drop_in=True)
        assert "systemctl restart" in found(tuned(irqbalance=stale))["irqbalance_may_move"].remedy

    def test_user_s_policy_behind_ours(self) -> None:
        """Somebody has set one since ours was put before it: theirs is dead, and nobody has told them."""
        ours = hosts.OUR_POLICY
        both = BALANCER._replace(
            policy_script=ours, exec_start="x", unit_policy=ours, unit_policy_without_ours="/etc/mine.sh"
        )
        finding = found(tuned(irqbalance=both))["irqbalance_foreign_policy"]
        assert finding.summary == "irqbalance has a policy script of its own, /etc/mine.sh, but was started with ours"
        assert finding.remedy.startswith("Run the role irq_affinity: it takes ours back. Make sure that it prints ban")
        assert (finding.severity, finding.role) == (INFO, "irq_affinity")
        named = both._replace(unit_policy_without_ours=ours)
        assert "irqbalance_kept_off" in found(tuned(irqbalance=named))

    def test_drop_in_that_is_read_after_ours(self) -> None:
        later = "/etc/systemd/system/irqbalance.service.d/zz.conf"
        overridden = BALANCER._replace(exec_start="/usr/sbin/irqbalance -o", later_drop_in=later, own_drop_in=True)
        finding = found(tuned(irqbalance=overridden))["irqbalance_may_move"]
        assert finding.summary == "irqbalance runs and may move the card's interrupt at its next pass"
        assert finding.evidence[later] == "ExecStart=/usr/sbin/irqbalance -o"
        assert finding.remedy.startswith("Add --policyscript=%s to ExecStart= in %s" % (hosts.OUR_POLICY, later))

    @pytest.mark.parametrize("later", [None, "/etc/systemd/system/irqbalance.service.d/zz.conf"])
    def test_policy_that_is_lost_at_the_next_start(self, later: Optional[str]) -> None:
        """The drop-in has been overridden or removed, and the process has not been started again yet."""
        running = BALANCER._replace(policy_script=hosts.OUR_POLICY, exec_start="x", later_drop_in=later)
        finding = found(tuned(irqbalance=running))["irqbalance_may_move"]
        assert finding.summary.startswith("irqbalance leaves the card alone now, but may move its interrupt once")
        assert finding.remedy.startswith("Add --policyscript" if later else "Run the role irq_affinity")

    def test_started_by_hand_with_our_policy(self) -> None:
        by_hand = BALANCER._replace(policy_script=hosts.OUR_POLICY)
        assert "irqbalance_kept_off" in found(tuned(irqbalance=by_hand))

    @pytest.mark.parametrize("running", [False, None])
    def test_not_running(self, running: Optional[bool]) -> None:
        idle = BALANCER._replace(running=running, pid=None)
        assert not [name for name in found(tuned(irqbalance=idle)) if name.startswith("irqbalance")]

    def test_without_a_card_it_may_do_as_it_likes(self) -> None:
        lonely = tuned(irqbalance=BALANCER, wishes={})._replace(devices=(hosts.port(),))
        assert set(found(lonely)) == {"card_missing"}


class TestClocks:
    def test_slow_cpus_may_drop_theirs(self) -> None:
        assert "clock_drops" not in found(tuned(policies=(policy(0, range(4), "schedutil", max_khz=408000),)))

    def test_equally_fast_cpus(self) -> None:
        snapshot = tuned(cpus=hosts.cpus([1024] * 4), policies=(policy(0, range(4), "schedutil"),))
        assert "clock_drops" in found(snapshot)

    def test_offline(self) -> None:
        gone = policy(4, (4,), None, all_offline=True, max_khz=None)
        assert not [name for name in found(tuned(policies=(gone,))) if name.startswith("clock")]

    def test_limits_not_known(self) -> None:
        for unknown in ({"max_khz": None}, {"hw_max_khz": None}):
            assert "clock_capped" not in found(tuned(policies=(policy(4, (4, 5), **unknown),)))


class TestVerdict:
    @staticmethod
    def finding(severity: str, summary: str = "it burns", name: str = "x") -> Finding:
        return Finding(name, severity, summary, {}, "", None)

    def test_broken(self) -> None:
        lines = [self.finding(WARNING, "later"), self.finding(CRITICAL)]
        assert verdict(lines) == "Broken: it burns"

    @pytest.mark.parametrize("name", ["card_unbound", "clock_drops", "link_degraded", "mrrs_unusual"])
    def test_one_thing(self, name: str) -> None:
        slow = self.finding(WARNING, name=name)
        assert verdict([slow, self.finding(OK)]) == "Not as fast as it can be: 1 thing to do"

    def test_what_costs_no_speed(self) -> None:
        assert verdict([self.finding(WARNING), self.finding(OK)]) == "As fast as it can be, but 1 thing to do"

    @pytest.mark.parametrize("severity", [OK, INFO])
    def test_fine(self, severity: str) -> None:
        assert verdict([self.finding(severity)]) == verdict([]) == "As fast as it can be"
