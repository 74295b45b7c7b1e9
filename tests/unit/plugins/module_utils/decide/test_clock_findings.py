# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clocks, heat, sleep, who undoes the tuning, interrupts that move: each said where it is so, and not elsewhere."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.expected_gain import verdict
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import Snapshot, findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import INFO, WARNING, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpuidle import Idle, IdleState
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.devfreq import Devfreq
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.irqbalance import Irqbalance
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import Msi
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.services import Service, Services
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.thermal import Cooling, Thermal, Trip, Zone
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.decide.test_findings import (
    BALANCER,
    found,
    policy,
    tuned,
)

HEAT = "/sys/class/thermal/"
CPUFREQ = "/sys/devices/system/cpu/cpufreq/"
BIG = ("policy4", "policy6")
RK3588 = ("friendlyelec,cm3588-nas", "rockchip,rk3588")
WANTS = "/etc/systemd/system/multi-user.target.wants/"
UNIT = "/etc/systemd/system/edgenpu-tuning.service"


def cooled(kind: str = "cpufreq-cpu4", state: Optional[int] = 3, cpu: Optional[int] = 4, degrees: int = 76) -> Thermal:
    """Return one cooling device with the zone that orders it."""
    path = HEAT + "thermal_zone1"
    trips = (
        Trip(path + "/trip_point_2_temp", "critical", 50000),
        Trip(path + "/trip_point_1_temp", "passive", 85000),
        Trip(path + "/trip_point_0_temp", "passive", 75000),
    )
    device = HEAT + "cooling_device0"
    return Thermal(
        (Cooling(device, kind, cpu, state, 8),),
        (Zone(path, "bigcore0-thermal", 1000 * degrees, trips, (device,)),),
    )


HOT = {
    HEAT + "cooling_device0/type": "cpufreq-cpu4",
    HEAT + "cooling_device0/cur_state": "3 of 8",
    HEAT + "thermal_zone1/temp": 76000,
    HEAT + "thermal_zone1/trip_point_0_temp": 75000,
    HEAT + "thermal_zone1/trip_point_1_temp": 85000,
}
CAP = {CPUFREQ + "policy4/scaling_max_freq": 1800000, CPUFREQ + "policy4/cpuinfo_max_freq": 2400000}


def clocks(governor: str = "performance", **more: Any) -> Dict[str, Any]:
    """Return the policies of a CM3588; GOVERNOR and MORE are of the two fast ones."""
    slow = policy(0, range(4), "schedutil")
    return {"policies": (slow, policy(4, (4, 5), governor, **more), policy(6, (6, 7), governor, **more))}


def governors(governor: str) -> Dict[str, Any]:
    return {CPUFREQ + name + "/scaling_governor": governor for name in BIG}


def service(unit: str, *sets: Tuple[str, str, Tuple[str, ...]], told: bool = True) -> Services:
    return Services((Service(unit, WANTS + unit, tuple(sets) if told else None),))


CPUFREQUTILS = service("cpufrequtils.service", ("/etc/default/cpufrequtils", "GOVERNOR=ondemand", ("ondemand",)))
MINE = service("my-governor.service", told=False)


def sleeping(
    latency_us: int = 220, disabled: Optional[bool] = False, limit_us: Optional[int] = None
) -> Dict[int, Idle]:
    base = "/sys/devices/system/cpu/cpu4/cpuidle/"
    shallow = IdleState(base + "state0", "WFI", 1, False)
    return {4: Idle((shallow, IdleState(base + "state1", "cpu-sleep", latency_us, disabled)), limit_us)}


def board(**more: Any) -> Snapshot:
    """Return a tuned CM3588 that says which board it is."""
    plain = tuned()
    return plain._replace(host=plain.host._replace(compatible=RK3588), **more)


DMC = Devfreq("dmc", "dmc_ondemand", 534000000, 528000000, 2400000000)
NPU = Devfreq("fdab0000.npu", "rknpu_ondemand", 300000000, 300000000, 1000000000)


class Case(NamedTuple):
    """A host with one thing amiss, what is said of it, and the same host where it is not amiss."""

    id: str
    severity: str
    snapshot: Callable[[], Snapshot]
    summary: str
    evidence: Dict[str, Any]
    role: Optional[str]
    healthy: Callable[[], Snapshot]


CASES = [
    Case(
        "clock_capped",
        WARNING,
        lambda: tuned(thermal=cooled(), policies=(policy(4, (4, 5), max_khz=1800000),)),
        "policy4 (CPUs 4-5) is capped at 1800 MHz of 2400 by heat",
        {**CAP, **HOT},
        None,
        lambda: tuned(thermal=cooled(state=0, degrees=50)),
    ),
    Case(
        "host_throttled",
        WARNING,
        lambda: tuned(thermal=cooled()),
        "heat slows the CPUs down: cpufreq-cpu4 is at 3 of 8",
        HOT,
        None,
        lambda: tuned(thermal=cooled("cpufreq-cpu0", cpu=0)),
    ),
    Case(
        "host_throttled",
        WARNING,
        lambda: tuned(thermal=Thermal(firmware=("/sys/fw", 0x50005))),
        "the firmware slows the CPUs down or lacks voltage now: under-voltage, throttled",
        {"/sys/fw": "50005"},
        None,
        lambda: tuned(thermal=Thermal(firmware=("/sys/fw", 0))),
    ),
    Case(
        "throttled_before",
        INFO,
        lambda: tuned(thermal=Thermal(firmware=("/sys/fw", 0xA0000))),
        "since boot the firmware has seen: clock capped, soft temperature limit; not now",
        {"/sys/fw": "a0000"},
        None,
        lambda: tuned(thermal=Thermal(firmware=("/sys/fw", 0))),
    ),
    Case(
        "throttled_before",
        INFO,
        lambda: tuned(thermal=Thermal(throttled={0: 0, 1: 3, 2: 17})),
        "CPUs 1-2 have been slowed down by heat since boot, up to 17 times",
        {
            "/sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "3",
            "/sys/devices/system/cpu/cpu2/thermal_throttle/core_throttle_count": "17",
        },
        None,
        lambda: tuned(thermal=Thermal(throttled={0: 0, 1: 0})),
    ),
    Case(
        "temperature_near_limit",
        INFO,
        lambda: tuned(thermal=cooled(state=0, degrees=70)),
        "bigcore0-thermal is at 70.0 degrees; from 75.0 on the kernel slows the CPUs down",
        {HEAT + "thermal_zone1/temp": 70000, HEAT + "thermal_zone1/trip_point_0_temp": 75000},
        None,
        lambda: tuned(thermal=cooled(state=0, degrees=69)),
    ),
    Case(
        "idle_states_deep",
        INFO,
        lambda: tuned(idle=sleeping()),
        "CPU 4, which serves the card, may sleep in a state that takes up to 220 us to leave",
        {"/sys/devices/system/cpu/cpu4/cpuidle/state1/latency": "220 us (cpu-sleep)"},
        None,
        lambda: tuned(idle=sleeping(disabled=True)),
    ),
    Case(
        "devfreq_drops",
        INFO,
        lambda: board(devfreq=(DMC, NPU, Devfreq("fb000000.gpu", "simple_ondemand", 1, 1, 2))),
        "the clock of memory (dmc_ondemand) and the board's own NPU (rknpu_ondemand) follows the load",
        {
            "/sys/class/devfreq/dmc/governor": "dmc_ondemand",
            "/sys/class/devfreq/dmc/cur_freq": 534000000,
            "/sys/class/devfreq/fdab0000.npu/governor": "rknpu_ondemand",
            "/sys/class/devfreq/fdab0000.npu/cur_freq": 300000000,
        },
        None,
        lambda: board(devfreq=(DMC._replace(governor="performance"),)),
    ),
    Case(
        "clock_not_kept",
        INFO,
        lambda: tuned(wishes={"irq_affinity": {}}),
        "the clocks are held now, but nothing known here keeps them so: a reboot loses it, unless performance is the "
        "kernel's own default",
        {**governors("performance"), "/etc/edgenpu-tuning/wishes.d": ["irq_affinity"]},
        "governor",
        lambda: tuned(
            wishes={"irq_affinity": {}},
            services=service("tlp.service", ("/etc/tlp.conf", "X=performance", ("performance",))),
        ),
    ),
    Case(
        "clock_conflict",
        INFO,
        lambda: tuned(services=CPUFREQUTILS),
        "cpufrequtils.service is enabled and sets the CPU clocks its own way; just now they are as wished",
        {
            WANTS + "cpufrequtils.service": "enabled",
            "/etc/default/cpufrequtils": "GOVERNOR=ondemand",
            **governors("performance"),
        },
        "governor",
        lambda: tuned(wishes={"irq_affinity": {}}, services=CPUFREQUTILS),
    ),
    Case(
        "clock_conflict",
        WARNING,
        lambda: tuned(services=MINE, **clocks("ondemand")),
        "my-governor.service is enabled and may set the CPU clocks its own way, and they are not as wished",
        {WANTS + "my-governor.service": "enabled", **governors("ondemand")},
        "governor",
        lambda: tuned(services=service("tlp.service"), **clocks("ondemand")),
    ),
    Case(
        "agent_off",
        WARNING,
        lambda: tuned(services=Services(own={UNIT: "masked"})),
        "wishes are kept on this host (governor, irq_affinity), but part of what puts them in force is masked",
        {UNIT: "masked"},
        "irq_affinity",
        lambda: tuned(wishes={}, services=Services(own={UNIT: "masked"})),
    ),
    Case(
        "interrupt_moving",
        WARNING,
        lambda: tuned(arrived={38: {0: 2, 1: 0, 4: 60}}),
        "interrupt 38 of 0003:31:00.0 came on CPU 0 while the kernel had it on CPU 4: something moves it",
        {
            "/proc/irq/38/effective_affinity_list": "4",
            "new counts between two readings, by CPU": {0: 2, 4: 60},
        },
        None,
        lambda: tuned(arrived={38: {0: 0, 4: 60}}),
    ),
    Case(
        "interrupt_undone",
        WARNING,
        lambda: tuned(irqbalance=BALANCER, interrupts=hosts.interrupts(hosts.interrupt(38, "0-7", "2"))),
        "interrupt 38 of 0003:31:00.0 is on CPU 2, though CPUs 4-7 are wished for: irqbalance runs without our policy "
        "and has probably moved it",
        {
            "/etc/edgenpu-tuning/wishes.d/irq_affinity.json": "CPUs 4-7",
            "/proc/irq/38/smp_affinity_list": "0-7",
            "/proc/irq/38/effective_affinity_list": "2",
            "irqbalance": "--foreground",
        },
        "irq_affinity",
        lambda: tuned(irqbalance=BALANCER),
    ),
    Case(
        "msi_vectors_few",
        INFO,
        lambda: tuned(hosts.card(msi=Msi(True, 4, 2))),
        "0003:31:00.0 was granted 2 of the 4 MSI vectors that it can have",
        {"/sys/bus/pci/devices/0003:31:00.0/config": "MSI 2 of 4 vectors"},
        None,
        lambda: tuned(hosts.card(msi=Msi(True, 4, 1))),
    ),
    Case(
        "msi_off",
        INFO,
        lambda: tuned(hosts.card(irqs=(), legacy_irq=38, msi=Msi(False, 4, 0))),
        "0003:31:00.0 can do MSI, but its driver uses the old interrupt line",
        {
            "/sys/bus/pci/devices/0003:31:00.0/config": "MSI 0 of 4 vectors",
            "/sys/bus/pci/devices/0003:31:00.0/irq": 38,
        },
        None,
        lambda: tuned(hosts.card(irqs=(38,), msi=Msi(True, 4, 1))),
    ),
]
NAMES = ["%s-%s-%d" % (case.id, case.severity, at) for at, case in enumerate(CASES)]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_amiss(case: Case) -> None:
    finding = found(case.snapshot())[case.id]
    assert (finding.severity, finding.summary) == (case.severity, case.summary)
    assert finding.evidence == case.evidence
    assert finding.role == case.role
    assert finding.remedy.endswith(".")


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_not_amiss(case: Case) -> None:
    assert case.id not in found(case.healthy())


def test_healthy_tuned_cm3588() -> None:
    """As its vendor's kernel has it: clocks of memory and NPU scale, CPUs sleep, it is warm, others set clocks too."""
    snapshot = board(
        thermal=cooled(state=0, degrees=71),
        devfreq=(DMC, NPU),
        idle=sleeping(),
        services=CPUFREQUTILS,
        arrived={38: {cpu: 900 if cpu == 4 else 0 for cpu in range(8)}},
        irqbalance=BALANCER._replace(policy_script=hosts.OUR_POLICY),
    )
    everything = findings(snapshot)
    assert [one for one in everything if one.severity not in ("ok", "info")] == []
    assert verdict(everything) == "As fast as it can be"
    assert {one.expected_gain for one in everything} == {None}


class TestHeat:
    def test_a_cap_without_heat_is_told_from_one_with(self) -> None:
        capped = found(tuned(thermal=cooled(state=0, degrees=50), policies=(policy(4, (4, 5), max_khz=1800000),)))
        assert capped["clock_capped"].remedy.startswith("It is not heat: ")
        assert capped["clock_capped"].evidence == CAP
        silent = found(tuned(policies=(policy(4, (4, 5), max_khz=1800000),)))
        assert silent["clock_capped"].remedy.startswith("Find who lowered it"), "without thermal zones nobody knows"

    def test_one_cause_is_told_once(self) -> None:
        both = tuned(thermal=cooled(), policies=(policy(4, (4, 5), max_khz=1800000), policy(6, (6, 7))))
        assert "host_throttled" not in found(both)

    def test_old_names_do_not_tell_which_cpus(self) -> None:
        old = tuned(thermal=cooled("thermal-cpufreq-1", cpu=None), policies=(policy(4, (4, 5), max_khz=1800000),))
        assert found(old)["clock_capped"].summary.endswith(" of 2400, probably by heat")

    def test_heat_of_another_cluster_explains_no_cap(self) -> None:
        other = tuned(
            thermal=cooled("cpufreq-cpu6", cpu=6), policies=(policy(4, (4, 5), max_khz=1800000), policy(6, (6, 7)))
        )
        assert not found(other)["clock_capped"].summary.endswith("by heat")
        assert found(other)["host_throttled"].summary == "heat slows the CPUs down: cpufreq-cpu6 is at 3 of 8"

    def test_thermald(self) -> None:
        capped = tuned(services=service("thermald.service", told=False), policies=(policy(4, (4, 5), max_khz=1800000),))
        assert WANTS + "thermald.service" in found(capped)["clock_capped"].evidence
        assert "clock_conflict" not in found(capped)

    @pytest.mark.parametrize("state", [None, 0, -1])
    def test_not_at_work(self, state: Optional[int]) -> None:
        """The powerclamp of older kernels reads -1 while it is off."""
        assert "host_throttled" not in found(tuned(thermal=cooled("intel_powerclamp", state, None, 40)))

    @pytest.mark.parametrize("kind", ["critical", "hot", "active"])
    def test_only_passive_trips_count(self, kind: str) -> None:
        thermal = cooled(state=0, degrees=74)
        [zone] = thermal.zones
        zone = zone._replace(trips=(Trip("x", kind, 75000), Trip("y", "passive", -274000)))
        assert "temperature_near_limit" not in found(tuned(thermal=thermal._replace(zones=(zone,))))

    def test_temperature_not_known(self) -> None:
        thermal = cooled(state=0)
        zones = tuple(zone._replace(temperature_mc=None) for zone in thermal.zones)
        assert "temperature_near_limit" not in found(tuned(thermal=thermal._replace(zones=zones)))

    def test_above_the_limit_it_is_no_news(self) -> None:
        assert "temperature_near_limit" not in found(tuned(thermal=cooled(degrees=80)))


class TestSleep:
    @pytest.mark.parametrize(
        ("idle", "expected"),
        [
            (sleeping(100), True),
            (sleeping(99), False),
            (sleeping(limit_us=220), True),
            (sleeping(limit_us=219), False),
            (sleeping(limit_us=0), False),
            (sleeping(disabled=None), False),
            ({5: sleeping()[4]}, False),
            ({}, False),
        ],
    )
    def test_which_states_count(self, idle: Dict[int, Idle], expected: bool) -> None:
        assert ("idle_states_deep" in found(tuned(idle=idle))) is expected


class TestOtherClocks:
    @pytest.mark.parametrize(
        ("device", "expected"),
        [
            (DMC, True),
            (DMC._replace(governor="userspace"), True),
            (DMC._replace(governor="userspace", current_hz=2400000000), False),
            (DMC._replace(current_hz=2400000000), True),
            (DMC._replace(governor="powersave"), True),
            (DMC._replace(governor=None), False),
            (DMC._replace(name="fb000000.gpu"), False),
        ],
    )
    def test_which_devices_count(self, device: Devfreq, expected: bool) -> None:
        assert ("devfreq_drops" in found(board(devfreq=(device,)))) is expected

    def test_other_boards(self) -> None:
        assert "devfreq_drops" not in found(tuned(devfreq=(DMC,)))


class TestConflicts:
    @pytest.mark.parametrize(
        ("services", "expected"),
        [
            (service("tlp.service", ("x", "y", ("performance",))), False),
            (service("tuned.service", ("x", "y", ("performance", "ondemand"))), False),
            (service("tuned.service", ("x", "y", ("schedutil", "performance"))), True),
            (service("tlp.service", ("x", "AC", ("performance",)), ("x", "BAT", ("powersave",))), True),
            (service("auto-cpufreq.service", told=False), True),
            (service("power-profiles-daemon.service", told=False), False),
            (service("thermald.service", told=False), False),
        ],
    )
    def test_who_would_set_something_else(self, services: Services, expected: bool) -> None:
        assert ("clock_conflict" in found(tuned(services=services))) is expected

    @pytest.mark.parametrize("driver", ["intel_pstate", "amd-pstate-epp"])
    def test_power_profiles(self, driver: str) -> None:
        there = tuned(services=service("power-profiles-daemon.service", told=False), **clocks(driver=driver))
        assert "clock_conflict" in found(there)

    def test_one_policy_that_differs_is_enough(self) -> None:
        part = (policy(4, (4, 5)), policy(6, (6, 7), "ondemand"))
        assert found(tuned(services=CPUFREQUTILS, policies=part))["clock_conflict"].severity == WARNING

    def test_culprit_is_named_by_both(self) -> None:
        """Two findings with one remedy are one thing to do."""
        seen = found(tuned(services=CPUFREQUTILS, **clocks("ondemand")))
        assert seen["clock_drops"].remedy == seen["clock_conflict"].remedy
        assert seen["clock_drops"].remedy.startswith(
            "Let cpufrequtils.service set performance (/etc/default/cpufrequtils), or switch it off"
        )
        assert verdict(list(seen.values())) == "Not as fast as it can be: 1 thing to do"

    @pytest.mark.parametrize("fast", ["schedutil", "keep"])
    def test_another_governor_that_was_wished_for(self, fast: str) -> None:
        wishes = {"irq_affinity": {}, "governor": {"fast": fast}}
        seen = found(tuned(wishes=wishes, services=CPUFREQUTILS, **clocks("schedutil")))
        assert seen["clock_drops"].severity == INFO
        assert seen["clock_drops"].remedy.startswith("It is what governor_fast asks for")
        assert ("clock_conflict" in seen) is (fast == "schedutil")

    def test_wished_for_and_not_there(self) -> None:
        wishes = {"irq_affinity": {}, "governor": {"fast": "schedutil"}}
        assert found(tuned(wishes=wishes, **clocks("ondemand")))["clock_drops"].severity == WARNING

    def test_agent_without_systemd(self) -> None:
        snapshot = tuned(services=Services(own={UNIT: "missing"}))
        assert "agent_off" not in found(snapshot._replace(host=snapshot.host._replace(systemd=False)))

    def test_agent_that_is_whole(self) -> None:
        assert "agent_off" not in found(tuned())


class TestKept:
    def test_not_held_by_all(self) -> None:
        part = (policy(4, (4, 5)), policy(6, (6, 7), "schedutil"))
        assert "clock_not_kept" not in found(tuned(wishes={"irq_affinity": {}}, policies=part))

    def test_no_clocks_at_all(self) -> None:
        assert "clock_not_kept" not in found(tuned(wishes={"irq_affinity": {}}, policies=()))


class TestInterrupts:
    @staticmethod
    def undone(balancer: Irqbalance, wishes: Dict[str, Any], effective: str = "2", **more: Any) -> Optional[Finding]:
        one = hosts.interrupt(38, "0-7", effective)._replace(**more)
        return found(tuned(irqbalance=balancer, wishes=wishes, interrupts=hosts.interrupts(one))).get(
            "interrupt_undone"
        )

    def test_others_may_have_a_reason(self) -> None:
        assert self.undone(BALANCER, {"irq_affinity": {}}) is not None
        assert self.undone(BALANCER, {}) is None, "nothing is wished for"
        assert self.undone(BALANCER._replace(running=False), {"irq_affinity": {}}) is None
        assert self.undone(BALANCER._replace(policy_script=hosts.OUR_POLICY), {"irq_affinity": {}}) is None
        assert self.undone(BALANCER._replace(policy_script="/etc/mine"), {"irq_affinity": {}}) is None
        later = BALANCER._replace(policy_script=hosts.OUR_POLICY, exec_start="/usr/sbin/irqbalance")
        assert self.undone(later, {"irq_affinity": {}}) is None, "only from its next start on"

    def test_cpus_asked_for_by_name(self) -> None:
        assert self.undone(BALANCER, {"irq_affinity": {"cpus": "2-3"}}) is None
        assert self.undone(BALANCER, {"irq_affinity": {"cpus": "4"}}, "5") is not None

    def test_interrupt_that_nobody_moves(self) -> None:
        assert self.undone(BALANCER, {"irq_affinity": {}}, chip="PCI-MSI") is None

    def test_move_that_waits_for_the_next_interrupt(self) -> None:
        waiting = hosts.interrupt(38, "4", "2")._replace(chip="PCI-MSI-0000:03:00.0")
        snapshot = tuned(irqbalance=BALANCER, interrupts=hosts.interrupts(waiting))
        host = snapshot.host._replace(architecture="x86_64")
        assert "interrupt_undone" not in found(snapshot._replace(host=host))

    def test_one_remedy_for_the_daemon(self) -> None:
        seen = found(tuned(irqbalance=BALANCER, interrupts=hosts.interrupts(hosts.interrupt(38, "0-7", "2"))))
        assert seen["interrupt_undone"].remedy == seen["irqbalance_may_move"].remedy
        assert verdict(list(seen.values())) == "Not as fast as it can be: 1 thing to do"

    @pytest.mark.parametrize("effective", ["", None])
    def test_kernel_that_does_not_say_where(self, effective: Optional[str]) -> None:
        one = hosts.interrupt(38, "4", effective)
        assert "interrupt_moving" not in found(tuned(interrupts=hosts.interrupts(one), arrived={38: {0: 9}}))

    def test_history_is_no_movement(self) -> None:
        """Counts of before the tuning stay where they were made."""
        one = hosts.interrupt(38, "4", "4")._replace(counts={0: 100000, 4: 3})
        assert "interrupt_moving" not in found(tuned(interrupts=hosts.interrupts(one)))

    @pytest.mark.parametrize("msi", [None, Msi(True, 4, 4), Msi(True, 1, 1)])
    def test_vectors(self, msi: Optional[Msi]) -> None:
        assert not {"msi_vectors_few", "msi_off"} & set(found(tuned(hosts.card(msi=msi))))

    def test_msix_instead(self) -> None:
        card = hosts.card(irqs=(), legacy_irq=38, msi=Msi(False, 4, 0), msix=Msi(True, 8, 8))
        assert "msi_off" not in found(tuned(card))

    def test_nothing_is_said_of_a_dead_card(self) -> None:
        assert "msi_vectors_few" not in found(tuned(hosts.card(alive=False, msi=Msi(True, 4, 2))))


def ids(snapshot: Snapshot) -> List[str]:
    return [one.id for one in findings(snapshot)]


def test_hosts_without_a_card_are_left_in_peace() -> None:
    bare = board(thermal=cooled(), devfreq=(DMC,), services=CPUFREQUTILS)._replace(devices=(hosts.port(),))
    assert ids(bare) == ["card_missing"]
