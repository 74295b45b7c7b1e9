# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any, Optional

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.obstacles import no_keeper, obstacle
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import Host

HOST = Host("CM3588", (), "6.1.57", "aarch64", 4096, None, None, True, True, True, None)


@pytest.mark.parametrize(
    ("host", "system", "user_id", "sentence"),
    [
        ({}, "Linux", 0, None),
        ({"sysfs_writable": None, "proc_irq_writable": None}, "Linux", 0, None),
        (
            {},
            "FreeBSD",
            0,
            "this host runs FreeBSD; interrupts and clocks are set through Linux's /proc and /sys only",
        ),
        (
            {},
            "Linux",
            1000,
            "user id 1000 may not write to /proc/irq and /sys; run as root (become: true)",
        ),
        (
            {"sysfs_writable": False},
            "Linux",
            0,
            "/sys is mounted read-only here, as in a container; run this on the host itself",
        ),
        (
            {"proc_irq_writable": False},
            "Linux",
            0,
            "/proc/irq is mounted read-only here, as in a container; run this on the host itself",
        ),
        (
            {"proc_irq_writable": False, "sysfs_writable": False, "virtualisation": "container: docker"},
            "Linux",
            1000,
            "/proc/irq is mounted read-only here, as in a container (container: docker); run this on the host itself",
        ),
    ],
)
def test_obstacle(host: Any, system: str, user_id: int, sentence: Optional[str]) -> None:
    assert obstacle(HOST._replace(**host), system, user_id) == sentence


def test_keeper() -> None:
    assert no_keeper(HOST) is None
    assert no_keeper(HOST._replace(systemd=False)) == (
        "systemd does not run here (/run/systemd/system is missing), and what keeps wishes in force is its unit"
    )
