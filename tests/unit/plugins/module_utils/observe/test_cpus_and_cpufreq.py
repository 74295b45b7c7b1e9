# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import sys
from typing import Any

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import cpufreq, cpus
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import Cpu, Tier
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree, captured

LITTLE = "408000 600000 816000 1008000 1200000 1416000 1608000 1800000"
BIG = LITTLE + " 2016000 2208000 2256000 2304000 2352000 2400000"
GOVERNORS = "conservative ondemand userspace powersave performance schedutil "


def rk3588(tree: Tree, big_khz: tuple[int, int] = (2400000, 2400000), capacities: bool = True) -> None:
    """Make the CPUs of an RK3588 as its vendor kernels show them."""
    tree.cpus(8, "0-7", [414] * 4 + [1024] * 4 if capacities else [])
    policies = ((0, "0 1 2 3", 1800000, LITTLE), (4, "4 5", big_khz[0], BIG), (6, "6 7", big_khz[1], BIG))
    for number, members, highest, frequencies in policies:
        tree.policy(
            number,
            members,
            members,
            {
                "scaling_driver": "cpufreq-dt",
                "scaling_governor": "ondemand",
                "scaling_available_governors": GOVERNORS,
                "scaling_min_freq": "408000",
                "scaling_max_freq": str(highest),
                "cpuinfo_min_freq": "408000",
                "cpuinfo_max_freq": str(highest),
                "scaling_cur_freq": "1008000",
                "scaling_available_frequencies": frequencies + " ",
                "scaling_setspeed": "<unsupported>",
            },
        )


def cpu(number: int, **known: Any) -> Cpu:
    empty = Cpu(number, True, None, None, None, None, None, None, (), False, False)
    return empty._replace(**known)


class TestReadCpus:
    def test_rk3588(self, tree: Tree) -> None:
        rk3588(tree)
        found = cpus.read_cpus(tree.root)
        assert [entry.number for entry in found] == list(range(8))
        assert [entry.capacity for entry in found] == [414] * 4 + [1024] * 4
        assert found[7].max_freq_khz == 2400000
        assert found[5].policy_cpus == (4, 5)
        assert cpus.tiers(found) == (Tier((0, 1, 2, 3), "capacity", 414), Tier((4, 5, 6, 7), "capacity", 1024))

    def test_i7_1370p(self, tree: Tree) -> None:
        tree.listing(captured("sysfs/i7-1370p-cpu.txt"))
        found = cpus.read_cpus(tree.root)
        assert len(found) == 20
        assert all(entry.online and entry.capacity is None for entry in found)
        assert found[3].siblings == (2, 3)
        assert found[12].siblings == (12,)
        assert (found[4].highest_perf, found[4].max_freq_khz) == (67, 5200000)
        assert (found[12].cluster, found[12].package, found[12].max_freq_khz) == (48, 0, 3900000)
        # 64 and 67 are one kind of core
        assert cpus.tiers(found) == (
            Tier(tuple(range(12, 20)), "cppc highest_perf", 39),
            Tier(tuple(range(12)), "cppc highest_perf", 67),
        )

    def test_flags_and_nodes(self, tree: Tree) -> None:
        tree.cpus(4, "0-2")
        tree.files("/sys/devices/system/cpu", {"isolated": "1", "nohz_full": "1-2"})
        tree.files("/sys/devices/system/node/node1", {"cpulist": "2-3"})
        tree.files("/sys/devices/system/cpu/cpu0/topology", {"cluster_id": "-1", "physical_package_id": "0"})
        found = cpus.read_cpus(tree.root)
        assert [entry.isolated for entry in found] == [False, True, False, False]
        assert [entry.nohz_full for entry in found] == [False, True, True, False]
        assert [entry.numa_node for entry in found] == [None, None, 1, 1]
        assert [entry.online for entry in found] == [True, True, True, False]
        assert (found[0].cluster, found[0].package, found[3].package) == (None, 0, None)

    def test_nohz_full_that_is_not_in_use(self, tree: Tree) -> None:
        tree.cpus(2, "0-1")
        tree.files("/sys/devices/system/cpu", {"nohz_full": "(null)"})
        assert not any(entry.nohz_full for entry in cpus.read_cpus(tree.root))

    def test_cpuset_partitions(self, tree: Tree) -> None:
        tree.cpus(4, "0-3")
        tree.files("/sys/devices/system/cpu", {"isolated": "1"})
        tree.file("/sys/fs/cgroup/cpuset.cpus.isolated", "2-3\n")
        assert [entry.isolated for entry in cpus.read_cpus(tree.root)] == [False, True, True, True]
        assert [entry.quiet for entry in cpus.read_cpus(tree.root)] == [False, True, True, True]

    def test_kinds_of_core(self, tree: Tree) -> None:
        """Hybrid x86 where ACPI tells nothing: the PMUs' lists do."""
        tree.cpus(6, "0-5")
        tree.file("/sys/devices/cpu_core/cpus", "0-1\n")
        tree.file("/sys/devices/cpu_atom/cpus", "2-5\n")
        for first in range(6):
            highest = {"cpuinfo_max_freq": "3900000" if first > 1 else "4100000"}
            tree.policy(first, str(first), str(first), highest)
        assert cpus.tiers(cpus.read_cpus(tree.root)) == (
            Tier((2, 3, 4, 5), "core kind", 2),
            Tier((0, 1), "core kind", 3),
        )

    @pytest.mark.parametrize(
        ("table", "big_khz"), [("sbc-bench/rock5b.txt", 2400000), ("sbc-bench/opi5max.txt", 2256000)]
    )
    def test_vendor_kernels_of_rk3588(self, tree: Tree, table: str, big_khz: int) -> None:
        """5.10 calls the clusters packages, 6.1 does not; without capacities the clock tells, whatever it is."""
        rows = [line.split() for line in captured(table).splitlines() if line[:3].strip().isdigit()]
        assert [int(row[0]) for row in rows] == list(range(8))
        tree.cpus(8, "0-7")
        for policy in sorted({int(row[2]) for row in rows}):
            members = [row for row in rows if int(row[2]) == policy]
            listed = " ".join(row[0] for row in members)
            tree.policy(policy, listed, listed, {"cpuinfo_max_freq": members[0][4] + "000"})
        for row in rows:
            tree.files("/sys/devices/system/cpu/cpu%s/topology" % row[0], {"physical_package_id": row[1]})
        assert cpus.tiers(cpus.read_cpus(tree.root)) == (
            Tier((0, 1, 2, 3), "maximum frequency", 1800000),
            Tier((4, 5, 6, 7), "maximum frequency", big_khz),
        )

    def test_capture_without_lists(self, tree: Tree) -> None:
        for number in (10, 2, 0):
            tree.files("/sys/devices/system/cpu/cpu%d" % number, {"online": str(int(number != 2))})
        assert [(entry.number, entry.online) for entry in cpus.read_cpus(tree.root)] == [
            (0, True),
            (2, False),
            (10, True),
        ]

    def test_empty_tree(self, tree: Tree) -> None:
        assert cpus.read_cpus(tree.root) == ()
        assert cpus.tiers(()) == ()


class TestTiers:
    def test_offline_cpu_with_its_capacity(self, tree: Tree) -> None:
        rk3588(tree)
        tree.file("/sys/devices/system/cpu/online", "0-3,5-7\n")
        assert cpus.tiers(cpus.read_cpus(tree.root))[1].cpus == (4, 5, 6, 7)

    def test_offline_cpu_is_known_by_its_policy(self, tree: Tree) -> None:
        rk3588(tree)
        tree.file("/sys/devices/system/cpu/online", "0-3,5-7\n")
        (tree.path / "sys/devices/system/cpu/cpu4/cpu_capacity").unlink()  # newer kernels take it away
        assert cpus.tiers(cpus.read_cpus(tree.root))[1].cpus == (4, 5, 6, 7)

    def test_offline_cpu_of_which_nothing_is_known(self) -> None:
        known = [cpu(0, capacity=400), cpu(1, capacity=1024), cpu(2, online=False)]
        assert cpus.tiers(known) == (Tier((0,), "capacity", 400), Tier((1,), "capacity", 1024))

    def test_measure_that_an_online_cpu_lacks_is_passed_over(self) -> None:
        known = [
            cpu(0, capacity=400, max_freq_khz=1800000),
            cpu(1, capacity=1024, max_freq_khz=1800000),
            cpu(2, max_freq_khz=2400000),
        ]
        assert [(tier.cpus, tier.basis) for tier in cpus.tiers(known)] == [
            ((0, 1), "maximum frequency"),
            ((2,), "maximum frequency"),
        ]

    def test_device_tree_without_capacities(self) -> None:
        """RK3399: every capacity 1024, 1.4 and 1.8 GHz; a limit of 2.2 GHz would find no big core."""
        known = [cpu(number, capacity=1024, max_freq_khz=1416000 if number < 4 else 1800000) for number in range(6)]
        assert cpus.tiers(known) == (
            Tier((0, 1, 2, 3), "maximum frequency", 1416000),
            Tier((4, 5), "maximum frequency", 1800000),
        )

    def test_big_clusters_that_differ_a_little(self, tree: Tree) -> None:
        rk3588(tree, big_khz=(2304000, 2352000), capacities=False)
        assert cpus.tiers(cpus.read_cpus(tree.root)) == (
            Tier((0, 1, 2, 3), "maximum frequency", 1800000),
            Tier((4, 5, 6, 7), "maximum frequency", 2352000),
        )

    def test_three_tiers(self) -> None:
        known = [cpu(number, capacity=value) for number, value in enumerate((1024, 350, 350, 760, 760))]
        assert [tier.cpus for tier in cpus.tiers(known)] == [(1, 2), (3, 4), (0,)]

    def test_equal_cores_ranked_by_a_pc(self) -> None:
        known = [cpu(number, highest_perf=166 + 5 * number) for number in range(14)]
        assert cpus.tiers(known) == (Tier(tuple(range(14)), "single", 231),)

    def test_step_at_the_tolerance(self) -> None:
        assert len(cpus.tiers([cpu(0, capacity=1000), cpu(1, capacity=1100)])) == 1
        assert len(cpus.tiers([cpu(0, capacity=1000), cpu(1, capacity=1101)])) == 2

    def test_nothing_known(self) -> None:
        assert cpus.tiers([cpu(0), cpu(1, online=False)]) == (Tier((0, 1), "single", None),)


class TestCores:
    def test_hybrid(self, tree: Tree) -> None:
        tree.listing(captured("sysfs/i7-1370p-cpu.txt"))
        first = cpus.cores(cpus.read_cpus(tree.root))
        assert [first[number] for number in range(14)] == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 13]

    def test_not_known(self) -> None:
        assert cpus.cores([cpu(0), cpu(1)]) == {0: 0, 1: 1}

    def test_offline_threads(self) -> None:
        """sysfs lists online threads only: the whole core shows where the partner is."""
        known = [
            cpu(0, siblings=(0, 2)),
            cpu(1, online=False),
            cpu(2, siblings=(0, 2)),
            cpu(3, siblings=(3,)),
        ]
        assert cpus.cores(known) == {0: 0, 1: 1, 2: 0, 3: 1}
        known[1], known[3] = cpu(1, siblings=(1,)), cpu(3, online=False)
        assert cpus.cores(known) == {0: 0, 1: 1, 2: 0, 3: 1}

    def test_cores_that_differ_tell_nothing_of_others(self) -> None:
        known = [
            *(cpu(number, siblings=(0, 1)) for number in (0, 1)),
            *(cpu(number, siblings=(2, 6)) for number in (2, 6)),
            cpu(3, siblings=(3,)),
            cpu(4, online=False),
        ]
        assert cpus.cores(known) == {0: 0, 1: 0, 2: 2, 6: 2, 3: 3, 4: 4}

    def test_second_threads_switched_off(self) -> None:
        known = [cpu(0, siblings=(0,)), cpu(1, siblings=(1,)), cpu(2, online=False), cpu(3, online=False)]
        assert cpus.cores(known) == {0: 0, 1: 1, 2: 2, 3: 3}


class BusyRoot(Root):
    """Refuses to read below some directories, as the kernel does for a policy whose CPUs are all offline."""

    busy: tuple[str, ...] = ()

    def data(self, path: str, limit: int = -1) -> bytes | None:
        if path.startswith(self.busy):
            self.unread.append((path, "EBUSY"))
            return None
        return super().data(path, limit)


class TestPolicies:
    def test_rk3588(self, tree: Tree) -> None:
        rk3588(tree)
        policies = cpufreq.read_policies(tree.root)
        assert [policy.name for policy in policies] == ["policy0", "policy4", "policy6"]
        big = policies[1]
        assert (big.cpus, big.affected, big.all_offline) == ((4, 5), (4, 5), False)
        assert (big.driver, big.governor) == ("cpufreq-dt", "ondemand")
        assert big.available_governors == tuple(GOVERNORS.split())
        assert (big.min_khz, big.max_khz, big.hw_min_khz, big.hw_max_khz, big.current_khz) == (
            408000,
            2400000,
            408000,
            2400000,
            1008000,
        )
        assert (len(big.available_khz), big.available_khz[0], big.available_khz[-1]) == (14, 408000, 2400000)
        assert big.epp is None

    def test_i7_1370p(self, tree: Tree) -> None:
        tree.listing(captured("sysfs/i7-1370p-cpu.txt"))
        policies = cpufreq.read_policies(tree.root)
        assert [policy.cpus for policy in policies] == [(number,) for number in range(20)]  # 2 before 10
        assert {(policy.driver, policy.governor, policy.epp) for policy in policies} == {
            ("intel_pstate", "powersave", "balance_performance")
        }
        assert [policy.hw_max_khz for policy in policies] == (
            [5000000] * 4 + [5200000] * 2 + [5000000] * 2 + [5200000] * 2 + [5000000] * 2 + [3900000] * 8
        )
        assert {policy.available_khz for policy in policies} == {()}

    def test_one_cpu_offline(self, tree: Tree) -> None:
        rk3588(tree)
        tree.file("/sys/devices/system/cpu/cpufreq/policy4/affected_cpus", "5 \n")
        policy = cpufreq.read_policies(tree.root)[1]
        assert (policy.cpus, policy.affected, policy.all_offline) == ((4, 5), (5,), False)

    def test_all_offline(self, tree: Tree) -> None:
        rk3588(tree)
        root = BusyRoot(str(tree.path))
        root.busy = ("/sys/devices/system/cpu/cpufreq/policy6/",)
        policy = cpufreq.read_policies(root)[2]
        assert (policy.name, policy.cpus, policy.affected, policy.all_offline) == ("policy6", (6,), (), True)
        assert (policy.governor, policy.hw_max_khz, policy.available_governors) == (None, None, ())
        assert cpufreq.read_policies(root)[1].all_offline is False
        tree.file("/sys/devices/system/cpu/online", "0-5\n")
        assert cpus.tiers(cpus.read_cpus(root))[1].cpus == (4, 5, 6, 7)

    def test_all_offline_in_a_capture(self, tree: Tree) -> None:
        rk3588(tree)
        tree.file("/sys/devices/system/cpu/cpufreq/policy6/affected_cpus", "\n")
        assert cpufreq.read_policies(tree.root)[2].all_offline is True

    def test_unreadable_is_not_offline(self, tree: Tree) -> None:
        tree.file("/sys/devices/system/cpu/cpufreq/policy3/other", "")
        policy = cpufreq.read_policies(tree.root)[0]
        assert (policy.cpus, policy.all_offline, policy.max_khz) == ((3,), False, None)

    def test_table_in_falling_order(self, tree: Tree) -> None:
        tree.policy(0, "0", "0", {"scaling_available_frequencies": "3400000 2200000 1400000 "})  # acpi-cpufreq
        assert cpufreq.read_policies(tree.root)[0].available_khz == (1400000, 2200000, 3400000)

    def test_garbage(self, tree: Tree) -> None:
        tree.policy(0, "zero", "0", {"scaling_max_freq": "much", "scaling_available_frequencies": "1 x 2" + "9" * 9999})
        policy = cpufreq.read_policies(tree.root)[0]
        assert (policy.cpus, policy.max_khz, policy.available_khz) == ((0,), None, (1,))


class TestLoadableGovernors:
    DEPENDENCIES = (
        "kernel/drivers/cpufreq/cpufreq_powersave.ko.xz:\n"
        "kernel/drivers/cpufreq/cpufreq_userspace.ko: kernel/x.ko\n"
        "kernel/drivers/cpufreq/cpufreq-dt.ko.xz:\nkernel/drivers/cpufreq/acpi-cpufreq.ko:\n"
        "kernel/drivers/cpufreq/cpufreq_conservative.ko.zst:\nkernel/other.ko: kernel/cpufreq_ondemand.ko\n"
    )

    @pytest.mark.parametrize("place", ["/lib/modules/6.1.0", "/usr/lib/modules/6.1.0"])
    def test_modules(self, tree: Tree, place: str) -> None:
        tree.file(place + "/modules.dep", self.DEPENDENCIES)
        assert cpufreq.loadable_governors(tree.root, "6.1.0") == ("conservative", "powersave", "userspace")

    def test_none_as_modules(self, tree: Tree) -> None:
        tree.file("/lib/modules/6.1.0/modules.dep", "kernel/a.ko:\n")
        assert cpufreq.loadable_governors(tree.root, "6.1.0") == ()

    @pytest.mark.parametrize("release", ["6.1.1", "", "..", "./6.1.0"])
    def test_not_known(self, tree: Tree, release: str) -> None:
        tree.file("/lib/modules/6.1.0/modules.dep", self.DEPENDENCIES)
        assert cpufreq.loadable_governors(tree.root, release) is None


class TestDefaultGovernor:
    CONFIG = "# CONFIG_CPU_FREQ_DEFAULT_GOV_PERFORMANCE is not set\nCONFIG_CPU_FREQ_DEFAULT_GOV_ONDEMAND=y\n"

    def test_not_known(self, tree: Tree) -> None:
        assert cpufreq.default_governor(tree.root, "6.1.57") is None

    def test_as_the_kernel_carries_it(self, tree: Tree) -> None:
        """As on the vendor's kernels, which bring no /boot/config."""
        tree.file("/proc/config.gz", gzip.compress(self.CONFIG.encode()))
        assert cpufreq.default_governor(tree.root, "6.1.57") == "ondemand"

    def test_order(self, tree: Tree) -> None:
        tree.file("/proc/config.gz", gzip.compress(self.CONFIG.encode()))
        tree.file("/boot/config-6.1.57", "CONFIG_CPU_FREQ_DEFAULT_GOV_SCHEDUTIL=y\n")
        assert cpufreq.default_governor(tree.root, "6.1.57") == "schedutil"
        assert cpufreq.default_governor(tree.root, "6.1.58") == "ondemand"
        tree.file("/proc/cmdline", "quiet cpufreq.default_governor=powersave\n")
        assert cpufreq.default_governor(tree.root, "6.1.57") == "powersave"

    @pytest.mark.parametrize("damage", ["cut", "checksum", "no gzip", "empty", "bomb"])
    def test_damaged(self, tree: Tree, damage: str) -> None:
        packed = gzip.compress(self.CONFIG.encode())
        damaged = {
            "cut": packed[:-1],
            "checksum": packed[:-8] + bytes(8),
            "no gzip": self.CONFIG.encode(),
            "empty": b"",
            "bomb": gzip.compress(self.CONFIG.encode() + bytes(8 << 20)),
        }
        tree.file("/proc/config.gz", damaged[damage])
        assert cpufreq.default_governor(tree.root, "6.1.57") is None

    def test_python_without_zlib(self, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
        tree.file("/proc/config.gz", gzip.compress(self.CONFIG.encode()))
        monkeypatch.setitem(sys.modules, "zlib", None)
        assert cpufreq.default_governor(tree.root, "6.1.57") is None

    def test_this_machine_s(self) -> None:
        """Whatever it carries is read without an error, and a governor that it names is one."""
        found = cpufreq.default_governor(Root("/"), "no such release")
        assert found is None or found.isidentifier()
