# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The card's driver as it is seen from outside: what it adds to a machine, and what shows that it works."""

from __future__ import annotations

import re
from collections.abc import Sequence

from box import CARD, DRIVER, TUNED, Box

MODULES = ("ax_pcie_host_dev", "ax_pcie_msg", "ax_pcie_mmb", "axcl_host", "ax_pcie_p2p_rc")
NODES = ("/dev/msg_userdev", "/dev/ax_mmb_dev", "/dev/axcl_host", "/dev/p2p")
LOADER = "edgenpu-axcl-load.service"
FAILED_LOG = "axclhost-install.log.failed"

# Packages, DKMS's sources and modules, firmware, loaded modules, groups; no directory of a kernel's own whole.
_DRIVER = """
dpkg-query --show --showformat='${Package} ${Version} ${db:Status-Abbrev}\\n'
dkms status 2>/dev/null || true
find /usr/src -maxdepth 1
find /usr/lib/modules/*/extra /usr/lib/modules/*/updates /usr/lib/firmware/axcl 2>/dev/null || true
grep -o '^ax[^ ]*' /proc/modules || true
cat /etc/group /etc/gshadow
ls /dev | grep ^ax || true
ls /var/log | grep axcl || true
"""

# The copies that groupadd and groupdel make of what they change. Like dpkg's own, they are not the driver's.
_COPIES = ("/etc/group-", "/etc/gshadow-")


def fingerprint(box: Box) -> dict[str, dict[str, str]]:
    """Return what the machine is like now: what any rollback is about, and what a driver adds to it."""
    now = box.fingerprint()
    for path in _COPIES:
        now["files"].pop(path, None)
    now["driver"] = dict.fromkeys(box.shell(_DRIVER).splitlines(), "there")
    return now


def differences(before: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> set[str]:
    """Return the names of what differs between two fingerprints."""
    kinds = [(before[kind], now[kind]) for kind in before]
    return {name for one, other in kinds for name in {*one, *other} if one.get(name) != other.get(name)}


def is_as_before(box: Box, note: str, but: Sequence[str] = ()) -> None:
    """Packages, modules, sources, firmware, groups; files byte for byte with modes and owners; no unit has failed."""
    assert differences(box.noted(note), fingerprint(box)) == set(but)


def is_loaded(box: Box) -> None:
    """In the vendor's order; the kernel tells the newest first."""
    loaded = [line.split()[0] for line in box.shell("cat /proc/modules").splitlines()]
    assert [name for name in reversed(loaded) if name in MODULES] == list(MODULES)


def is_built_by_dkms(box: Box) -> None:
    """For this kernel; the package's own, which a kernel upgrade would leave behind, are gone."""
    release = box.shell("uname -r").strip()
    for module in MODULES:
        path = box.shell(f"modinfo --field filename {module}").strip()
        assert path.startswith(f"/lib/modules/{release}/updates/")
        assert box.shell(f"modinfo --field vermagic {module}").split()[0] == release
    assert not box.shell(f"find /lib/modules/{release}/extra -name 'ax*' 2>/dev/null || true")
    status = box.shell("dkms status").splitlines()
    assert [line for line in status if "axcl" in line and release in line and line.endswith("installed")]


def is_bound_and_alive(box: Box, sdk: str) -> None:
    """By the kernel, and by the tool that came with the driver; the card has the firmware of this version."""
    assert box.root.file(f"{DRIVER}/{CARD}").exists
    (row,) = [line for line in box.shell("/usr/bin/axcl/axcl-smi").splitlines() if CARD in line]
    assert re.findall(r"V(\d+\.\d+\.\d+)", row) == [sdk]


def is_for_one_group_only(box: Box) -> None:
    """The packages give their device nodes to everybody, or to a group that is none."""
    for node in NODES:
        file = box.root.file(node)
        assert (file.mode, file.user, file.group) == (0o660, "root", "axcl"), node
    assert box.attempt(": < /dev/axcl_host", user="owner").rc


def works(box: Box, sdk: str) -> None:
    """The driver of one version of the SDK, with all that makes it work and keep working."""
    is_loaded(box)
    is_built_by_dkms(box)
    is_bound_and_alive(box, sdk)
    is_for_one_group_only(box)
    assert not box.root.file("/etc/apt/apt.conf.d/10sandbox").exists
    assert box.shell("apt-mark showhold").split() == ["axclhost"]


def boots(box: Box, kernel: str = "") -> str:
    """Boot the machine again and return its kernel's release; the driver is loaded then, and no unit has failed."""
    release = box.twin.reboot_and_wait(kernel=kernel)
    box.hang_up()
    # A machine is running when systemd has nothing left to do, so the unit that loads the driver has ended, too.
    assert box.shell("systemctl is-system-running --wait").strip() == "running"
    assert box.root.service(LOADER).is_running
    return release


def is_served_on_the_chosen_core(box: Box) -> None:
    """The roles that come after the driver have found its interrupt."""
    assert box.state() == TUNED
    assert set(box.served_by(20)) == {4}
