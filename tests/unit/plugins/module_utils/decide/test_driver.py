# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import driver
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.driver import DriverWishes, Offer
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import (
    NODES,
    Driver,
    Module,
    Node,
    parse_kernel_log,
    parse_table,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import (
    MODULES,
    NO_RECORD,
    Card,
    DriverState,
    FileThere,
    Holder,
    Record,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.kernels import Built, Kernel
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.packages import Package

RELEASE = "6.1.57"
BDF = "0003:31:00.0"
SHA = "ab" * 32
OFFER = Offer(
    SHA, "/root/a.deb", "axcl_host_aarch64_V3.6.4_1.deb", "axclhost", "1.0.0", "all", "gcc, make", 250, "3.6.4"
)
DKMS_OFFER = OFFER._replace(depends="dkms (>= 2)")
WISHES = DriverWishes()
TABLE = """\
+------------------------------------------------------------------------------------------------+
| AXCL-SMI  V3.6.4                                                                Driver  V3.6.4 |
+-----------------------------------------+--------------+---------------------------------------+
| Card  Name                     Firmware | Bus-Id       |                          Memory-Usage |
| Fan   Temp                Pwr:Usage/Cap | CPU      NPU |                             CMM-Usage |
|=========================================+==============+=======================================|
|    0  AX650N                     V3.6.4 | 0003:31:00.0 |                181 MiB /      945 MiB |
|   --   52C                      -- / -- | 3%        0% |                 18 MiB /     7040 MiB |
+-----------------------------------------+--------------+---------------------------------------+
"""
ALIVE = """\
[   10.0] [axcl_pcie_host_init, 1]: axcl wait dev 31 handshake...
[   40.0] base_addr: 0x1, size: 0x2
"""


def built(release: str = RELEASE, where: str = "updates/dkms", vermagic: Optional[str] = None) -> tuple:  # type: ignore[type-arg]
    path = "/lib/modules/%s/%s/%s.ko"
    return tuple(Built(name, path % (release, where, name), vermagic or release + " SMP", None) for name in MODULES)


def kernel(release: str = RELEASE, running: bool = True, headers: bool = True, modules: Any = ()) -> Kernel:
    return Kernel(release, running, headers, tuple(modules))


def package(name: str = "axclhost", **more: Any) -> Package:
    return Package(name, "1.0.0", "all", "install", "ok", "installed")._replace(**more)


def host(**more: Any) -> DriverState:
    """Return a host on which everything is ready, and no driver."""
    plain = DriverState(
        kernel=RELEASE,
        architecture="arm64",
        page_size=4096,
        packages={},
        tools={name: package(name) for name in ("dpkg", "dkms", "gcc", "make", "patch", "kmod")},
        kernels=(kernel(),),
        kernel_compiler=12,
        compiler=12,
        compilers=(12,),
        secure_boot=None,
        key_enrolled=False,
        free_mib={"/usr": 9000, "/var": 9000, "/lib/modules": 9000},
        driver=Driver((), ()),
        cards=(Card(BDF, None),),
        sandbox=None,
        rules=(),
        autoload=(),
        dkms=(),
        source_tree=False,
        groups=("root",),
        stale=(),
        record=NO_RECORD,
        failed_log=False,
    )
    return plain._replace(**more)


def working(**more: Any) -> DriverState:
    """Return a host on which the driver works."""
    return host(
        packages={"axclhost": package(want="hold")},
        kernels=(kernel(modules=built()),),
        driver=Driver(
            tuple(Module(name, "Live") for name in MODULES), tuple(Node(path, "0660", "root", "axcl") for path in NODES)
        ),
        cards=(Card(BDF, "ax_pcie_dev_host"),),
        groups=("root", "axcl"),
        record=Record(SHA, "axclhost", "3.6.4", "axcl", None, True),
    )._replace(**more)


def obstacles(
    state: DriverState, offer: Optional[Offer] = OFFER, wishes: DriverWishes = WISHES, holders: Any = ()
) -> List[str]:
    return driver.plan_present(state, offer, wishes, holders).obstacles


def test_ready_host_has_no_obstacle() -> None:
    for offer in (
        OFFER,
        DKMS_OFFER,
        OFFER._replace(sdk=None, size_mib=None),
        Offer(package="axclhost", version="3.6.5-m5stack1"),
    ):
        assert obstacles(host(), offer) == []


OBSTACLES: Dict[str, Any] = {
    "no dpkg": (
        host(architecture=None),
        OFFER,
        "dpkg's database tells no architecture, and only Debian packages can be installed here; install it by hand",
    ),
    "damaged": (
        host(),
        Offer(SHA, "/root/a.deb", problem="cut off: 5 of at least 9 bytes"),
        "/root/a.deb: cut off: 5 of at least 9 bytes; get it again",
    ),
    "another package": (
        host(),
        OFFER._replace(package="vim"),
        "/root/a.deb holds the package vim, which is no AXCL driver; give the driver's package",
    ),
    "architecture of the package": (
        host(),
        OFFER._replace(architecture="amd64"),
        "/root/a.deb is built for amd64 and this host is arm64; take the package for arm64",
    ),
    "architecture in the name": (
        host(),
        OFFER._replace(file_name="axcl_host_x86_64_V3.6.4.deb"),
        "/root/a.deb is built for amd64 and this host is arm64; take the package for arm64",
    ),
    "Secure Boot": (
        host(secure_boot=True, key_enrolled=True),
        OFFER,
        (
            "Secure Boot is on, so this kernel takes only signed modules; switch it off in the firmware, or take a "
            "package that builds through DKMS and enrol DKMS's key (mokutil --import /var/lib/dkms/mok.pub)"
        ),
    ),
    "kernel too new": (
        host(kernel="6.13.2", kernels=(kernel("6.13.2"),)),
        OFFER,
        "driver 3.6.4 does not build for kernel 6.13.2: from 6.13 on it takes 3.10.2 or newer",
    ),
    "compiler too old": (
        host(compiler=11),
        OFFER,
        (
            "kernel 6.1.57 was built with gcc 12 and /usr/bin/gcc is 11, which does not know its options; install "
            "gcc-12 and make it the default (update-alternatives --install /usr/bin/gcc gcc /usr/bin/gcc-12 100)"
        ),
    ),
    "disk full": (
        host(free_mib={"/usr": 399, "/var": 150}),
        OFFER,
        "/usr has 399 MiB free and about 400 are needed; make room",
    ),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_obstacle(name: str) -> None:
    state, offer, sentence = OBSTACLES[name]
    assert obstacles(state, offer) == [sentence]


def test_obstacles_are_told_together() -> None:
    assert len(obstacles(host(compiler=8, free_mib={"/var": 1}, secure_boot=True))) == 3


def test_signed_by_dkms_passes_secure_boot() -> None:
    assert obstacles(host(secure_boot=True, key_enrolled=True), DKMS_OFFER) == []
    assert len(obstacles(host(secure_boot=True, key_enrolled=False), DKMS_OFFER)) == 1
    assert obstacles(host(secure_boot=False)) == []


def test_newer_driver_builds_for_a_new_kernel() -> None:
    state = host(kernel="6.13.2", kernels=(kernel("6.13.2"),))
    assert obstacles(state, OFFER._replace(sdk="3.10.2")) == []
    assert obstacles(state, OFFER._replace(sdk=None)) == []


def test_newer_compiler_is_a_warning() -> None:
    plan = driver.plan_present(host(compiler=13), OFFER, WISHES)
    assert (len(plan.obstacles), len(plan.warnings)) == (0, 1)
    assert "with a warning" in plan.warnings[0]


def test_large_pages_and_no_card_are_warnings() -> None:
    plan = driver.plan_present(host(page_size=65536, cards=()), OFFER, WISHES)
    assert plan.obstacles == []
    assert [line.split(";")[0] for line in plan.warnings] == [
        "this kernel has pages of 64 KiB",
        "no AX650N card is on the PCI bus",
    ]


def test_missing_tools() -> None:
    state = host(
        tools={"dpkg": package("dpkg"), "gcc": package("gcc", state="config-files")}, kernels=(kernel(headers=False),)
    )
    plan = driver.plan_present(state, OFFER, WISHES)
    assert plan.steps[0][:2] == ("tools", "dkms gcc make patch kmod linux-headers-6.1.57")
    wishes = WISHES._replace(prepare=False, headers_package="linux-headers-vendor")
    assert obstacles(state, OFFER, wishes) == [
        "not installed, and prepare is off: dkms, gcc, make, patch, kmod, linux-headers-vendor; install that first"
    ]


def test_users_of_the_card() -> None:
    holders = (Holder(9, "llm", "/dev/axcl_host"), Holder(9, "llm", "/dev/p2p"), Holder(7, "frigate", "/dev/axcl_host"))
    other = OFFER._replace(sha256="00" * 32)
    assert obstacles(working(), other, holders=holders) == [
        (
            "the driver cannot be unloaded while it is in use by frigate (PID 7), llm (PID 9); stop that first (never "
            "with SIGKILL: the card would need its power switched off and on)"
        )
    ]
    assert obstacles(working(), OFFER, holders=holders) == []


@pytest.mark.parametrize(
    ("state", "offer", "installed"),
    [
        (host(), OFFER, False),
        (host(), None, False),
        (working(), OFFER, True),
        (working(), None, True),
        (working(), OFFER._replace(sha256="00" * 32), False),
        (working(record=NO_RECORD), OFFER, False),
        (working(packages={"axclhost": package(state="half-configured")}), OFFER, False),
        (working(packages={"axclhost": package(state="config-files")}), OFFER, False),
        (
            working(packages={"axclhost": package(), "axclhost-dkms": package("axclhost-dkms", flag="reinstreq")}),
            None,
            False,
        ),
        (working(), Offer(package="axclhost", version="1.0.0"), True),
        (working(), Offer(package="axclhost"), True),
        (working(), Offer(package="axclhost", version="2"), False),
    ],
)
def test_what_is_installed(state: DriverState, offer: Optional[Offer], installed: bool) -> None:
    assert driver.is_installed(state, offer) is installed


@pytest.mark.parametrize(
    ("modules", "has"),
    [
        (built(), True),
        (built(where="extra"), True),
        (built(vermagic="6.1.9 SMP"), False),
        (built(vermagic=RELEASE + "x SMP"), False),
        (built()[:4], False),
        ((), False),
        ([one._replace(vermagic=None) for one in built()], True),
    ],
)
def test_kernel_has_the_driver(modules: Any, has: bool) -> None:
    assert driver.has_driver(kernel(modules=modules)) is has


def test_only_lines_about_the_driver_are_taken_out() -> None:
    text = 'KERNEL=="axcl_host", MODE="0666"\nKERNEL=="ttyUSB0", MODE="0666"\n# note\n'
    state = host(
        rules=(FileThere("60-mine.rules", "/etc/udev/rules.d/60-mine.rules", text),),
        autoload=(FileThere("a.conf", "/usr/lib/modules-load.d/a.conf", "axcl_host\nnvme\n"),),
    )
    texts, links = driver.files(state, WISHES)
    assert texts["/etc/udev/rules.d/60-mine.rules"].splitlines()[1:] == ['KERNEL=="ttyUSB0", MODE="0666"', "# note"]
    assert texts["/etc/modules-load.d/a.conf"].splitlines()[1:] == ["nvme"]
    assert links[driver.ENABLED] == "../" + driver.UNIT_NAME


def test_time_limit_grows_with_the_cards() -> None:
    assert driver.limit_s(host(cards=()), WISHES) == 300
    assert driver.limit_s(host(cards=(Card("a", None), Card("b", None))), WISHES._replace(load_timeout_s=100)) == 200


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("make\ncc\nx.c:1: error: a\nx.c:2: error: b\nmake: *** [x] Error 1\n", "x.c:1: error: a"),
        ("\x1b[1;31m\nE: build driver fail\n\x1b[0m", "E: build driver fail"),
        ("one\ntwo\n\n", "two"),
        ("", None),
    ],
)
def test_first_error(log: str, line: Optional[str]) -> None:
    assert driver.first_error(log) == line


def verdicts(state: DriverState, table: Optional[str] = TABLE, log: str = ALIVE) -> Dict[str, str]:
    answer = None if table is None else parse_table(table)
    return {one.id: one.severity for one in driver.proof(state, WISHES, answer, parse_kernel_log(log))}


def test_proof_of_a_working_driver() -> None:
    found = verdicts(working())
    assert set(found.values()) == {"ok"}
    assert set(found) == {
        "driver_installed",
        "driver_built",
        "driver_loaded",
        "driver_nodes",
        "card_bound",
        "card_handshake",
        "card_in_table",
        "firmware_version",
    }


DEAD = "[   10.0] [x, 1]: axcl wait dev 31 handshake...\n[  130.0] [step0]: Handshake timeout!\n"
BROKEN: Dict[str, Any] = {
    "driver_installed": (working(packages={"axclhost": package(state="half-configured")}), TABLE, ALIVE, "critical"),
    "driver_built": (working(kernels=(kernel(modules=built(vermagic="6.1.9 SMP")),)), TABLE, ALIVE, "critical"),
    "driver_loaded": (
        working(driver=working().driver._replace(modules=working().driver.modules[:4])),
        TABLE,
        ALIVE,
        "critical",
    ),
    "driver_nodes": (
        working(
            driver=working().driver._replace(
                nodes=(Node(NODES[0], "0666", "root", "root"), *working().driver.nodes[1:])
            )
        ),
        TABLE,
        ALIVE,
        "critical",
    ),
    "card_bound": (working(cards=(Card(BDF, "vfio-pci"),)), TABLE, ALIVE, "critical"),
    "card_in_table": (working(), TABLE.replace("0003:31", "0002:21"), ALIVE, "critical"),
    "firmware_version": (working(), TABLE.replace("     V3.6.4 | 0003", "     V3.6.2 | 0003"), ALIVE, "warning"),
}


def test_handshake_that_came_late() -> None:
    """The log tells of a start that failed: the card's own row, which is of now, says whether that still holds."""
    assert set(verdicts(working(), TABLE, DEAD).values()) == {"ok"}
    told = driver.proof(working(), WISHES, parse_table(TABLE), parse_kernel_log(DEAD))
    [handshake] = [one for one in told if one.id == "card_handshake"]
    assert handshake.summary.endswith("it answers by now")
    silent = verdicts(working(), TABLE.replace("0003:31", "0002:21"), DEAD)
    assert (silent["card_handshake"], silent["card_in_table"]) == ("critical", "critical")
    assert verdicts(working(), None, DEAD)["card_handshake"] == "critical"


def test_card_without_a_sensor_lives() -> None:
    assert set(verdicts(working(), TABLE.replace(" 52C ", "  -- ")).values()) == {"ok"}
    mute = verdicts(working(), TABLE.replace("    V3.6.4 | 0003", "        -- | 0003"))
    assert mute["card_in_table"] == "critical"


@pytest.mark.parametrize("name", BROKEN)
def test_proof_finds(name: str) -> None:
    state, table, log, severity = BROKEN[name]
    found = verdicts(state, table, log)
    assert {key: value for key, value in found.items() if value != "ok"} == {name: severity}


@pytest.mark.parametrize(
    ("log", "severity"),
    [
        (ALIVE + "[   90.0] [heartbeat_recv_thread, 5]: device 31: dead!\n", "critical"),
        ("[    9.0] [heartbeat_recv_thread, 5]: device 31: dead!\n" + ALIVE, "ok"),
        (ALIVE + "[   90.0] [heartbeat_recv_thread, 5]: device 41: dead!\n", "ok"),
    ],
)
def test_last_word_on_this_card_counts(log: str, severity: str) -> None:
    assert verdicts(working(), None, log)["card_handshake"] == severity


def test_what_cannot_be_seen_is_no_proof() -> None:
    found = verdicts(working(), None, "")
    assert (found["card_handshake"], found["card_in_table"]) == ("warning", "warning")
    assert "firmware_version" not in found


def test_nodes_that_are_missing() -> None:
    state = working(driver=working().driver._replace(nodes=()))
    (found,) = [one for one in driver.proof(state, WISHES, None, ()) if one.id == "driver_nodes"]
    assert (found.severity, found.summary) == ("critical", "device nodes are missing: " + ", ".join(NODES))


def test_reboot() -> None:
    assert driver.reboot_reason(working()) is None
    assert driver.reboot_reason(working(stale=("axcl_host",))) == "loaded modules are not the installed ones: axcl_host"
