# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The driver is there, works, has nothing of what its package spoils, and its interrupt is where it should be."""

from __future__ import annotations

from box import CARD, DRIVER, TUNED, Box

MODULES = ("ax_pcie_host_dev", "ax_pcie_msg", "ax_pcie_mmb", "axcl_host", "ax_pcie_p2p_rc")
NODES = ("/dev/msg_userdev", "/dev/ax_mmb_dev", "/dev/axcl_host", "/dev/p2p")
LOADER = "edgenpu-axcl-load.service"


def test_modules_are_loaded_in_the_vendors_order(box: Box) -> None:
    """The kernel tells the newest first."""
    loaded = [line.split()[0] for line in box.shell("cat /proc/modules").splitlines()]
    assert [name for name in reversed(loaded) if name in MODULES] == list(MODULES)


def test_modules_are_those_that_dkms_built_for_this_kernel(box: Box) -> None:
    """The package's own, which a kernel upgrade would leave behind, are gone."""
    release = box.shell("uname -r").strip()
    for module in MODULES:
        path = box.shell(f"modinfo --field filename {module}").strip()
        assert path.startswith(f"/lib/modules/{release}/updates/")
        assert box.shell(f"modinfo --field vermagic {module}").split()[0] == release
    assert not box.shell(f"find /lib/modules/{release}/extra -name 'ax*' 2>/dev/null || true")
    status = box.shell("dkms status").splitlines()
    assert [line for line in status if "axcl" in line and release in line and line.endswith("installed")]


def test_card_is_bound_and_alive(box: Box) -> None:
    """By the kernel, and by the tool that came with the driver."""
    assert box.root.file(f"{DRIVER}/{CARD}").exists
    assert CARD in box.shell("/usr/bin/axcl/axcl-smi")


def test_card_is_for_one_group_only(box: Box) -> None:
    """The package gives its device nodes to everybody."""
    for node in NODES:
        file = box.root.file(node)
        assert (file.mode, file.user, file.group) == (0o660, "root", "axcl"), node
    assert box.attempt(": < /dev/axcl_host", user="owner").rc


def test_driver_is_loaded_by_a_unit_of_its_own(box: Box) -> None:
    """Not by systemd-modules-load, whose time limit is shorter than a card's start, and which the boot waits for."""
    assert box.root.service(LOADER).is_enabled
    places = "/etc/modules-load.d /usr/lib/modules-load.d /run/modules-load.d"
    assert not box.shell(f"grep -rhE '^ *ax' {places} 2>/dev/null || true")


def test_apt_has_its_sandbox_and_keeps_the_package(box: Box) -> None:
    """The package switches the sandbox off for good, and does not survive an upgrade by apt."""
    assert not box.root.file("/etc/apt/apt.conf.d/10sandbox").exists
    assert box.shell("apt-mark showhold").split() == ["axclhost"]


def test_interrupt_is_on_the_chosen_core(box: Box) -> None:
    """The roles that come after the driver have found its interrupt."""
    assert box.state() == TUNED
    assert set(box.served_by(20)) == {4}


def test_driver_comes_back_with_a_boot(box: Box) -> None:
    """By that unit; the node gets its group, and the interrupt its core."""
    box.twin.reboot_and_wait()
    box.hang_up()
    assert box.shell("systemctl is-system-running --wait").strip() == "running"
    # No target waits for it.
    box.shell(f'while [ "$(systemctl is-active {LOADER})" = activating ]; do sleep 1; done')
    assert box.root.service(LOADER).is_running
    test_modules_are_loaded_in_the_vendors_order(box)
    test_card_is_bound_and_alive(box)
    test_card_is_for_one_group_only(box)
    test_interrupt_is_on_the_chosen_core(box)
