# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's life with the driver: installed, kept, upgraded, broken, taken away, and killed in between."""

from __future__ import annotations

import hashlib
from typing import Any, Dict, List, Optional, Sequence, Tuple

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import driver
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.driver import Done, Failed
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.driver import (
    ENABLED,
    SLEEP_TARGETS,
    UDEV_RULES,
    UNIT,
    DriverWishes,
    Offer,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import (
    INSTALL_LOG,
    MODULES,
    RECORD,
    SANDBOX,
    SANDBOX_TEXT,
    read_driver_state,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import drivers
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.drivers import KERNEL, NEWER, Box
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

WISHES = DriverWishes()
FAMILIES = ("vendor", "dkms")


class Killed(BaseException):
    """What SIGKILL does to a run, as far as a test can."""


@pytest.fixture(params=FAMILIES)
def box(request: pytest.FixtureRequest, tree: Tree) -> Box:
    return Box(tree, request.param)


def offer_of(box: Box, path: str, name: str = "") -> Offer:
    """Return what a file on the host offers."""
    sha256 = hashlib.sha256(box.path(path).read_bytes()).hexdigest()
    return driver.look_at_deb(box.root, path, name or path.rpartition("/")[2], sha256, None, box.run)


def install(box: Box, check: bool = False, wishes: DriverWishes = WISHES, path: Optional[str] = None) -> Done:
    """Have the driver."""
    return driver.make_present(box.kernel, offer_of(box, path or box.package_file()), wishes, box.run, check)


def kinds(done: Done) -> List[str]:
    """Return the kinds of steps that were done, files left out."""
    return [change.path.partition(":")[0] for change in done.changes if not change.path.startswith("/")]


def test_installed(box: Box) -> None:
    done = install(box)
    assert (done.obstacles, done.refused) == ([], [])
    assert list(box.loaded) == list(MODULES)
    assert not box.has(SANDBOX)
    assert "0666" not in box.text("/etc/udev/rules.d/axcl_host.rules")
    assert "ax_pcie" not in box.text("/etc/modules-load.d/axcl_pcie.conf")
    assert 'GROUP="axcl", MODE="0660"' in box.text(UDEV_RULES)
    assert box.path(ENABLED).is_symlink()
    assert [line for line in box.text(UNIT).splitlines() if line.startswith(("ExecStart", "Timeout"))] == [
        *("ExecStart=/sbin/modprobe " + module for module in MODULES),
        "TimeoutStartSec=300",
    ]
    assert all(box.path(path).is_symlink() for path in SLEEP_TARGETS)
    state = read_driver_state(box.root)
    assert state.packages["axclhost"].want == "hold"
    assert "axcl" in state.groups
    assert state.kernels[0].modules
    assert all("/updates/dkms/" in module.path for module in state.kernels[0].modules)
    assert "systemctl daemon-reload" in box.commands
    assert "udevadm control --reload" in box.commands
    limit = [seconds for line, seconds in box.limits.items() if "--install" in line]
    assert limit == [driver.INSTALL_S + 300]


def test_vendor_s_sources_are_built_by_dkms(tree: Tree) -> None:
    box = Box(tree)
    box.kernel_installed(NEWER)
    box.kernel_installed("6.1.9", headers=False)
    done = install(box)
    assert kinds(done) == ["install", "sandbox", "tree", "build", "build", "group", "hold", "drop"]
    sources = "/usr/src/edgenpu-axcl-3.6.4-" + read_driver_state(box.root).record.sha256[:8]  # type: ignore[index]
    conf = box.text(sources + "/dkms.conf")
    assert "make host=arm64 KERNEL_VER=$kernelver " in conf
    assert 'BUILT_MODULE_NAME[3]="axcl_host"\nBUILT_MODULE_LOCATION[3]="out/axcl_linux_arm64/ko/"\n' in conf
    assert box.has(sources + "/drv/pcie/driver/Makefile")
    assert not box.has(sources + "/out")
    assert not box.has(sources + "/drv/pcie/driver/host_dev/x.o")
    assert [kernel.release for kernel in read_driver_state(box.root).kernels if kernel.modules] == [KERNEL, NEWER]
    assert not box.has("/lib/modules/%s/extra" % KERNEL)
    assert "depmod " + KERNEL in box.commands


def test_second_run_plans_nothing(box: Box) -> None:
    install(box)
    before, count = box.snapshot(), len(box.commands)
    done = install(box)
    assert (done.changes, done.files, done.refused) == ([], [], [])
    assert (box.snapshot(), box.commands[count:]) == (before, [])


def test_check_mode_changes_nothing_and_predicts(box: Box) -> None:
    before = box.snapshot()
    path = box.package_file()
    before = box.snapshot()
    predicted = install(box, check=True)
    assert (box.snapshot(), box.commands, box.kernel.events) == (before, [], [])
    assert not box.has("/run/edgenpu-tuning.lock")
    assert predicted.unknown[-1] == "whether the card comes up: unknown until it has its firmware"
    made = install(box, path=path)
    foreseen = {change.path for change in predicted.changes}
    # What it cannot foresee is said in UNKNOWN: which files of the package are replaced, what its scripts spoil.
    surprises = {change.path for change in made.changes} - foreseen
    assert {path for path in surprises if path.startswith("/etc")} == {
        "/etc/udev/rules.d/axcl_host.rules",
        "/etc/modules-load.d/axcl_pcie.conf",
    }
    assert {path.partition(":")[0] for path in surprises if path[0] != "/"} <= {"sandbox", "drop", "load"}
    assert install(box, check=True, path=path).changes == []


def test_new_kernel_gets_the_driver(box: Box) -> None:
    install(box)
    box.kernel_installed(NEWER)
    assert kinds(install(box)) == ["build"]
    assert [len(kernel.modules) for kernel in read_driver_state(box.root).kernels] == [5, 5]


def test_new_kernel_without_headers_is_told_before_the_boot(box: Box) -> None:
    install(box)
    box.kernel_installed(NEWER, headers=False)
    done = install(box)
    assert done.changes == []
    assert done.warnings == [
        "do not boot kernel %s yet: it has no headers, so the driver cannot be built for it; install its headers "
        "and run this again" % NEWER
    ]


def test_kernel_for_which_it_does_not_build(box: Box) -> None:
    install(box)
    box.kernel_installed("6.13.1")
    done = install(box)
    assert done.changes == []
    assert [line.partition(":")[0] for line in done.warnings] == ["do not boot kernel 6.13.1 yet"]


def test_build_that_fails(tree: Tree) -> None:
    box = Box(tree)
    box.kernel_installed(NEWER)
    name = "edgenpu-axcl/3.6.4-" + offer_of(box, box.package_file()).sha256[:8]  # type: ignore[index]
    box.fail["dkms install --force %s -k %s" % (name, NEWER)] = (10, "Error! Bad return status")
    log = "make: ok\n\x1b[31mx.c:3:1: error: implicit declaration\x1b[0m\nmake: *** Error 2\n"
    box.tree.file("/var/lib/dkms/%s/build/make.log" % name, log)
    box.remove("/var/lib/dkms/" + name)
    box.before = lambda line: box.tree.file("/var/lib/dkms/%s/build/make.log" % name, log) if NEWER in line else None
    done = install(box)
    assert [change.why for change in done.refused] == [
        "the driver does not build for kernel %s: x.c:3:1: error: implicit declaration; whole log: "
        "/var/lib/dkms/%s/build/make.log" % (NEWER, name)
    ]
    assert list(box.loaded) == list(MODULES)
    assert read_driver_state(box.root).kernels[0].modules


def other(box: Box) -> str:
    """Return another version of the package."""
    return box.package_file(
        drivers.deb(version="2", depends="dkms" if box.family == "dkms" else "gcc"), "axcl_host_aarch64_V3.10.2_2.deb"
    )


def test_upgrade_takes_the_old_one_away_first(box: Box) -> None:
    install(box)
    sources = [path for path in box.snapshot() if path.startswith("/usr/src/edgenpu-axcl")]
    box.commands.clear()
    done = install(box, path=other(box))
    assert kinds(done)[:3] == (
        ["unload", "unhold", "untree"] if box.family == "vendor" else ["unload", "unhold", "purge"]
    )
    order = [line for line in box.commands if line.startswith(("modprobe -r", "dpkg"))]
    assert order[:5] == ["modprobe -r " + module for module in reversed(MODULES)]
    assert [line.split()[1:3] for line in order[5:]] == [
        ["--force-remove-reinstreq", "--purge"],
        ["--force-confnew", "--install"],
    ]
    assert not any(box.has(path) for path in sources)
    assert list(box.loaded) == list(MODULES)
    assert read_driver_state(box.root).record.sdk == "3.10.2"
    assert install(box, path=other(box)).changes == []
    assert len([name for name in box.root.names(driver.PACKAGES) if name.endswith(".deb")]) == 1


def split(box: Box, version: str = "3.6.5-1") -> Offer:
    """Return what a driver in three files offers, as Radxa has it."""
    contents = [
        drivers.deb(Package="task-axclhost", version=version, depends="axclhost-dkms, axclhost-firmware"),
        drivers.deb(Package="axclhost-firmware", version=version, depends=""),
        drivers.deb(Package="axclhost-dkms", version=version, depends="dkms (>= 2), axclhost-firmware (>= 3) | x"),
    ]
    names = ["%s_%s_all.deb" % (name, version) for name in ("task-axclhost", "axclhost-firmware", "axclhost-dkms")]
    paths = [box.package_file(data, name) for data, name in zip(contents, names)]
    sums: List[Optional[str]] = [hashlib.sha256(data).hexdigest() for data in contents]
    return driver.look_at_debs(box.root, paths, names, sums, None, box.run)


def have(box: Box, offer: Offer) -> Done:
    """Have what is offered."""
    return driver.make_present(box.kernel, offer, WISHES, box.run)


def test_driver_in_several_files(tree: Tree) -> None:
    box = Box(tree, "dkms")
    done = have(box, split(box))
    assert (done.obstacles, done.refused) == ([], [])
    assert done.changes[0].path == "install: axclhost-dkms axclhost-firmware task-axclhost"
    (line,) = [line for line in box.commands if line.startswith("dpkg")]
    order = [drivers.parse_deb(box.path(path).read_bytes()).control for path in line.split()[3:]]
    assert [(one or {})["Package"] for one in order] == ["axclhost-firmware", "axclhost-dkms", "task-axclhost"]
    state = read_driver_state(box.root)
    assert {name: one.want for name, one in state.packages.items()} == dict.fromkeys(
        ("axclhost-dkms", "axclhost-firmware", "task-axclhost"), "hold"
    )
    assert state.record.sdk == "3.6.5"
    before, count = box.snapshot(), len(box.commands)
    assert have(box, split(box)).changes == []
    assert (box.snapshot(), box.commands[count:]) == (before, [])
    box.drop_package("axclhost-firmware")
    assert "install" in kinds(have(box, split(box)))


def test_several_files_are_upgraded_and_go_together(tree: Tree) -> None:
    box = Box(tree, "dkms")
    before = {path: value for path, value in box.snapshot().items() if value[0] != "directory"}
    have(box, split(box))
    box.commands.clear()
    have(box, split(box, "3.10.2-1"))
    purged = "dpkg --force-remove-reinstreq --purge axclhost-dkms axclhost-firmware task-axclhost"
    assert [line for line in box.commands if "--purge" in line] == [purged]
    assert {one.version for one in read_driver_state(box.root).packages.values()} == {"3.10.2-1"}
    assert len([name for name in box.root.names(driver.PACKAGES) if name.endswith(".deb")]) == 3
    have(box, split(box))
    assert {one.version for one in read_driver_state(box.root).packages.values()} == {"3.6.5-1"}
    assert install(box).refused == []
    assert list(read_driver_state(box.root).packages) == ["axclhost"]
    driver.make_absent(box.kernel, box.run)
    after = {path: value for path, value in box.snapshot().items() if value[0] != "directory" and path[:6] != "/root/"}
    assert after == before


def test_several_files_of_which_the_new_ones_fail_go_back(tree: Tree) -> None:
    box = Box(tree, "dkms")
    have(box, split(box))
    was = read_driver_state(box.root)
    new = split(box, "3.10.2-1")
    first = driver.cached(str(new.sha256), new.parts[0].sha256)
    box.fail["dpkg --force-confnew --install " + first] = (1, "dpkg: error")
    with pytest.raises(Failed) as caught:
        have(box, new)
    assert str(caught.value).endswith("failed: dpkg: error; the package that was there before is back")
    now = read_driver_state(box.root)
    assert (now.record, now.packages, now.loaded) == (was.record, was.packages, was.loaded)
    assert have(box, split(box)).changes == []


def test_one_bad_file_of_several_changes_nothing(tree: Tree) -> None:
    box = Box(tree, "dkms")
    good = split(box)
    before = box.snapshot()
    paths = [str(part.path) for part in good.parts]
    names = [part.file_name for part in good.parts]
    sums: List[Optional[str]] = [part.sha256 for part in good.parts]

    def told(at: Sequence[int] = (0, 1, 2), wrong: Sequence[Optional[str]] = sums) -> List[str]:
        offer = driver.look_at_debs(
            box.root, [paths[i] for i in at], [names[i] for i in at], [wrong[i] for i in at], None, box.run
        )
        done = have(box, offer)
        assert (done.changes, box.snapshot(), box.commands) == ([], before, [])
        return done.obstacles

    (sentence,) = told(wrong=[sums[0], "00" * 32, sums[2]])
    assert sentence.startswith("%s: its sha256 is %s and not 00" % (paths[1], sums[1]))
    assert told(at=(1, 2)) == [
        paths[2] + " needs the package axclhost-firmware, which is not among the files; give all files of the driver",
    ]
    assert told(at=(0, 1, 2, 1)) == [
        "the package axclhost-dkms is in more than one of the files (%s, %s); give each once" % (names[1], names[1])
    ]
    box.package_file(drivers.deb(Package="axclhost-firmware", architecture="amd64", depends=""), "fw.deb")
    box.package_file(drivers.deb(Package="vim", depends=""), "vim.deb")
    before = box.snapshot()
    paths, names, sums = ["/root/fw.deb", "/root/vim.deb"], ["fw.deb", "vim.deb"], [None, None]
    assert told(at=(0, 1), wrong=sums) == [
        "/root/fw.deb is built for amd64 and this host is arm64; take the package for arm64",
        "/root/vim.deb holds the package vim, which is no AXCL driver; give the driver's package",
    ]


def test_downgrade(box: Box) -> None:
    install(box, path=other(box))
    install(box)
    assert read_driver_state(box.root).record.sdk == ("3.6.4")
    assert install(box).changes == []


def test_upgrade_that_fails_goes_back(box: Box) -> None:
    install(box)
    was = read_driver_state(box.root)
    failing = other(box)
    sha256 = offer_of(box, failing).sha256
    box.fail["dpkg --force-confnew --install %s" % driver.cached(str(sha256))] = (1, "dpkg: error processing package")
    with pytest.raises(Failed) as caught:
        install(box, path=failing)
    assert str(caught.value) == (
        "installing axclhost failed: dpkg: error processing package; the package that was there before is back"
    )
    now = read_driver_state(box.root)
    assert (now.record, now.packages, now.loaded, now.dkms) == (was.record, was.packages, was.loaded, was.dkms)
    assert install(box).changes == []


def test_upgrade_that_did_not_build_is_not_tried_at_every_run(tree: Tree) -> None:
    box = Box(tree)
    install(box)
    failing = other(box)
    path = driver.cached(str(offer_of(box, failing).sha256))
    box.fail["dpkg --force-confnew --install %s" % path] = (1, "E: build driver fail")
    box.before = lambda line: box.tree.file(INSTALL_LOG, "error: x\n") if path in line else None
    with pytest.raises(Failed, match=r"first error: error: x.*is back"):
        install(box, path=failing)
    count = len(box.commands)
    done = install(box, path=failing)
    assert done.obstacles == [
        (
            "axcl_host_aarch64_V3.10.2_2.deb did not build for kernel 6.1.57 before, and the driver that was there was "
            "put back; see /var/log/axclhost-install.log.failed, and remove that file to try again"
        )
    ]
    assert box.commands[count:] == []
    assert install(box).changes == []
    box.remove(driver.FAILED_LOG)
    box.fail.clear()
    box.before = lambda line: None
    assert install(box, path=failing).obstacles == []
    assert read_driver_state(box.root).record.failed is None


def test_first_installation_that_fails_leaves_nothing(box: Box) -> None:
    path = box.package_file()
    before = box.snapshot()
    box.fail["build"] = (1, "")
    with pytest.raises(Failed, match=r"build driver fail.*nothing of it is left on the host"):
        install(box, path=path)
    assert [name for name in set(box.snapshot()) - set(before) if box.path(name).is_file()] == []
    assert read_driver_state(box.root).packages == {}
    assert not box.has(SANDBOX)
    del box.fail["build"]
    assert install(box, path=path).refused == []


def test_compile_error_is_shown(tree: Tree) -> None:
    box = Box(tree)
    path = box.package_file()
    log = "make\nhost_dev.c:10:5: error: too few arguments\nmake: *** Error 2\n"
    box.fail["build"] = (1, log)
    box.tree.file(INSTALL_LOG, "of another time\n")
    with pytest.raises(Failed) as caught:
        install(box, path=path)
    assert str(caught.value) == (
        "installing axclhost failed: E: build driver fail, please check /var/log/axclhost-install.log (first error: "
        "host_dev.c:10:5: error: too few arguments; whole log: /var/log/axclhost-install.log.failed); nothing of it is "
        "left on the host"
    )
    assert box.text(driver.FAILED_LOG) == log
    del box.fail["build"]
    install(box, path=path)
    assert not box.has(driver.FAILED_LOG)


def test_installation_that_hangs(box: Box) -> None:
    box.fail["dpkg --force-confnew"] = (124, "")
    box.fail["dmesg"] = (0, "[   12.5] [axcl_pcie_host_init, 12]: [step0]: Handshake timeout!\n")
    with pytest.raises(Failed) as caught:
        install(box)
    assert str(caught.value) == (
        "installing axclhost took longer than 2100 s; the kernel says: [axcl_pcie_host_init, 12]: [step0]: Handshake "
        "timeout!"
    )
    box.fail.clear()
    assert install(box).refused == []


def test_half_configured_package_is_taken_away_first(box: Box) -> None:
    box.fail["build"] = (1, "")
    box.run(["dpkg", "--install", box.package_file()], 1.0)
    box.fail.clear()
    box.commands.clear()
    assert read_driver_state(box.root).packages["axclhost"].state == "half-configured"
    assert "purge" in kinds(install(box))
    assert install(box).changes == []


def test_users_of_the_card_stand_in_the_way(box: Box) -> None:
    install(box)
    before = box.snapshot()
    path = other(box)
    box.tree.link("/proc/77/fd/5", "/dev/axcl_host")
    box.tree.file("/proc/77/comm", "llm\n")
    done = install(box, path=path)
    assert [line.partition(";")[0] for line in done.obstacles] == [
        "the driver cannot be unloaded while it is in use by llm (PID 77)"
    ]
    assert driver.make_absent(box.kernel, box.run).obstacles == done.obstacles
    assert {name: box.snapshot()[name] for name in before} == before
    assert install(box).obstacles == []


def test_tools_are_installed_first_and_only_if_all_can_be_had(box: Box) -> None:
    for name in ("dkms", "make"):
        box.drop_package(name)
    box.remove("/usr/src/linux-headers-" + KERNEL)
    done = install(box)
    assert done.changes[0].path == "tools: dkms make linux-headers-" + KERNEL
    apt = [line for line in box.commands if line.startswith("apt-get")]
    assert "--simulate" in apt[0]
    assert len(apt) == 2


def test_tools_that_cannot_be_had(box: Box) -> None:
    box.drop_package("dkms")
    path = box.package_file()
    before = box.snapshot()
    box.fail["apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends --simulate"] = (
        100,
        "Reading package lists...\nE: Unable to locate package dkms\n",
    )
    with pytest.raises(Failed) as caught:
        install(box, path=path)
    assert str(caught.value) == (
        "dkms must be installed and apt-get cannot: E: Unable to locate package dkms; install it by hand, or give apt "
        "a source that has it"
    )
    assert box.snapshot() == before


def test_loading_that_fails_is_told_with_the_kernel_s_words(tree: Tree) -> None:
    box = Box(tree, "dkms")
    box.fail["systemctl restart"] = (1, "Job for edgenpu-axcl-load.service failed")
    box.fail["dmesg"] = (0, "[   12.5] Patch file not found axcl/ax650_card.pac.\n")
    done = install(box)
    assert [change.why for change in done.refused] == [
        (
            "loading the driver: Job for edgenpu-axcl-load.service failed; the kernel says: Patch file not found "
            "axcl/ax650_card.pac.; see journalctl -u edgenpu-axcl-load.service"
        )
    ]
    assert box.limits["systemctl restart edgenpu-axcl-load.service"] == 360


def test_nodes_that_another_rule_opens_again(box: Box) -> None:
    install(box)
    box.path("/dev/axcl_host").chmod(0o666)
    done = install(box)
    assert (done.changes, [change.path for change in done.refused]) == ([], ["/dev/axcl_host"])
    assert "udev leaves /dev/axcl_host as 0666" in done.refused[0].why
    box.before = lambda line: box.path("/dev/axcl_host").chmod(0o660) if "udevadm trigger" in line else None
    done = install(box)
    assert (kinds(done), done.refused) == (["nodes"], [])


def test_user_s_apt_configuration_comes_back(box: Box) -> None:
    box.tree.file(SANDBOX, "// mine\n")
    install(box)
    assert box.text(SANDBOX) == "// mine\n"
    driver.make_absent(box.kernel, box.run)
    assert box.text(SANDBOX) == "// mine\n"


def test_what_was_installed_by_hand_is_adopted(box: Box) -> None:
    box.run(["dpkg", "--install", box.package_file()], 1.0)
    box.commands.clear()
    done = driver.make_present(box.kernel, None, WISHES, box.run)
    assert done.obstacles == []
    assert "install" not in kinds(done)
    assert not box.has(SANDBOX)
    assert list(box.loaded) == list(MODULES)
    assert driver.make_present(box.kernel, None, WISHES, box.run).changes == []


def test_without_source_and_driver(box: Box) -> None:
    done = driver.make_present(box.kernel, None, WISHES, box.run)
    assert done.obstacles == ["no AXCL driver is installed and there is no source to install one from; give one"]
    assert box.commands == []


def test_absent_gives_everything_back(box: Box) -> None:
    path = box.package_file()
    box.tree.file("/etc/modules-load.d/mine.conf", "nvme\naxcl_host\n")
    box.kernel_installed(NEWER)
    before = box.snapshot()
    install(box)
    assert box.text("/etc/modules-load.d/mine.conf").splitlines()[1:] == ["nvme"]
    predicted = driver.make_absent(box.kernel, box.run, check=True)
    assert predicted.changes
    assert box.has(UNIT)
    done = driver.make_absent(box.kernel, box.run)
    assert (done.refused, box.loaded) == ([], [])
    after = box.snapshot()
    gone = {name for name in after if name not in before}
    assert [name for name in gone if after[name][0] != "directory"] == []
    assert {name: after[name] for name in before} == before
    again = driver.make_absent(box.kernel, box.run)
    assert (again.changes, again.obstacles) == ([], [])
    assert path in before


def test_modules_put_there_by_hand_are_not_ours(box: Box) -> None:
    box.built(KERNEL, "extra")
    for module in MODULES:
        box.run(["modprobe", module], 1.0)
    before = box.snapshot()
    done = driver.make_absent(box.kernel, box.run)
    assert (done.changes, done.obstacles, box.snapshot()) == ([], [], before)
    assert list(box.loaded) == list(MODULES)


def test_what_was_installed_by_hand_goes_whole(box: Box) -> None:
    box.run(["dpkg", "--install", box.package_file()], 1.0)
    driver.make_absent(box.kernel, box.run)
    left = read_driver_state(box.root)
    assert (left.packages, left.loaded, left.dkms, left.sandbox) == ({}, (), (), None)
    assert not any(kernel.modules for kernel in left.kernels)
    assert not box.has(RECORD)


def test_hold_is_taken_back(box: Box) -> None:
    install(box)
    done = install(box, wishes=WISHES._replace(hold=False))
    assert kinds(done) == ["unhold"]
    assert install(box, wishes=WISHES._replace(hold=False)).changes == []


def test_user_s_own_hold_is_left(box: Box) -> None:
    install(box, wishes=WISHES._replace(hold=False))
    box.run(["apt-mark", "hold", "axclhost"], 1.0)
    assert install(box, wishes=WISHES._replace(hold=False)).changes == []


def test_sleep_is_given_back(box: Box) -> None:
    install(box)
    done = install(box, wishes=WISHES._replace(prevent_sleep=False))
    assert [change.path for change in done.changes] == list(SLEEP_TARGETS)
    assert not any(box.has(path) for path in SLEEP_TARGETS)


def _life(box: Box, path: str, wanted: str) -> Any:
    if wanted == "absent":
        return driver.make_absent(box.kernel, box.run)
    return install(box, path=path)


def mortal(box: Box, at: int, after: bool) -> List[str]:
    """Let a box die before or after its command number AT; return the list of those that it is asked to run."""
    seen: List[str] = []
    run = box.run

    def dying(argv: Sequence[str], timeout_s: float) -> Ran:
        seen.append(" ".join(argv))
        if len(seen) == at + 1 and not after:
            raise Killed
        ran = run(argv, timeout_s)
        if len(seen) == at + 1:
            raise Killed
        return ran

    box.run = dying  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("wanted", ["installed", "upgraded", "absent"])
def test_killed_at_any_command_and_repeated(box: Box, tmp_path: Any, wanted: str) -> None:
    """Whatever command a run is killed before or after, the next one ends where an undisturbed one does."""

    def fresh(name: str) -> Tuple[Box, str]:
        one = Box(Tree(tmp_path / name), box.family)
        one.kernel_installed(NEWER)
        path = one.package_file()
        if wanted != "installed":
            install(one)
        if wanted == "upgraded":
            path = other(one)
        one.commands.clear()
        return one, path

    def end(one: Box) -> Dict[str, Any]:
        return {
            name: value
            for name, value in one.snapshot().items()
            if value[0] != "directory" and name != "/var/lib/edgenpu-tuning/ledger.json"
        }

    undisturbed, path = fresh("undisturbed")
    _life(undisturbed, path, wanted)
    count = len(undisturbed.commands)
    assert count > 5
    # Either before or after, in turn; of the family that does most by itself a part is enough.
    for at in range(0, count, 1 if box.family == "vendor" else 3):
        after = at % 2 == 0
        one, path = fresh("%d-%s" % (at, after))
        run, seen = one.run, mortal(one, at, after)
        with pytest.raises(Killed):
            _life(one, path, wanted)
        one.run = run  # type: ignore[method-assign]
        done = _life(one, path, wanted)
        assert (done.refused, done.obstacles) == ([], []), seen[at]
        assert end(one) == end(undisturbed), seen[at]
        assert one.loaded == undisturbed.loaded
        assert _life(one, path, wanted).changes == []


def test_locks_are_not_held_while_it_takes_minutes(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's loading starts the agent, which must not wait for us."""
    held: List[str] = []
    depth = [0]
    real = driver.Locked

    class Watched(real):  # type: ignore[valid-type,misc]
        def __enter__(self) -> Any:
            depth[0] += 1
            return super().__enter__()

        def __exit__(self, *error: Any) -> None:
            depth[0] -= 1
            super().__exit__(*error)

    monkeypatch.setattr(driver, "Locked", Watched)
    box.before = lambda line: held.append(line) if depth[0] else None
    install(box)
    driver.make_absent(box.kernel, box.run)
    assert {line.split()[0] for line in held} <= {"systemctl", "udevadm"}
    assert not [line for line in held if "restart" in line]
    assert SANDBOX_TEXT


def failing_upgrade(box: Box, output: str = "dpkg: error") -> str:
    """Return a file whose installation fails."""
    path = other(box)
    box.fail["dpkg --force-confnew --install %s" % driver.cached(str(offer_of(box, path).sha256))] = (1, output)
    return path


def test_driver_installed_by_hand_that_nobody_has_is_left_alone(box: Box) -> None:
    box.run(["dpkg", "--install", box.package_file()], 1.0)
    version = read_driver_state(box.root).packages["axclhost"].version
    box.versions = []
    path = other(box)
    before = box.snapshot()
    predicted = install(box, check=True, path=path)
    assert (
        "whether there is a way back to axclhost=%s: unknown until apt was asked for it; if it has it not, nothing is "
        "changed" % version
    ) in predicted.unknown
    with pytest.raises(Failed) as caught:
        install(box, path=path)
    assert str(caught.value) == (
        "axclhost=%s works, and there would be no way back to it if the new one fails: this role has no file of it and "
        "apt cannot fetch it (E: Can't find a source to download version '%s' of 'axclhost'); the driver was left "
        "alone. Remove it first (state: absent), or give apt a source that has it" % (version, version)
    )
    assert box.snapshot() == before
    driver.make_absent(box.kernel, box.run)
    assert install(box, path=path).obstacles == []


def test_driver_installed_by_hand_that_does_not_work_is_replaced(box: Box) -> None:
    box.run(["dpkg", "--install", box.package_file()], 1.0)
    box.versions = []
    box.remove("/lib/modules/%s/%s" % (KERNEL, "extra" if box.family == "vendor" else "updates"))
    assert install(box, path=other(box)).refused == []


def test_driver_that_apt_has_comes_back_after_a_file_that_fails(box: Box) -> None:
    box.run(["dpkg", "--install", box.package_file()], 1.0)
    version = str(read_driver_state(box.root).packages["axclhost"].version)
    box.versions = [version]
    with pytest.raises(Failed, match="axclhost=%s, which was there before, is back" % version):
        install(box, path=failing_upgrade(box))
    state = read_driver_state(box.root)
    assert (state.packages["axclhost"].version, state.record.sha256) == (version, None)
    assert list(box.loaded) == list(MODULES)
    assert driver.make_present(box.kernel, None, WISHES, box.run).changes == []


def test_driver_whose_source_apt_has_lost_comes_back_from_what_was_fetched(box: Box) -> None:
    box.run(["dpkg", "--install", box.package_file()], 1.0)
    version = str(read_driver_state(box.root).packages["axclhost"].version)
    box.versions = [version]
    box.tree.file(
        "%s/axclhost_%s_arm64.deb" % (driver.ARCHIVES, version), drivers.deb(version=version, architecture="arm64")
    )
    path = failing_upgrade(box)
    box.before = lambda line: box.versions.clear() if "--purge" in line else None
    with pytest.raises(Failed, match="which was there before, is back"):
        install(box, path=path)
    assert read_driver_state(box.root).packages["axclhost"].version == version
    assert list(box.loaded) == list(MODULES)


def test_file_that_did_not_build_over_apt_s_is_not_tried_at_every_run(tree: Tree) -> None:
    box = Box(tree)
    box.run(["dpkg", "--install", box.package_file()], 1.0)
    box.versions = ["1.0.0"]
    path = failing_upgrade(box, "E: build driver fail")
    beginning = next(iter(box.fail))
    box.before = lambda line: box.tree.file(INSTALL_LOG, "error: x\n") if line.startswith(beginning) else None
    with pytest.raises(Failed, match="is back"):
        install(box, path=path)
    assert "did not build for kernel" in install(box, path=path).obstacles[0]


@pytest.mark.parametrize("status", [1, 124])
def test_unloading_that_fails_half_way_loads_again(box: Box, status: int) -> None:
    install(box)
    path = other(box)
    before = box.snapshot()
    box.fail["modprobe -r " + MODULES[2]] = (status, "modprobe: FATAL: Module is in use.")
    with pytest.raises(Failed, match=r"unloading .*; the modules that were unloaded before are loaded again"):
        install(box, path=path)
    assert sorted(box.loaded) == sorted(MODULES)
    after = box.snapshot()
    assert {name for name in before if before[name] != after[name] and name != "/proc/modules"} == set()
    assert install(box).changes == []


def test_removal_that_fails_keeps_the_driver(box: Box) -> None:
    install(box)
    was = read_driver_state(box.root)
    path = other(box)
    box.fail["dpkg --force-remove-reinstreq --purge"] = (1, "dpkg: error: lock")
    with pytest.raises(Failed) as caught:
        install(box, path=path)
    assert str(caught.value) == ("removing axclhost failed: dpkg: error: lock; the driver that is there was kept")
    now = read_driver_state(box.root)
    assert (now.record, now.packages, now.loaded, now.dkms) == (was.record, was.packages, was.loaded, was.dkms)
    assert install(box).changes == []


def test_removal_that_leaves_half_of_it_is_made_up_for(box: Box) -> None:
    install(box)
    was = read_driver_state(box.root)
    path = other(box)
    box.fail["dpkg --force-remove-reinstreq --purge"] = (1, "dpkg: error: prerm")
    version = str(was.packages["axclhost"].version)

    def once(line: str) -> None:
        if "--purge" in line and "axclhost" in box.installed and len(box.fail) == 1:
            box.add_package("axclhost", status="deinstall ok half-configured", version=version)
            box.fail["never"] = (0, "")
        elif "--purge" in line:
            box.fail.clear()

    box.before = once
    with pytest.raises(Failed, match="prerm; the package that was there before is back"):
        install(box, path=path)
    now = read_driver_state(box.root)
    assert (now.record, now.packages, now.loaded, now.dkms) == (was.record, was.packages, was.loaded, was.dkms)
    assert install(box).changes == []


def test_compiler_that_was_installed_is_judged_before_anything_goes(box: Box) -> None:
    install(box)
    path = other(box)
    box.drop_package("gcc")
    box.remove("/usr/bin/gcc")
    box.remove("/usr/bin/gcc-12")

    def older(line: str) -> None:
        if line.endswith(" gcc") and "--simulate" not in line:
            box.tree.file("/usr/bin/gcc-10")
            box.tree.link("/usr/bin/gcc", "gcc-10")

    box.before = older
    count = len(box.commands)
    done = install(box, path=path)
    assert [line.partition(";")[0] for line in done.obstacles] == [
        "kernel %s was built with gcc 12 and /usr/bin/gcc is 10, which does not know its options" % KERNEL
    ]
    assert (kinds(done), done.obstacles[0].count("install gcc-12")) == (["tools"], 1)
    assert {line.split()[0] for line in box.commands[count:]} == {"apt-get"}
    assert list(box.loaded) == list(MODULES)


def test_headers_that_are_still_missing_change_nothing(box: Box) -> None:
    install(box)
    path = other(box)
    box.remove("/lib/modules/%s/build" % KERNEL)
    box.remove("/usr/src/linux-headers-" + KERNEL)
    count = len(box.commands)
    with pytest.raises(Failed) as caught:
        install(box, path=path, wishes=WISHES._replace(headers_package="headers-of-mine"))
    assert str(caught.value) == (
        "apt-get says that it has installed headers-of-mine, and that is still not there for kernel %s; install it by "
        "hand, or name the headers' package with headers_package" % KERNEL
    )
    assert {line.split()[0] for line in box.commands[count:]} == {"apt-get"}
    assert list(box.loaded) == list(MODULES)


def test_files_of_a_package_that_is_gone_do_not_come_back(box: Box) -> None:
    before = {name for name, value in box.snapshot().items() if value[0] != "directory"}
    install(box)
    path = other(box)
    # The new one has neither: its rules are elsewhere.
    box.before = lambda line: box.fail.update({line: (0, "")} if "--install" in line else {})
    with pytest.raises(Failed):
        install(box, path=path)
    assert not box.has("/etc/udev/rules.d/axcl_host.rules")
    assert not [entry for entry in Ledger(box.kernel).entries(driver.ROLE) if entry.id.endswith("axcl_pcie.conf")]
    box.fail.clear()
    driver.make_absent(box.kernel, box.run)
    left = {name for name, value in box.snapshot().items() if value[0] != "directory"} - before
    assert {name for name in left if name[:6] != "/root/"} == set()


def test_files_of_a_package_are_recorded_anew_after_an_upgrade(box: Box) -> None:
    box.tree.file("/etc/modules-load.d/mine.conf", "nvme\naxcl_host\n")
    install(box)
    install(box, path=other(box))
    kept = {entry.id for entry in Ledger(box.kernel).entries(driver.ROLE, "file")}
    names = {"/etc/udev/rules.d/axcl_host.rules", "/etc/modules-load.d/axcl_pcie.conf", "/etc/modules-load.d/mine.conf"}
    assert names <= kept
    assert "0666" not in box.text("/etc/udev/rules.d/axcl_host.rules")


def test_older_kernel_for_which_it_does_not_build(tree: Tree) -> None:
    box = Box(tree)
    box.kernel_installed("6.1.9")
    box.before = lambda line: box.fail.update({line: (10, "Error! Bad")} if line.endswith("-k 6.1.9") else {})
    warning = (
        "the driver does not build for kernel 6.1.9, which is older than the running one; it is not tried again with "
        "this driver; remove that kernel if you do not need it"
    )
    done = install(box)
    assert (done.refused, warning in done.warnings) == ([], True)
    assert [change.path for change in done.changes if change.path.startswith("build")] == ["build: " + KERNEL]
    count = len(box.commands)
    for check in (True, False):
        again = install(box, check=check)
        assert (again.changes, box.commands[count:], warning in again.warnings) == ([], [], True)
    install(box, path=other(box))
    assert [line for line in box.commands[count:] if line.endswith("-k 6.1.9")] != []
    assert install(box, path=other(box)).changes == []
    driver.make_absent(box.kernel, box.run)
    assert not box.has(RECORD)


def test_registration_that_a_package_has_left_does_not_win(tree: Tree) -> None:
    """A package for DKMS that is purged without telling DKMS, and then the vendor's."""
    box = Box(tree, "dkms")
    install(box)
    box.run(["dpkg", "--purge", "axclhost"], 1.0)
    assert box.root.names("/var/lib/dkms/axclhost") != []
    box.family = "vendor"
    path = box.package_file()
    predicted = install(box, check=True, path=path)
    assert "untree: axclhost/1.0" in [change.path for change in predicted.changes]
    done = install(box, path=path)
    assert (done.refused, "untree: axclhost/1.0" in [change.path for change in done.changes]) == ([], True)
    state = read_driver_state(box.root)
    assert [(one.ours, one.installed) for one in state.dkms] == [(True, (KERNEL,))]
    assert list(box.loaded) == list(MODULES)
    assert install(box, path=path).changes == []
