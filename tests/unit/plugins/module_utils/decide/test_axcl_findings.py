# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each finding on an AXCL card's driver and host is there where it belongs, and not on the same host put right."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.expected_gain import verdict
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import Snapshot, findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import CRITICAL, INFO, OK, WARNING, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import (
    MODULES,
    Driver,
    Module,
    Node,
    Table,
    from_text,
    parse_kernel_log,
    parse_table,
    problem,
    table_of,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl_host import AxclHost
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import (
    NO_RECORD,
    SANDBOX,
    SANDBOX_TEXT,
    FileThere,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.kernels import Built, Kernel
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.packages import Package
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.decide.test_findings import found, tuned
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import captured

RELEASE = "6.1.57"
EXTRA = "/lib/modules/%s/updates/%s.ko"
PACKAGE = Package("axclhost", "3.6.5-m5stack1", "arm64", "hold", "ok", "installed")
LIVE = tuple(Module(name, "Live") for name in MODULES[:5])
NODES = tuple(Node(path, "0660", "root", "axcl") for path in ("/dev/axcl_host", "/dev/p2p"))
START = """\
[   11.000000] ############### Dev 31 Firmware loading ##############
[   21.500000] [STATUS]: SUCCESS
[   21.600000] [axcl_pcie_host_init, 702]: axcl wait dev 31 handshake...
[   41.000000] base_addr: 0x900000000, size: 0x400000
"""


FIRMWARE = "V3.6.5 | 0"


def answer(before: str = "", after: str = "", name: str = "v3.6.5-rk3588-54c") -> Table:
    """Return a published table as that of this host's card, with one text changed."""
    text = re.sub(r"[0-9A-F]{4}:[0-9A-F]{2}:00\.0", hosts.BDF, captured("axcl/smi-table-%s.txt" % name))
    assert before in text
    return parse_table(text.replace(before, after) if before else text)


def with_cmm(used: int, name: str = "v3.6.5-rk3588-54c") -> Table:
    """Return the answer of a card of which so many MiB of CMM are used."""
    table = answer(name=name)
    row = table.cards[0]
    return table._replace(cards=(row._replace(cmm_mib=row.cmm_mib._replace(used=used)),))


def built(release: str = RELEASE, running: bool = True, **more: Any) -> Kernel:
    """Return a kernel that has the driver."""
    modules = tuple(
        Built(name, EXTRA % (release, name), release + " SMP", "ABC", "3.6.5", False)._replace(**more)
        for name in MODULES[:5]
    )
    return Kernel(release, running, True, modules)


HEALTHY = AxclHost(
    driver=Driver(LIVE, NODES),
    open_count=0,
    packages=(PACKAGE,),
    record=NO_RECORD,
    sandbox=None,
    rules=(FileThere("95.rules", "/etc/udev/rules.d/95.rules", 'KERNEL=="axcl_host", GROUP="axcl", MODE="0660"\n'),),
    stale=(),
    sleep_states=("freeze", "mem"),
    masked=("sleep", "suspend", "hibernate"),
    slept=0,
    iommu=(),
    lockdown="none",
    signatures_enforced=False,
    events=parse_kernel_log(START),
    table=answer(),
)


def box(kernels: Tuple[Kernel, ...] = (built(),), card: Any = None, host: Any = None, **more: Any) -> Snapshot:
    """Return a tuned CM3588 with its driver as it should be, but for what is told."""
    plain = tuned(card, kernels=kernels, axcl=HEALTHY._replace(**more), uptime_s=100000.0)
    return plain if host is None else plain._replace(host=plain.host._replace(**host))


def test_healthy_and_tuned() -> None:
    """Nothing on it asks for attention."""
    everything = findings(box())
    assert [(finding.id, finding.severity) for finding in everything] == [
        ("link_at_limit", INFO),
        ("interrupt_on_fast_core", OK),
        ("clock_held", OK),
        ("clock_held", OK),
    ]
    assert verdict(everything) == "As fast as it can be"


@pytest.mark.parametrize(
    "name",
    [
        "v2.18.0-one-process",
        "v2.25.0-4gb-card",
        "v3.10.2-name-ax8850",
        "v3.16.0-16gb-busy",
        "v3.4.0-idle",
        "v3.6.4-pi5-idle",
        "v3.6.5-rk3588-54c",
        "v3.6.5-rk3588-81c",
    ],
)
def test_every_published_card_is_healthy(name: str) -> None:
    """Each with modules and package of its own version: whatever people have shown as working is no alarm."""
    table = answer(name=name)
    assert table.version is not None
    kernel = built(sdk=table.version.release)
    package = PACKAGE._replace(version=table.version.release)
    told = findings(box((kernel,), table=table, packages=(package,)))
    assert {finding.severity for finding in told} <= {OK, INFO}, list(told)


class Case(NamedTuple):
    """A host with one thing amiss, and what is to be said of it."""

    id: str
    severity: str
    snapshot: Callable[[], Snapshot]
    summary: str
    evidence: Dict[str, Any]
    role: Optional[str] = None


NODE = "/dev/axcl_host"
IOMMU = "/sys/bus/pci/devices/%s/iommu_group/type" % hosts.BDF
NO_USER: Dict[str, Any] = {"axcl-smi, processes": []}
CASES: List[Case] = [
    Case(
        "driver_versions_differ",
        WARNING,
        lambda: box(table=answer(FIRMWARE, "V3.4.0 | 0")),
        "parts of the card's driver are of different versions: 3.4.0, 3.6.5",
        {
            "axcl-smi": "3.6.5",
            "firmware of " + hosts.BDF: "V3.4.0",
            **{EXTRA % (RELEASE, name): "3.6.5" for name in MODULES[:5]},
            "package axclhost": "3.6.5",
        },
        "axcl_driver",
    ),
    Case(
        "driver_versions_differ",
        INFO,
        lambda: box((built(sdk=None),), table=answer(name="v3.6.4-pi5-idle")),
        "parts of the card's driver are of different versions: 3.6.4, 3.6.5",
        {"axcl-smi": "3.6.4", "firmware of " + hosts.BDF: "V3.6.4", "package axclhost": "3.6.5"},
    ),
    Case(
        "driver_package_broken",
        WARNING,
        lambda: box(packages=(PACKAGE._replace(state="half-configured"),)),
        "package axclhost is half-configured",
        {"/var/lib/dpkg/status": "axclhost: hold ok half-configured"},
        "axcl_driver",
    ),
    Case(
        "driver_not_held",
        INFO,
        lambda: box(packages=(PACKAGE._replace(want="install"),)),
        "package axclhost is not held: an upgrade of the system may replace the driver while the card is in use",
        {"/var/lib/dpkg/status": "axclhost: install ok installed"},
        "axcl_driver",
    ),
    Case(
        "apt_sandbox_off",
        WARNING,
        lambda: box(sandbox="// by the package\n%s\n" % SANDBOX_TEXT),
        "apt downloads and unpacks as root: the driver's package has switched its sandbox off, for good",
        {SANDBOX: SANDBOX_TEXT},
        "axcl_driver",
    ),
    Case(
        "device_nodes_open",
        WARNING,
        lambda: box(driver=Driver(LIVE, (NODES[0]._replace(mode="0666"), NODES[1]))),
        "everybody on this host may use the card, and memory that it reaches: /dev/axcl_host",
        {NODE: "0666"},
        "axcl_driver",
    ),
    Case(
        "udev_group_missing",
        WARNING,
        lambda: box(rules=(FileThere("a", "/etc/udev/rules.d/a", '# x\nKERNEL=="axcl_host", GROUP="<users>"\n'),)),
        "/etc/udev/rules.d/a gives the card's nodes to a group that nobody filled in, so that udev leaves them to root",
        {"/etc/udev/rules.d/a": 'KERNEL=="axcl_host", GROUP="<users>"'},
        "axcl_driver",
    ),
    Case(
        "driver_stale",
        WARNING,
        lambda: box(stale=("axcl_host",)),
        "the loaded driver is not the installed one: axcl_host",
        {"/sys/module/axcl_host/srcversion": "not that of the installed file"},
        "axcl_driver",
    ),
    Case(
        "driver_of_other_kernel",
        WARNING,
        lambda: box((built(vermagic="6.1.50 SMP"),)),
        "modules of the driver are not built for the running kernel 6.1.57, which will not load them",
        {EXTRA % (RELEASE, name): "6.1.50 SMP" for name in MODULES[:5]},
        "axcl_driver",
    ),
    Case(
        "driver_not_for_this_kernel",
        WARNING,
        lambda: box(
            (built("6.1.50", False), built()._replace(modules=())),
            hosts.card(irqs=(), driver=None),
            driver=Driver((), ()),
            table=None,
        ),
        "the running kernel 6.1.57 has no driver for the card; kernel 6.1.50 has",
        {"/lib/modules/6.1.57": [], "/lib/modules/6.1.50": "driver built"},
        "axcl_driver",
    ),
    Case(
        "driver_incomplete",
        WARNING,
        lambda: box(driver=Driver(LIVE[:3], NODES), table=None),
        "the driver is loaded in part: axcl_host, ax_pcie_p2p_rc are missing",
        {"/proc/modules": ["ax_pcie_host_dev", "ax_pcie_mmb", "ax_pcie_msg"]},
        "axcl_driver",
    ),
    Case(
        "driver_incomplete",
        INFO,
        lambda: box(driver=Driver(LIVE[:4], NODES)),
        "the driver is loaded in part: ax_pcie_p2p_rc is missing, which only copies from card to card",
        {"/proc/modules": ["ax_pcie_host_dev", "ax_pcie_mmb", "ax_pcie_msg", "axcl_host"]},
        "axcl_driver",
    ),
    Case(
        "driver_loading",
        INFO,
        lambda: box(driver=Driver((*LIVE[:3], Module("axcl_host", "Loading")), ()), table=None),
        "the driver hands each card its firmware now, which takes up to four minutes a card",
        {"/proc/modules": "axcl_host Loading"},
    ),
    Case(
        "card_silent",
        CRITICAL,
        lambda: box(table=parse_table(captured("axcl/smi-error-dead-card-table.txt"))),
        "the driver is bound to 0003:31:00.0 and gets no answer",
        {
            "axcl-smi": "[2026-11-21 05:46:39.132][4488][E][device manager][request_ports][490]: request ports from "
            "device 49 fail, errno: 1 Operation not permitted"
        },
        "axcl_driver",
    ),
    Case(
        "card_silent",
        WARNING,
        lambda: box(table=table_of(from_text("\nedgenpu-tuning: went wrong: timed_out"))),
        "axcl-smi gave no answer in its time: 0003:31:00.0 may be dead",
        {"axcl-smi": ""},
        "axcl_driver",
    ),
    Case(
        "card_mute",
        WARNING,
        lambda: box(table=answer("54C", " --")),
        "card 0 at 0003:31:00.0 has a row, but does not tell its temperature",
        {"axcl-smi": "card 0 at 0003:31:00.0"},
    ),
    Case(
        "not_on_bus",
        WARNING,
        lambda: box(card=hosts.card("0004:41:00.0", parent=None), table=answer(), events=()),
        "card 0 at 0003:31:00.0 is in the tool's table, but the PCI bus has no such card",
        {"axcl-smi": "card 0 at 0003:31:00.0"},
    ),
    Case(
        "card_memory_leaked",
        WARNING,
        lambda: box(table=with_cmm(1200)),
        "1200 MiB of 0003:31:00.0's memory are used by nobody: a program that crashed has left them",
        {"axcl-smi, CMM of 0003:31:00.0": "1200 of 7040 MiB", **NO_USER},
    ),
    Case(
        "card_memory_full",
        WARNING,
        lambda: box(table=with_cmm(6690), open_count=1),
        "0003:31:00.0 has 350 MiB of memory left of 7040: the next model will not fit",
        {"axcl-smi, CMM of 0003:31:00.0": "6690 of 7040 MiB", **NO_USER},
    ),
    Case(
        "card_hot",
        WARNING,
        lambda: box(table=answer("54C", "95C")),
        "0003:31:00.0 has 95 C; at 120 C it resets itself, and all work on it is lost",
        {"axcl-smi, Temp of 0003:31:00.0": "95 C"},
    ),
    Case(
        "card_hot",
        CRITICAL,
        lambda: box(table=answer(" 54C", "110C")),
        "0003:31:00.0 has 110 C; at 120 C it resets itself, and all work on it is lost",
        {"axcl-smi, Temp of 0003:31:00.0": "110 C"},
    ),
    Case(
        "host_may_sleep",
        INFO,
        lambda: box(masked=("hibernate",)),
        "this host may be put to sleep (suspend), which the card does not survive",
        {
            "/sys/power/state": "freeze mem",
            "/etc/systemd/system/sleep.target": "not masked",
            "/etc/systemd/system/suspend.target": "not masked",
        },
        "axcl_driver",
    ),
    Case(
        "host_may_sleep",
        WARNING,
        lambda: box(masked=(), slept=2),
        "this host has slept 2 times since boot, which the card does not survive",
        {
            "/sys/power/state": "freeze mem",
            "/etc/systemd/system/sleep.target": "not masked",
            "/etc/systemd/system/suspend.target": "not masked",
            "/sys/power/suspend_stats/success": 2,
        },
        "axcl_driver",
    ),
    Case(
        "iommu_translates",
        INFO,
        lambda: box(iommu=((hosts.BDF, "DMA-FQ"),)),
        "the IOMMU translates every address that 0003:31:00.0 uses (DMA-FQ)",
        {IOMMU: "DMA-FQ"},
    ),
    Case(
        "iommu_translates",
        WARNING,
        lambda: box((built(sdk="2.25.0"),), iommu=((hosts.BDF, "DMA"),), packages=(), table=None),
        "the IOMMU translates every address that 0003:31:00.0 uses (DMA), which drivers before 3.4.0 do not bear: "
        "theirs is 2.25.0",
        {IOMMU: "DMA", "driver": "2.25.0"},
        "axcl_driver",
    ),
    Case(
        "page_size_untested",
        INFO,
        lambda: box(host={"page_size": 16384}),
        "the kernel's pages have 16 KiB; Axera's driver is used with 4 KiB, and of 16 KiB it was reported to work",
        {"/proc/self/auxv": "AT_PAGESZ 16384"},
    ),
    Case(
        "page_size_untested",
        WARNING,
        lambda: box(host={"page_size": 65536}),
        "the kernel's pages have 64 KiB; Axera's driver is used with 4 KiB, and of 64 KiB nobody has told of a working "
        "card",
        {"/proc/self/auxv": "AT_PAGESZ 65536"},
    ),
    Case(
        "driver_not_signed",
        WARNING,
        lambda: box(lockdown="integrity", driver=Driver((), ()), table=None),
        "this kernel loads signed modules only (Secure Boot), and the card's driver is not signed",
        {
            "/sys/kernel/security/lockdown": "integrity",
            **{EXTRA % (RELEASE, name): "no signature" for name in MODULES[:5]},
        },
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "%s-%s" % (case.id, case.severity))
def test_amiss(case: Case) -> None:
    assert case.id not in found(box())
    finding = found(case.snapshot())[case.id]
    assert (finding.severity, finding.summary) == (case.severity, case.summary)
    assert finding.evidence == case.evidence
    assert finding.role == case.role
    assert finding.remedy.endswith(".")


@pytest.mark.parametrize(
    ("cpus", "effective", "said"),
    [
        ((4,), "4", True),
        ((4, 5), "4", False),
        ((5,), "4", False),
        ((4,), "4-5", True),
        ((), "4", False),
        (None, "4", False),
    ],
)
def test_program_on_the_interrupt_s_cpu(cpus: Optional[Tuple[int, ...]], effective: str, said: bool) -> None:
    """It is told of one that cannot run elsewhere, since the scheduler moves all others out of the way."""
    snapshot = box(
        (built(sdk="2.18.0"),),
        packages=(PACKAGE._replace(version="2.18.0"),),
        table=answer(name="v2.18.0-one-process"),
        allowed=() if cpus is None else ((763, cpus),),
    )
    snapshot = snapshot._replace(interrupts=hosts.interrupts(hosts.interrupt(38, "4-7", effective)))
    finding = found(snapshot).get("application_beside_interrupt")
    assert (finding is not None) == said
    if finding is not None:
        assert finding.severity == INFO
        assert finding.summary.startswith("process 763 (/opt/bin/axcl/axcl_run_model) may run on CPU 4 only")
        assert finding.evidence == {
            "/proc/763/status, Cpus_allowed_list": "4",
            "/proc/irq/38/effective_affinity_list": effective,
        }


def test_program_that_uses_another_card() -> None:
    table = answer(name="v2.18.0-one-process")
    other = table._replace(cards=(table.cards[0]._replace(number=1),))
    assert "application_beside_interrupt" not in found(box(table=other, allowed=((763, (4,)),)))


def test_another_maker_s_card_has_none_of_it() -> None:
    """Without an AXCL card nothing of AXCL is looked at."""
    assert found(tuned(axcl=None)).keys() == found(tuned()).keys()


def told(**more: Any) -> List[str]:
    """Return the findings that only this has."""
    return sorted(found(box(**more)).keys() - found(box()).keys())


class TestNoFalseAlarm:
    def test_nothing_asked(self) -> None:
        """A bundle of old, or a user who may run no command: silence."""
        assert told(table=None, events=()) == []

    def test_the_tool_knows_no_domain(self) -> None:
        assert told(table=answer(hosts.BDF, "0000:31:00.0")) == []
        hot = answer(" 54C", "111C").cards[0]._replace(bdf="0000:31:00.0")
        assert found(box(table=answer()._replace(cards=(hot,))))["card_hot"].summary.startswith(hosts.BDF)

    def test_two_cards_that_differ_by_their_domain(self) -> None:
        """Then nobody can tell which one the tool means."""
        two = box(table=answer(hosts.BDF, "0000:31:00.0"))
        two = two._replace(devices=(*two.devices, hosts.card("0004:31:00.0", (39,), parent=None)))
        assert {"card_silent", "not_on_bus"} <= found(two).keys()

    @pytest.mark.parametrize("name", ["already_running", "lock_busy", "no_permission", "tool_failed"])
    def test_a_call_that_failed_for_somebody_else(self, name: str) -> None:
        assert told(table=parse_table("")._replace(problems=(problem(name),))) == []

    def test_no_permission(self) -> None:
        text = captured("axcl/smi-error-no-driver.txt").replace("errno: 2", "errno: 13")
        assert "card_silent" not in told(table=parse_table(text))
        assert "card_silent" in told(table=parse_table(captured("axcl/smi-error-no-device.txt")))

    def test_memory_of_a_program_that_runs(self) -> None:
        busy = with_cmm(1200, "v3.16.0-16gb-busy")
        assert "card_memory_leaked" not in found(box((built(sdk="3.16.0"),), table=busy, packages=()))
        assert told(table=with_cmm(1200), open_count=1) == [], "it may have no row yet"

    @pytest.mark.parametrize("used", [18, 22, 82, 6687])
    def test_memory_as_it_is(self, used: int) -> None:
        assert told(table=with_cmm(used), open_count=int(used > 82)) == []

    @pytest.mark.parametrize("used", [83, 6688])
    def test_memory_beyond_it(self, used: int) -> None:
        assert told(table=with_cmm(used), open_count=int(used > 83)) != []

    def test_warm(self) -> None:
        assert told(table=answer("54C", "94C")) == []

    def test_masked_in_one_place_is_enough(self) -> None:
        assert told(masked=("sleep",)) == []
        assert told(masked=("suspend",)) == []
        assert told(masked=("suspend",), sleep_states=("freeze", "mem", "disk")) == ["host_may_sleep"]
        assert told(masked=(), sleep_states=()) == [], "this kernel cannot sleep"
        assert told(masked=("sleep",), slept=3) == [], "it was put right since"

    @pytest.mark.parametrize("kind", ["identity", "blocked"])
    def test_iommu_passes_through(self, kind: str) -> None:
        assert told(iommu=((hosts.BDF, kind),)) == []

    def test_signatures(self) -> None:
        bare = {"driver": Driver((), ()), "table": None}
        assert "driver_not_signed" not in told(lockdown="none", **bare)
        assert "driver_not_signed" in told(signatures_enforced=True, **bare)
        assert "driver_not_signed" not in told(kernels=(built(signed=True),), lockdown="integrity", **bare)
        assert "driver_not_signed" not in told(kernels=(built(signed=None),), lockdown="integrity", **bare)
        assert told(lockdown="integrity") == [], "it is loaded all the same"

    def test_modules_of_the_same_name_from_elsewhere(self) -> None:
        one = Kernel(RELEASE, True, True, built().modules[:1])
        assert told(kernels=(one,), driver=Driver(LIVE[:1], NODES), table=None) == []

    def test_without_a_hold_by_wish(self) -> None:
        loose = (PACKAGE._replace(want="install"),)
        mine = NO_RECORD._replace(package="axclhost", sdk="3.6.5")
        assert told(packages=loose, record=mine) == []
        assert told(packages=loose, record=mine._replace(held=True)) == ["driver_not_held"]
        several = mine._replace(package="axclhost-firmware axclhost axclhost-dkms")
        assert told(packages=loose, record=several) == []

    def test_nodes_that_everybody_may_look_at(self) -> None:
        """To read is not to use: the driver wants both."""
        assert told(driver=Driver(LIVE, (NODES[0]._replace(mode="0664"),))) == []

    def test_what_is_not_there_yet_while_it_loads(self) -> None:
        on_its_way = Driver((*LIVE[:3], Module("axcl_host", "Loading")), ())
        assert told(driver=on_its_way, table=None) == ["driver_loading"]

    def test_another_kernel_s_driver_with_a_card_that_is_bound(self) -> None:
        """One that comes with the kernel is in none of these places."""
        kernels = (built("6.1.50", False), built()._replace(modules=()))
        assert told(kernels=kernels, driver=Driver((), ()), table=None) == []

    def test_first_driver_that_bears_an_iommu(self) -> None:
        translating = ((hosts.BDF, "DMA"),)
        for sdk, severity in (("3.3.9", WARNING), ("3.4.0", INFO)):
            one = box((built(sdk=sdk),), iommu=translating, packages=(), table=None)
            assert found(one)["iommu_translates"].severity == severity

    def test_removed_package(self) -> None:
        assert told(packages=(PACKAGE._replace(want="deinstall", state="config-files"),)) == []

    def test_two_cards_want_the_peer_module(self) -> None:
        two = box(driver=Driver(LIVE[:4], NODES), table=None)
        two = two._replace(devices=(*two.devices, hosts.card("0004:41:00.0", (39,), parent=None)))
        assert found(two)["driver_incomplete"].severity == WARNING

    def test_rule_that_is_a_remark(self) -> None:
        remark = FileThere("a", "/etc/udev/rules.d/a", '#KERNEL=="axcl_host", GROUP="<users>"\n')
        assert told(rules=(remark,)) == []

    def test_commented_sandbox(self) -> None:
        assert told(sandbox="// " + SANDBOX_TEXT) == []


def logged(text: str, **more: Any) -> Dict[str, Finding]:
    """Return the findings on a kernel log, where axcl-smi was not asked."""
    more.setdefault("table", None)
    snapshot = box(events=parse_kernel_log(text), **more)
    return {name: one for name, one in found(snapshot).items() if name.startswith("log_")}


DEAD = "[%d.000000] [heartbeat_recv_thread, 578]: device %x: dead!\n"


class TestKernelLog:
    def test_good_start(self) -> None:
        assert logged(START) == {}

    def test_first_last_and_number(self) -> None:
        told = logged(START + DEAD % (100, 0x31) + DEAD % (120, 0x31) + DEAD % (140, 0x31))
        assert list(told) == ["log_card_dead"]
        finding = told["log_card_dead"]
        assert finding.severity == CRITICAL
        assert finding.summary == "the kernel log says (PCI bus 31): the card's heartbeat was lost"
        assert finding.evidence == {
            "kernel log, first": "[100.000000] [heartbeat_recv_thread, 578]: device 31: dead!",
            "kernel log, last": "[140.000000] [heartbeat_recv_thread, 578]: device 31: dead!",
            "kernel log, lines": 3,
        }
        assert finding.remedy.startswith("Stop what uses the card")

    def test_sleep_as_it_was_captured(self) -> None:
        card = hosts.card("0000:04:00.0", parent=None)
        told = logged(captured("axcl/dmesg-suspend-dead.txt"), card=card)
        assert {name: one.severity for name, one in told.items()} == {
            "log_card_dead": CRITICAL,
            "log_host_slept": WARNING,
        }
        assert told["log_host_slept"].role == "axcl_driver"

    @pytest.mark.parametrize("later", ["[200.0] device 31: alive!\n", START])
    def test_recovered(self, later: str) -> None:
        bad = DEAD % (100, 0x31) + "[101.0] [step0]: Handshake timeout!\n[102.0] PM: suspend entry (deep)\n"
        assert len(logged(bad)) == 3
        assert logged(bad + later) == {}

    def test_dead_again(self) -> None:
        text = DEAD % (100, 0x31) + "[200.0] device 31: alive!\n" + DEAD % (300, 0x31)
        assert logged(text)["log_card_dead"].evidence == {
            "kernel log": "[300.000000] [heartbeat_recv_thread, 578]: device 31: dead!"
        }

    def test_the_other_card_has_recovered(self) -> None:
        text = DEAD % (100, 0x31) + DEAD % (110, 0x41) + "[200.0] device 41: alive!\n[201.0] axcl: alloc pages failed\n"
        assert list(logged(text)) == ["log_card_dead", "log_host_memory_fragmented"]
        assert "(PCI bus 31)" in logged(text)["log_card_dead"].summary

    def test_a_card_that_answers_is_well(self) -> None:
        """Whatever the log says: axcl-smi was asked after it."""
        bad = DEAD % (100, 0x31) + "[101.0] Recv port ack timeout.\n"
        assert len(logged(bad)) == 2
        assert logged(bad, table=answer()) == {}
        assert len(logged(bad, table=answer(FIRMWARE, "--     | 0"))) == 2, (
            "a row that tells no firmware is no sign of life"
        )

    def test_the_firmware_is_there_by_now(self) -> None:
        bad = "[5.0] Patch file not found axcl/ax650_card.pac.\n[6.0] [step0]: Handshake timeout!\n"
        later = "[11.0] ############### Dev 31 Firmware loading ##############\n[21.0] [STATUS]: SUCCESS\n"
        assert list(logged(bad + later)) == ["log_handshake_timeout"]

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("AMD-Vi: Event logged [IO_PAGE_FAULT device=31:00.0 domain=0x1]", ["log_iommu_fault"]),
            ("DMAR: [DMA Write] Request device [0x31:0x00.0] fault addr 0x0", ["log_iommu_fault"]),
            ("nvme 0003:31:00.1: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x1]", []),
            ("AMD-Vi: Event logged [IO_PAGE_FAULT device=03:00.0 domain=0x1]", []),
        ],
    )
    def test_faults_of_others(self, line: str, expected: List[str]) -> None:
        assert list(logged("[90000.0] " + line)) == expected

    def test_long_ago(self) -> None:
        """The host is up for 100,000 s."""
        line = "[%d.0] axcl: dma_alloc_coherent failed\n"
        assert logged(line % 90000)["log_host_memory_fragmented"].severity == WARNING
        assert logged(line % 90)["log_host_memory_fragmented"].severity == INFO
        assert logged(line % 90 + line % 90000)["log_host_memory_fragmented"].severity == WARNING
        assert logged(line % 90000, table=answer())["log_host_memory_fragmented"].severity == WARNING

    def test_copies_between_cards(self) -> None:
        assert logged("[1.0] p2p is not support\n") == {}

    @pytest.mark.parametrize(
        ("line", "name", "severity"),
        [
            ("[probe, 1]: Request pci region failed", "not_enabled", CRITICAL),
            ("[x, 1]: Set pcie rebar size failed", "bar_not_resized", WARNING),
            ("[x, 1]: Failed to get MSI interrupts. err: -28", "no_msi", CRITICAL),
            ("[x, 1]: Failed to read BAR", "bar_unmapped", CRITICAL),
            ("alloc shmem space fail in master", "no_shared_memory", CRITICAL),
            ("Host request msg irq failed!", "interrupt_refused", CRITICAL),
            ("send buf alloc failed, -12", "no_firmware_buffer", CRITICAL),
            ("Patch file not found axcl/ax650_card.pac.", "firmware_missing", CRITICAL),
            ("[STATUS]: FAILED[3]", "firmware_push_failed", CRITICAL),
            ("slave port create failed.", "ports_refused", CRITICAL),
            ("not enough port, already used 128 ports", "ports_used_up", WARNING),
            ("[x, 1]: PCIe message head_check error", "link_lost", CRITICAL),
        ],
    )
    def test_each_kind(self, line: str, name: str, severity: str) -> None:
        told = logged("[90000.0] %s\n" % line)
        assert list(told) == ["log_" + name]
        assert told["log_" + name].severity == severity
        assert told["log_" + name].evidence == {"kernel log": "[90000.000000] " + line}
        assert told["log_" + name].remedy.endswith(".")
        assert "log_" + name not in logged("[90000.0] %s\n" % line, table=answer()) or name == "ports_used_up"
