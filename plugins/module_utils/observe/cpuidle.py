# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""cpuidle: the states in which an idle CPU sleeps, and how long it takes to leave them."""

from __future__ import annotations

from typing import Dict, Iterable, NamedTuple, Optional

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

CPUS = "/sys/devices/system/cpu"


class IdleState(NamedTuple):
    """One state of one CPU. LATENCY_US: the longest that leaving it takes, in microseconds."""

    path: str
    name: str | None
    latency_us: int | None
    disabled: bool | None  # by sysfs; None not known


class Idle(NamedTuple):
    """A CPU's states, and the longest latency in microseconds that it is allowed; None for no limit."""

    states: tuple[IdleState, ...]
    limit_us: int | None


def _limit(text: Optional[str]) -> Optional[int]:
    """Return a pm_qos_resume_latency_us: "0" is no limit, "n/a" allows no latency at all."""
    if text == "n/a":
        return 0
    return int(text) if text is not None and text.isdecimal() and text.strip("0") else None


def read_idle(root: Root, cpus: Iterable[int]) -> Dict[int, Idle]:
    """Return the states of these CPUs; a CPU without cpuidle is left out."""
    found = {}
    for cpu in cpus:
        base = "%s/cpu%d/" % (CPUS, cpu)
        states = []
        for name in root.names(base + "cpuidle"):
            if name.startswith("state") and name[5:].isdecimal():
                path = base + "cpuidle/" + name
                disabled = root.number(path + "/disable")
                states.append(
                    IdleState(
                        path,
                        root.text(path + "/name"),
                        root.number(path + "/latency"),
                        None if disabled is None else bool(disabled),
                    )
                )
        if states:
            found[cpu] = Idle(tuple(states), _limit(root.text(base + "power/pm_qos_resume_latency_us")))
    return found
