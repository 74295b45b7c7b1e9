# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
from typing import Any, Dict

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import driver, kernels, packages
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.captured import CapturedRoot, Recorder
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import drivers, hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree


@pytest.fixture
def box(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> drivers.Box:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    if os.geteuid() != 0:
        hosts.let_root_own_nothing(monkeypatch)
    return drivers.Box(Tree(tmp_path))


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_modinfo(wide: bool, order: str) -> None:
    info = kernels.parse_modinfo(drivers.module_file("6.1.57", "F00", wide, order))
    assert info == {"license": "GPL", "srcversion": "F00", "vermagic": "6.1.57 SMP mod_unload aarch64"}


def test_facts_of_a_module() -> None:
    """Version and signature stand in its bytes; what a bundle has instead of them says the same."""
    plain = drivers.module_file("6.1.57", "F00")
    said = {"vermagic": "6.1.57 SMP mod_unload aarch64", "srcversion": "F00"}
    axera = b"\0[AXCL version]: axcl_host V3.10.2_20251215140224 Dec 15 2025 14:29:02 root\0"
    for data, more in (
        (plain, {"signed": "no"}),
        (plain + axera, {"signed": "no", "sdk": "3.10.2"}),
        (plain + axera + b"~Module signature appended~\n", {"signed": "yes", "sdk": "3.10.2"}),
        (plain + b"[AXCL version]: \0V3.10.2", {"signed": "no"}),
        (plain + b"[AXCL version]:", {"signed": "no"}),
    ):
        assert kernels.parse_module(data) == dict(said, **more)
        noted = kernels.module_facts(data)
        assert noted is not None and len(noted) < 200 and kernels.parse_module(noted) == dict(said, **more)
        assert kernels.module_facts(noted) == noted
    assert (kernels.parse_module(b"x"), kernels.module_facts(b"x")) == ({}, None)


def test_a_bundle_tells_of_modules_without_their_code(box: drivers.Box) -> None:
    box.built(drivers.KERNEL, "updates")
    recorder = Recorder(str(box.tree.path))
    told = kernels.read_kernels(recorder, drivers.MODULES)
    [running] = [kernel for kernel in told if kernel.running]
    assert {(module.signed, module.srcversion) for module in running.modules} == {(False, "ABC")}
    assert kernels.read_kernels(CapturedRoot(recorder.captured), drivers.MODULES) == told
    assert b"\x7fELF" not in b"".join(recorder.captured.files.values())


def test_modinfo_of_what_is_no_module() -> None:
    whole = drivers.module_file("6.1.57")
    assert kernels.parse_modinfo(b"") == {}
    assert kernels.parse_modinfo(b"\x7fELF") == {}
    assert kernels.parse_modinfo(b"\xfd7zXZ\0" + bytes(100)) == {}
    for length in range(len(whole)):
        assert kernels.parse_modinfo(whole[:length]) == {}


@pytest.mark.parametrize(
    ("text", "major"),
    [
        (drivers.PROC_VERSION % "6.1.57", 12),
        (
            "Linux version 5.10.110 (u@h) (aarch64-none-linux-gnu-gcc (GNU Toolchain 10.3-2021.07 (arm-10.29)) 10.3.1",
            10,
        ),
        ("Linux version 6.6.51+rpt-rpi-2712 (s@p) (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld) #1", 12),
        (
            "Linux version 6.8.0-45-generic (b@l) (x86_64-linux-gnu-gcc-12 (Ubuntu 12.3.0-1ubuntu1~22.04) 12.3.0",
            12,
        ),
        ("Linux version 6.6.1 (u@h) (Ubuntu clang version 17.0.6, LLD 17.0.6) #1 SMP", None),
        ("", None),
    ],
)
def test_compiler_of_a_kernel(text: str, major: Any) -> None:
    assert kernels.parse_compiler(text) == major


def test_names_of_compilers() -> None:
    assert kernels.parse_gcc_name("gcc-12") == 12
    assert kernels.parse_gcc_name("aarch64-linux-gnu-gcc-9") == 9
    assert kernels.parse_gcc_name("gcc") is None
    assert kernels.parse_gcc_name("gcc-ar-12") is None


def test_releases_are_ordered_as_numbers() -> None:
    wanted = ["5.10.0", "6.1.0-9-arm64", "6.1.0-18-arm64", "6.1.84", "6.1.118", "6.10.1"]
    assert sorted(sorted(wanted), key=kernels.release_key) == wanted


def test_kernels(box: drivers.Box) -> None:
    box.kernel_installed("6.1.9", headers=False)
    box.tree.file("/lib/modules/5.0.0/extra/axcl_host.ko", drivers.module_file("5.0.0"))  # a removed kernel's leavings
    box.built(drivers.KERNEL, "updates/dkms")
    box.tree.file("/lib/modules/6.1.9/extra/axcl_host.ko.xz", b"\xfd7zXZ\0")
    box.tree.file("/lib/modules/6.1.9/extra/other.ko")
    found = kernels.read_kernels(box.root, driver.MODULES)
    assert [(one.release, one.running, one.headers) for one in found] == [
        ("6.1.9", False, False),
        (drivers.KERNEL, True, True),
    ]
    assert [(one.name, one.vermagic) for one in found[0].modules] == [("axcl_host", None)]
    assert {one.name for one in found[1].modules} == set(driver.MODULES)
    assert {one.vermagic for one in found[1].modules} == {drivers.KERNEL + " SMP mod_unload aarch64"}


def test_headers_are_there_when_the_link_leads_somewhere(box: drivers.Box) -> None:
    box.remove("/usr/src/linux-headers-" + drivers.KERNEL)
    assert [one.headers for one in kernels.read_kernels(box.root)] == [False]


def test_status() -> None:
    text = (
        drivers.stanza("axclhost", "1.0.0", "hold ok half-configured")
        + drivers.stanza("axclhost-doc")
        + "Package: odd\nStatus: install ok\n\n"
        + drivers.stanza("old", status="install reinstreq half-installed")
    )
    found = packages.parse_status(text, lambda name: name != "axclhost-doc")
    assert set(found) == {"axclhost", "old"}
    assert found["axclhost"] == packages.Package("axclhost", "1.0.0", "arm64", "hold", "ok", "half-configured")
    assert (found["axclhost"].sound, found["old"].sound) == (False, False)
    assert packages.parse_status(drivers.stanza("a"), lambda name: True)["a"].sound is True
    assert packages.parse_status(drivers.stanza("a", status="install reinstreq installed"), bool)["a"].sound is False


@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
def test_deb(ending: str) -> None:
    found = packages.parse_deb(drivers.deb(ending, Homepage="x"))
    assert (found.problem, found.compression) == (None, None)
    assert found.control == {
        "Package": "axclhost",
        "Version": "1.0.0",
        "Architecture": "all",
        "Depends": "gcc (>= 9.4.0), make",
        "Homepage": "x",
        "Description": "x more",
    }


def test_deb_that_python_cannot_unpack() -> None:
    assert packages.parse_deb(drivers.deb(".zst")) == packages.Deb(compression="zst")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no .deb file: it begins with ''"),
        (b"<!DOCTYPE html><html>", "no .deb file: it begins with '<!DOCTYPE html><'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "no .deb file: it begins with 'version https://'"),
        (drivers.archive([("x", b"1")]), "an archive, but no .deb file: it begins with ['x']"),
        (
            drivers.archive([("debian-binary", b"2.0\n"), ("data.tar", b"")]),
            "an archive, but no .deb file: control.tar is missing",
        ),
        (
            drivers.archive([("debian-binary", b"2.0\n"), ("control.tar.gz", b"rubbish"), ("data.tar", b"")]),
            "its control data cannot be read (Error -3 while decompressing data: incorrect header check)",
        ),
        (
            drivers.archive(
                [("debian-binary", b"2.0\n"), ("control.tar", drivers._tar({"x": "y"})), ("data.tar", b"")]
            ),
            "its control data cannot be read (no control file)",
        ),
    ],
)
def test_what_is_no_deb(data: bytes, problem: str) -> None:
    assert packages.parse_deb(data).problem == problem


def test_deb_that_is_cut_off_anywhere() -> None:
    whole = drivers.deb()
    last = len(whole) - len(b"payload\n")
    for length in range(len(whole) - 1):
        problem = packages.parse_deb(whole[:length]).problem
        assert problem is not None, length
        if length > last:
            assert problem == "cut off: %d of at least %d bytes" % (length, len(whole) - 1)


@pytest.mark.parametrize(
    ("name", "version", "sdk"),
    [
        (drivers.VENDOR_FILE, "1.0.0", "3.6.4"),
        ("axclhost_x86_64_8G_V2.25.0_20250207.deb", "1.0", "2.25.0"),
        ("axclhost_3.6.5-m5stack1_arm64.deb", "3.6.5-m5stack1", "3.6.5"),
        ("package.deb", "1:3.16.0+dshanpi1", "3.16.0"),
        ("package.deb", "1.0.0", None),
        ("package.deb", None, None),
        ("", "2:1", None),
        ("axclhost_3.6.5-m5stack1_arm64.deb", None, "3.6.5"),
        ("task-axclhost_3.6.5-1_all.deb", None, "3.6.5"),
        ("axclhost_1.0.0_arm64.deb", "1.0.0", None),
        ("x_1.2.3.4.deb", None, None),
    ],
)
def test_sdk_version(name: str, version: Any, sdk: Any) -> None:
    assert packages.sdk_version(name, version) == sdk


def test_pristine_host(box: drivers.Box) -> None:
    state = driver.read_driver_state(box.root)
    assert (state.packages, state.rules, state.autoload, state.dkms, state.loaded) == ({}, (), (), (), ())
    assert (state.kernel, state.architecture, state.kernel_compiler, state.compiler) == (
        drivers.KERNEL,
        "arm64",
        12,
        12,
    )
    assert (state.secure_boot, state.sandbox, state.source_tree, state.free_mib) == (None, None, False, {})
    assert state.cards == (driver.Card(hosts.BDF, None),)
    assert state.record == driver.NO_RECORD


@pytest.mark.parametrize("family", ["vendor", "dkms"])
def test_what_a_package_leaves(box: drivers.Box, family: str) -> None:
    box.family = family
    assert box.run(["dpkg", "--install", box.package_file()], 1.0).status == 0
    state = driver.read_driver_state(box.root)
    assert state.packages["axclhost"].sound
    assert state.sandbox == driver.SANDBOX_TEXT
    assert [one.path for one in state.rules] == ["/etc/udev/rules.d/axcl_host.rules"]
    assert [one.path for one in state.autoload] == ["/etc/modules-load.d/axcl_pcie.conf"]
    assert state.source_tree is (family == "vendor")
    if family == "dkms":
        assert state.dkms == (driver.DkmsTree("axclhost", "1.0", False, (drivers.KERNEL,)),)
        assert state.loaded == ()
    else:
        assert state.loaded == driver.MODULES
        assert state.cards == (driver.Card(hosts.BDF, "ax_pcie_dev_host"),)


def test_dkms_of_others_is_not_ours_to_look_at(box: drivers.Box) -> None:
    box.tree.file("/usr/src/zfs-2.1/dkms.conf", 'BUILT_MODULE_NAME[0]="zfs"\n')
    box.tree.link("/var/lib/dkms/zfs/2.1/source", "/usr/src/zfs-2.1")
    assert driver.read_dkms(box.root) == ()


def test_dkms_of_a_package_that_took_its_sources_along(box: drivers.Box) -> None:
    box.tree.link("/var/lib/dkms/axclhost/3.6.5/source", "/usr/src/axclhost-3.6.5")
    box.tree.link("/var/lib/dkms/axclhost/kernel-6.1.57-aarch64", "3.6.5/6.1.57/aarch64")
    box.tree.link("/var/lib/dkms/zfs/2.1/source", "/usr/src/zfs-2.1")
    assert driver.read_dkms(box.root) == (driver.DkmsTree("axclhost", "3.6.5", False, ("6.1.57",), sources=False),)


def test_a_file_of_etc_hides_the_package_s(box: drivers.Box) -> None:
    box.tree.file("/usr/lib/udev/rules.d/60-axcl.rules", drivers.RULES)
    box.tree.file("/usr/lib/modules-load.d/axcl.conf", drivers.AUTOLOAD)
    assert [one.path for one in driver.read_driver_state(box.root).rules] == ["/usr/lib/udev/rules.d/60-axcl.rules"]
    box.tree.file("/etc/udev/rules.d/60-axcl.rules", "# nothing\n")
    box.tree.file("/etc/modules-load.d/axcl.conf", "# axcl_host\n")
    state = driver.read_driver_state(box.root)
    assert (state.rules, state.autoload) == ((), ())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (drivers.RULES, True),
        ('KERNEL=="axcl_host", GROUP="<users>", MODE="0660"', True),
        ('SUBSYSTEM=="misc", KERNEL=="x|ax_mmb_dev|y", MODE="0666"', True),
        ('# KERNEL=="axcl_host", MODE="0666"', False),
        ('KERNEL=="axcl_hosts", MODE="0666"', False),
        ('KERNEL=="sda"', False),
    ],
)
def test_rules_for_the_nodes(text: str, found: bool) -> None:
    assert driver.names_nodes(text) is found


@pytest.mark.parametrize(
    ("data", "on"),
    [(b"\6\0\0\0\1", True), (b"\6\0\0\0\0", False), (b"", None), (b"\6\0\0\0", None), (None, None)],
)
def test_secure_boot(data: Any, on: Any) -> None:
    assert driver.parse_secure_boot(data) is on


def test_enrolled_key(box: drivers.Box) -> None:
    key = bytes(range(100))
    box.tree.file(driver.DKMS_KEYS[0], key)
    assert driver.read_driver_state(box.root).key_enrolled is False
    box.tree.file(driver.ENROLLED_KEYS, b"\6\0\0\0header" + key + b"more")
    assert driver.read_driver_state(box.root).key_enrolled is True
    box.tree.file(driver.DKMS_KEYS[0], b"")
    assert driver.read_driver_state(box.root).key_enrolled is False


def test_holders(box: drivers.Box) -> None:
    box.tree.link("/proc/812/fd/3", "/dev/axcl_host")
    box.tree.link("/proc/812/fd/4", "/dev/axcl_host")
    box.tree.link("/proc/812/fd/5", "socket:[1]")
    box.tree.file("/proc/812/comm", "frigate\n")
    box.tree.link("/proc/900/fd/0", "/dev/null")
    assert driver.read_holders(box.root) == (driver.Holder(812, "frigate", "/dev/axcl_host"),)


def test_who_is_loading_it(box: drivers.Box) -> None:
    for pid, name, line in (
        (640, "modprobe", "/sbin/modprobe\0axcl_host\0"),
        (641, "insmod", "insmod\0/lib/modules/6.1.57/extra/ax_pcie_msg.ko.xz\0"),
        (642, "modprobe", "modprobe\0nvme\0"),
        (643, "vim", "vim\0axcl_host\0"),
    ):
        box.tree.file("/proc/%d/comm" % pid, name + "\n")
        box.tree.file("/proc/%d/cmdline" % pid, line)
    assert driver.read_loaders(box.root) == (
        driver.Holder(640, "modprobe", "axcl_host"),
        driver.Holder(641, "insmod", "ax_pcie_msg"),
    )


@pytest.mark.parametrize(
    ("cgroup", "service"),
    [
        ("0::/system.slice/axllm.service\n", "axllm.service"),
        ("12:cpu:/\n1:name=systemd:/system.slice/system-ollama.slice/ollama@1.service\n", "ollama@1.service"),
        ("0::/system.slice/docker.service/payload\n", "docker.service"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_service_of_a_process(box: drivers.Box, cgroup: str, service: Any) -> None:
    box.tree.file("/proc/812/cgroup", cgroup)
    assert driver.service_of(box.root, 812) == service


def test_loaded_module_that_is_not_the_installed_one(box: drivers.Box) -> None:
    box.built(drivers.KERNEL, "updates/dkms", "ABC")
    box.tree.file("/sys/module/axcl_host/srcversion", "ABC\n")
    assert driver.read_driver_state(box.root).stale == ()
    box.tree.file("/sys/module/axcl_host/srcversion", "DEF\n")
    assert driver.read_driver_state(box.root).stale == ("axcl_host",)


RECORDS: Dict[str, driver.Record] = {
    "": driver.NO_RECORD,
    "[]": driver.NO_RECORD,
    "{": driver.NO_RECORD,
    '{"schema": 2, "sha256": "a"}': driver.NO_RECORD,
    '{"schema": 1, "sha256": 5, "held": 1}': driver.NO_RECORD,
    '{"schema": 1, "sha256": "a", "package": "p", "sdk": null, "group": "g", "held": true}': driver.Record(
        "a", "p", None, "g", None, True
    ),
}


@pytest.mark.parametrize("text", RECORDS)
def test_record(text: str) -> None:
    assert driver.parse_record(text) == RECORDS[text]


def test_live_system_is_read() -> None:
    """Whatever this machine is, nothing stops at it."""
    state = driver.read_driver_state(Root("/"))
    assert state.kernel == os.uname().release
    assert all(value >= 0 for value in state.free_mib.values())
