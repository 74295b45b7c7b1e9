# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a host can be tuned at all. Pure."""

from __future__ import annotations

from typing import Optional

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import Host


def obstacle(host: Host, system: str, user_id: int) -> Optional[str]:
    """Return in one sentence what keeps us from writing on this host and what to do; None if nothing does.

    SYSTEM: the kernel's name ("Linux"), USER_ID: the effective one.
    """
    if system != "Linux":
        return "this host runs %s; interrupts and clocks are set through Linux's /proc and /sys only" % system
    if host.proc_irq_writable is False or host.sysfs_writable is False:
        where = "/proc/irq" if host.proc_irq_writable is False else "/sys"
        inside = " (%s)" % host.virtualisation if host.virtualisation else ""
        return "%s is mounted read-only here, as in a container%s; run this on the host itself" % (where, inside)
    if user_id != 0:
        return "user id %d may not write to /proc/irq and /sys; run as root (become: true)" % user_id
    return None


def no_keeper(host: Host) -> Optional[str]:
    """Return why nothing can be kept set on this host; None if it can be."""
    if not host.systemd:
        return "systemd does not run here (/run/systemd/system is missing), and what keeps wishes in force is its unit"
    return None


def no_driver_here(host: Host, system: str, user_id: int) -> Optional[str]:
    """Return in one sentence why no kernel driver can be installed from here and what to do; None if it can be.

    SYSTEM: the kernel's name ("Linux"), USER_ID: the effective one.
    """
    if system != "Linux":
        return "this host runs %s; the driver is for Linux" % system
    if (host.virtualisation or "").startswith("container"):
        return "this is a %s, and its kernel is the host's; install the driver there" % host.virtualisation
    if user_id != 0:
        return "user id %d may not install packages; run as root (become: true)" % user_id
    if not host.systemd:
        return (
            "systemd does not run here (/run/systemd/system is missing), and a unit of it loads the driver at boot; "
            "install the driver by hand"
        )
    return None
