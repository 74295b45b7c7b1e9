# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Heat, other clocks, sleep states, and the services that set clocks, read from small trees."""

from __future__ import annotations

import pathlib
from typing import Dict, Optional

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import persist
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import services
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpuidle import read_idle
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.devfreq import Devfreq, read_devfreq
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import read_arrivals, read_interrupts
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.services import parse_sections, read_services
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.thermal import Cooling, Thermal, Trip, read_thermal
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

HEAT = "/sys/class/thermal/"
SYSTEM = "/etc/systemd/system/"


@pytest.fixture(name="tree")
def fixture_tree(tmp_path: pathlib.Path) -> Tree:
    return Tree(tmp_path)


def cooling(tree: Tree, number: int, kind: str, state: str) -> None:
    tree.files(HEAT + "cooling_device%d" % number, {"type": kind, "cur_state": state, "max_state": "8"})


def zone(tree: Tree, number: int, kind: str, temperature: str, bound: int) -> str:
    path = HEAT + "thermal_zone%d" % number
    trips = {"trip_point_0_type": "passive", "trip_point_0_temp": "75000", "trip_point_0_hyst": "2000"}
    trips.update({"trip_point_1_type": "critical", "trip_point_1_temp": "115000"})
    tree.files(path, dict(trips, type=kind, temp=temperature, cdev0_trip_point="0", cdev0_weight="100"))
    tree.link(path + "/cdev0", "../cooling_device%d" % bound)
    return path


class TestThermal:
    def test_rk3588(self, tree: Tree) -> None:
        cooling(tree, 0, "cpufreq-cpu4", "3")
        cooling(tree, 1, "pwm-fan", "2")
        path = zone(tree, 0, "bigcore0-thermal", "76153", 0)
        zone(tree, 1, "gpu-thermal", "50000", 1)
        found = read_thermal(tree.root, [0, 1])
        assert found.cooling == (Cooling(HEAT + "cooling_device0", "cpufreq-cpu4", 4, 3, 8),)
        [one] = found.zones
        assert (one.path, one.kind, one.temperature_mc) == (path, "bigcore0-thermal", 76153)
        assert one.trips == (
            Trip(path + "/trip_point_0_temp", "passive", 75000),
            Trip(path + "/trip_point_1_temp", "critical", 115000),
        )
        assert one.cooling == (HEAT + "cooling_device0",)

    def test_sensors_that_slow_no_cpu_are_left_asleep(self, tree: Tree) -> None:
        """Reading a sensor may wake what it is in: the temperature of such a zone is never asked for."""
        cooling(tree, 0, "cpufreq-cpu0", "0")
        path = zone(tree, 0, "nvme", "40000", 5)
        (tree.path / (path + "/temp").lstrip("/")).unlink()
        (tree.path / (path + "/temp").lstrip("/")).mkdir()  # whoever reads it fails
        assert read_thermal(tree.root, []).zones == ()
        assert tree.root.unread == []

    @pytest.mark.parametrize(
        ("kind", "cpu"),
        [("thermal-cpufreq-1", None), ("Processor", None), ("intel_powerclamp", None), ("idle-cpu2", 2)],
    )
    def test_other_names(self, tree: Tree, kind: str, cpu: Optional[int]) -> None:
        cooling(tree, 0, kind, "1")
        assert [one.cpu for one in read_thermal(tree.root, []).cooling] == [cpu]

    @pytest.mark.parametrize("kind", ["", "thermal-devfreq-0", "TCC Offset", "Fan", "cpufreq-cpu"])
    def test_what_slows_no_cpu(self, tree: Tree, kind: str) -> None:
        cooling(tree, 0, kind, "1")
        assert read_thermal(tree.root, []) == Thermal()

    def test_damaged(self, tree: Tree) -> None:
        tree.files(HEAT + "cooling_device0", {"type": "cpufreq-cpu0", "cur_state": "many"})
        path = zone(tree, 0, "cpu", "hot", 0)
        tree.files(path, {"trip_point_0_temp": "?", "trip_point_1_type": ""})
        found = read_thermal(tree.root, [])
        assert (found.cooling[0].state, found.cooling[0].max_state) == (None, None)
        assert (found.zones[0].temperature_mc, found.zones[0].trips) == (None, ())

    def test_counters(self, tree: Tree) -> None:
        for cpu, count in ((0, "0"), (1, "17")):
            tree.files("/sys/devices/system/cpu/cpu%d/thermal_throttle" % cpu, {"core_throttle_count": count})
        assert read_thermal(tree.root, [0, 1, 2]).throttled == {0: 0, 1: 17}

    def test_firmware_of_a_raspberry_pi(self, tree: Tree) -> None:
        path = "/sys/devices/platform/soc/soc:firmware/get_throttled"
        tree.file(path, "50005\n")
        assert read_thermal(tree.root, []).firmware is None, "no Raspberry Pi"
        tree.file("/proc/device-tree/compatible", b"raspberrypi,4-model-b\0brcm,bcm2711\0")
        assert read_thermal(tree.root, []).firmware == (path, 0x50005)

    def test_nothing(self, tree: Tree) -> None:
        assert read_thermal(tree.root, [0]) == Thermal()


def test_devfreq(tree: Tree) -> None:
    assert read_devfreq(tree.root) == ()
    numbers = {"cur_freq": "534000000", "min_freq": "528000000", "max_freq": "2400000000"}
    tree.files("/sys/class/devfreq/dmc", dict(numbers, governor="dmc_ondemand"))
    tree.files("/sys/class/devfreq/fdab0000.npu", {"governor": "rknpu_ondemand"})
    assert read_devfreq(tree.root) == (
        Devfreq("dmc", "dmc_ondemand", 534000000, 528000000, 2400000000),
        Devfreq("fdab0000.npu", "rknpu_ondemand", None, None, None),
    )


class TestIdle:
    @pytest.mark.parametrize(("text", "limit_us"), [("0", None), ("n/a", 0), ("50", 50), ("", None), ("x", None)])
    def test_states(self, tree: Tree, text: str, limit_us: Optional[int]) -> None:
        base = "/sys/devices/system/cpu/cpu4/"
        tree.files(base + "cpuidle/state0", {"name": "WFI", "latency": "1", "disable": "0"})
        tree.files(base + "cpuidle/state1", {"name": "cpu-sleep", "latency": "220", "disable": "1"})
        tree.files(base + "power", {"pm_qos_resume_latency_us": text})
        found = read_idle(tree.root, [3, 4])
        assert list(found) == [4]
        assert [(one.name, one.latency_us, one.disabled) for one in found[4].states] == [
            ("WFI", 1, False),
            ("cpu-sleep", 220, True),
        ]
        assert found[4].limit_us == limit_us


class TestServices:
    @staticmethod
    def enable(tree: Tree, unit: str, directory: str = SYSTEM + "multi-user.target.wants") -> None:
        tree.file("/usr/lib/systemd/system/" + unit, "[Service]\n")
        tree.link("%s/%s" % (directory, unit), "/usr/lib/systemd/system/" + unit)

    @pytest.mark.parametrize(
        "unit", ["tuned.service", "power-profiles-daemon.service", "ax650n-optimize.service", "my-governor.service"]
    )
    def test_enabled(self, tree: Tree, unit: str) -> None:
        self.enable(tree, unit)
        [one] = read_services(tree.root, False).clocks
        assert (one.unit, one.enabled_by, one.sets) == (unit, SYSTEM + "multi-user.target.wants/" + unit, None)

    def test_by_the_vendor(self, tree: Tree) -> None:
        self.enable(tree, "ondemand.service", "/usr/lib/systemd/system/multi-user.target.wants")
        assert [one.unit for one in read_services(tree.root, False).clocks] == ["ondemand.service"]

    def test_not_enabled(self, tree: Tree) -> None:
        tree.file("/usr/lib/systemd/system/tuned.service")
        self.enable(tree, "ssh.service")
        self.enable(tree, "edgenpu-tuning-scaling.service")
        assert read_services(tree.root, False).clocks == ()

    def test_removed_package(self, tree: Tree) -> None:
        tree.link(SYSTEM + "multi-user.target.wants/tuned.service", "/usr/lib/systemd/system/tuned.service")
        assert read_services(tree.root, False).clocks == ()

    def test_masked(self, tree: Tree) -> None:
        self.enable(tree, "tuned.service")
        tree.link(SYSTEM + "tuned.service", "/dev/null")
        assert read_services(tree.root, False).clocks == ()

    def test_system_v(self, tree: Tree) -> None:
        tree.file("/etc/init.d/cpufrequtils")
        tree.link("/etc/rc3.d/S01cpufrequtils", "../init.d/cpufrequtils")
        tree.link("/etc/rc3.d/K01tuned", "../init.d/cpufrequtils")
        [one] = read_services(tree.root, False).clocks
        assert (one.unit, one.enabled_by) == ("cpufrequtils.service", "/etc/rc3.d/S01cpufrequtils")

    @pytest.mark.parametrize(
        ("text", "governors"),
        [
            (None, ("ondemand",)),
            ("GOVERNOR=performance\n", ("performance",)),
            ('ENABLE="true"\nGOVERNOR="schedutil"\n', ("schedutil",)),
            ("ENABLE=false\nGOVERNOR=schedutil\n", None),
        ],
    )
    def test_cpufrequtils(self, tree: Tree, text: Optional[str], governors: Optional[tuple[str, ...]]) -> None:
        self.enable(tree, "cpufrequtils.service")
        if text is not None:
            tree.file("/etc/default/cpufrequtils", text)
        [one] = read_services(tree.root, False).clocks
        assert one.sets is not None
        assert [values for _path, _line, values in one.sets] == ([] if governors is None else [governors])

    def test_tlp(self, tree: Tree) -> None:
        self.enable(tree, "tlp.service")
        tree.file("/etc/tlp.conf", "#CPU_SCALING_GOVERNOR_ON_AC=powersave\nTLP_ENABLE=1\n")
        assert read_services(tree.root, False).clocks[0].sets == ()
        tree.file("/etc/tlp.d/10-mine.conf", "CPU_SCALING_GOVERNOR_ON_AC=powersave\n")
        [one] = read_services(tree.root, False).clocks
        assert one.sets == (("/etc/tlp.d/10-mine.conf", "CPU_SCALING_GOVERNOR_ON_AC=powersave", ("powersave",)),)

    @pytest.mark.parametrize(
        ("path", "text", "governors"),
        [
            ("/etc/default/cpupower", "#governor='ondemand'\n", []),
            ("/etc/default/cpupower", "governor='ondemand'\n", [("ondemand",)]),
            ("/etc/sysconfig/cpupower", 'CPUPOWER_START_OPTS="frequency-set -g schedutil"\n', [("schedutil",)]),
        ],
    )
    def test_cpupower(self, tree: Tree, path: str, text: str, governors: list[tuple[str, ...]]) -> None:
        self.enable(tree, "cpupower.service")
        tree.file(path, text)
        [one] = read_services(tree.root, False).clocks
        assert [values for _path, _line, values in one.sets or ()] == governors

    @pytest.mark.parametrize(
        ("profiles", "sets"),
        [
            ({"mine": "[cpu]\ngovernor=schedutil|ondemand # first\n"}, ("schedutil", "ondemand")),
            (
                {"mine": "[main]\ninclude=base\n[sysctl]\nx=1\n", "base": "[cpu]\ngovernor = powersave\n"},
                ("powersave",),
            ),
            (
                {"mine": "[main]\ninclude=base\n[cpu]\ngovernor=performance\n", "base": "[cpu]\ngovernor=x\n"},
                ("performance",),
            ),
            ({"mine": "[sysctl]\ngovernor=schedutil\n"}, None),
            ({"mine": "[main]\ninclude=gone\n"}, "unknown"),
            ({"mine": "[main]\ninclude=mine\n"}, "unknown"),
            ({}, "unknown"),
        ],
    )
    def test_tuned(self, tree: Tree, profiles: Dict[str, str], sets: object) -> None:
        self.enable(tree, "tuned.service")
        tree.file("/etc/tuned/active_profile", "mine\n")
        for name, text in profiles.items():
            tree.file("/usr/lib/tuned/%s/tuned.conf" % name, text)
        [one] = read_services(tree.root, False).clocks
        if sets == "unknown":
            assert one.sets is None
        elif sets is None:
            assert one.sets == ()
        else:
            assert one.sets is not None
            assert [values for _path, _line, values in one.sets] == [sets]

    def test_profile_that_leads_elsewhere(self, tree: Tree) -> None:
        self.enable(tree, "tuned.service")
        tree.file("/etc/tuned/active_profile", "../../home/me\n")
        tree.file("/usr/lib/tuned/.keep")
        tree.file("/usr/home/me/tuned.conf", "[cpu]\ngovernor=schedutil\n")
        assert read_services(tree.root, False).clocks[0].sets is None

    def test_own(self, tree: Tree) -> None:
        for path in services.OWN:
            tree.file(path, "x")
        assert read_services(tree.root, True).own == {}
        unit, enabled = tree.path / services.OWN[0].lstrip("/"), tree.path / services.OWN[1].lstrip("/")
        enabled.unlink()
        unit.unlink()
        unit.symlink_to("/dev/null")
        assert read_services(tree.root, True).own == {services.OWN[0]: "masked", services.OWN[1]: "missing"}
        assert read_services(tree.root, False).own == {}

    def test_own_is_what_is_installed(self, tree: Tree) -> None:
        shared = persist.shared_files(tree.root, {}, "agent-x")
        assert set(services.OWN) <= set(shared)
        assert {persist.UNIT, persist.ENABLED, persist.LATE_UNIT, persist.LATE_ENABLED} <= set(services.OWN)


def test_sections() -> None:
    text = "# x\na=1\n[ main ]\ninclude = base, more # why\n;b=2\nnothing\n[cpu]\ngovernor=x\n"
    assert parse_sections(text) == {("", "a"): "1", ("main", "include"): "base, more", ("cpu", "governor"): "x"}


class TestArrivals:
    HEADER = "           CPU0       CPU1       CPU4\n"

    def test_between_two_readings(self, tree: Tree) -> None:
        tree.cpus(5, "0-1,4")
        tree.files("/sys/devices/system/cpu", {"possible": "0-4"})
        tree.files("/sys/kernel/irq/38", {"per_cpu_count": "7,0,0,0,100", "chip_name": "ITS-MSI"})
        tree.file("/proc/irq/38/smp_affinity_list", "4\n")
        before = read_interrupts(tree.root, [38])
        tree.file("/proc/interrupts", self.HEADER + " 12:  1  2  3  GIC 4 x\n 38:  8  0  130  ITS-MSI 0 Edge MSI\n")
        assert read_arrivals(tree.root, before) == {38: {0: 1, 1: 0, 4: 30}}

    @pytest.mark.parametrize(
        "text", ["", "38: 1 2 3 ITS-MSI 0 Edge MSI\n", HEADER, "\0\n\0", HEADER + " 39: 1 2 3 x\n"]
    )
    def test_nothing_to_compare_with(self, tree: Tree, text: str) -> None:
        tree.files("/sys/kernel/irq/38", {"per_cpu_count": "7,0", "chip_name": "ITS-MSI"})
        before = read_interrupts(tree.root, [38])
        tree.file("/proc/interrupts", text)
        assert read_arrivals(tree.root, before) == {}

    def test_not_read_where_nothing_was_counted(self, tree: Tree) -> None:
        tree.file("/proc/interrupts/x", "")  # a directory: whoever reads it fails
        assert read_arrivals(tree.root, {}) == {}
        assert tree.root.unread == []
