# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services that set clocks at boot: which are enabled, and which governors they were told to set.

Everything is told by the links that systemd and its System V generator follow; no command is run. Contents are read of
a few settings files only: a unit or script that somebody wrote may hold what is nobody's business.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.irqbalance import UNIT_PATH, parse_environment_file

SYSTEM = "/etc/systemd/system"
VENDOR = ("/usr/lib/systemd/system", "/lib/systemd/system")
VENDOR_TARGETS = ("basic", "graphical", "multi-user", "sysinit")
RUNLEVEL = "/etc/rc3.d"
# What keeps our own wishes in force; test_persist compares it with what is installed
OWN = (
    SYSTEM + "/edgenpu-tuning.service",
    SYSTEM + "/sysinit.target.wants/edgenpu-tuning.service",
    SYSTEM + "/edgenpu-tuning-late.service",
    SYSTEM + "/multi-user.target.wants/edgenpu-tuning-late.service",
    "/etc/udev/rules.d/90-edgenpu-tuning.rules",
    "/usr/lib/edgenpu-tuning/current",
)
_LIKELY = re.compile(r"cpu[-_]?freq|governor|cpu[-_]?power|cpu[-_]?perf|scaling", re.IGNORECASE)
_MOST_INCLUDES = 8  # of one tuned profile in another
_GOVERNOR_OPTION = re.compile(r"(?:^|\s)(?:-g|--governor)[\s=]+([a-z_]+)")


class Service(NamedTuple):
    """An enabled service that may set clocks.

    ENABLED_BY: the link that starts it. SETS: what its settings name, as (file, "NAME=value", governors); () for
    settings that name no governor; None where nobody can tell.
    """

    unit: str
    enabled_by: str
    sets: tuple[tuple[str, str, tuple[str, ...]], ...] | None


class Services(NamedTuple):
    """Services that may set clocks, and what of our own is missing or masked by path ("missing", "masked")."""

    clocks: tuple[Service, ...] = ()
    own: Mapping[str, str] = {}


Sets = Optional[Tuple[Tuple[str, str, Tuple[str, ...]], ...]]


def parse_sections(text: str) -> Dict[Tuple[str, str], str]:
    """Return the values of an INI file by section and name, as tuned's profiles are written."""
    found = {}
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif line[:1] not in ("#", ";", ""):
            name, equals, value = line.partition("=")
            if equals:
                found[section, name.strip()] = value.split("#")[0].strip()
    return found


def _profile(root: Root, name: str) -> Tuple[str, Optional[str]]:
    places = ("/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned")
    paths = ["%s/%s/tuned.conf" % (place, name) for place in places]
    path = next((path for path in paths if root.exists(path)), paths[-1])
    return path, root.text(path)


def _tuned(root: Root) -> Sets:
    """Follow the active profile and those that it includes; what includes wins over what is included."""
    waiting = (root.text("/etc/tuned/active_profile") or "").split()[::-1]
    if not waiting:
        return None  # it picks one by itself
    for _turn in range(_MOST_INCLUDES):
        if not waiting:
            return ()
        name = waiting.pop(0)
        path, text = _profile(root, name) if "/" not in name else ("", None)
        if text is None:
            return None
        values = parse_sections(text)
        governor = values.get(("cpu", "governor"))
        if governor:
            # "a|b" means the first one that the kernel has
            return ((path, "governor=" + governor, tuple(part.strip() for part in governor.split("|"))),)
        waiting = re.split(r"[,\s]+", values.get(("main", "include"), "").strip(", ")) + waiting
        waiting = [one for one in waiting if one]
    return None


def _from(root: Root, paths: Sequence[str], names: Sequence[str]) -> List[Tuple[str, str, Tuple[str, ...]]]:
    found: Dict[str, Tuple[str, str, Tuple[str, ...]]] = {}
    for path in paths:
        text = root.text(path)
        for name, value in parse_environment_file(text).items() if text is not None else ():
            if name in names:
                found[name] = (path, "%s=%s" % (name, value), (value,) if value else ())
    return [one for one in found.values() if one[2]]


def _tlp(root: Root) -> Sets:
    more = ["/etc/tlp.d/" + name for name in root.names("/etc/tlp.d") if name.endswith(".conf")]
    names = ["CPU_SCALING_GOVERNOR_ON_" + power for power in ("AC", "BAT", "SAV")]
    return tuple(_from(root, ["/etc/default/tlp", *more, "/etc/tlp.conf"], names))


def _cpufrequtils(root: Root) -> Sets:
    """Debian's init script: without settings it sets ondemand."""
    path = "/etc/default/cpufrequtils"
    enabled = _from(root, [path], ["ENABLE"])
    if enabled and enabled[0][2] != ("true",):
        return ()
    return tuple(_from(root, [path], ["GOVERNOR"])) or ((path, "GOVERNOR=ondemand (its default)", ("ondemand",)),)


def _cpupower(root: Root) -> Sets:
    paths = ("/etc/default/cpupower", "/etc/cpupower-service.conf", "/etc/sysconfig/cpupower")
    found = _from(root, paths, ["governor", "GOVERNOR"])
    for path, line, _values in _from(root, paths, ["CPUPOWER_START_OPTS"]):
        match = _GOVERNOR_OPTION.search(line.partition("=")[2])
        if match:
            found.append((path, line, (match.group(1),)))
    return tuple(found)


def _untold(root: Root) -> Sets:
    return None


KNOWN: Mapping[str, Callable[[Root], Sets]] = {
    "auto-cpufreq.service": _untold,
    "ax650n-optimize.service": _untold,
    "cpufrequtils.service": _cpufrequtils,
    "cpupower.service": _cpupower,
    "dietpi-preboot.service": _untold,
    "laptop-mode.service": _untold,
    "ondemand.service": _untold,
    "power-profiles-daemon.service": _untold,
    "thermald.service": _untold,
    "tlp.service": _tlp,
    "tuned.service": _tuned,
}


def _masked(root: Root, unit: str) -> bool:
    for place in UNIT_PATH:
        path = "%s/%s" % (place, unit)
        target = root.link_target(path)
        if target is not None:
            return target == "/dev/null"
        if root.exists(path):
            return False
    return False


def _enabled(root: Root) -> Dict[str, str]:
    """Return the services that boot starts and that may set clocks, each with the link that says so."""
    wants = ["%s/%s" % (SYSTEM, name) for name in root.names(SYSTEM) if name.endswith((".wants", ".requires"))]
    wants += ["%s/%s.target.wants" % (place, target) for place in VENDOR for target in VENDOR_TARGETS]
    found: Dict[str, str] = {}
    for directory in wants:
        for name in root.names(directory):
            mine = name.startswith("edgenpu-tuning")
            if name in KNOWN or (name.endswith(".service") and _LIKELY.search(name) and not mine):
                found.setdefault(name, "%s/%s" % (directory, name))
    for name in root.names(RUNLEVEL):
        unit = re.sub("^S[0-9]{2}", "", name) + ".service"
        if unit in KNOWN:
            found.setdefault(unit, "%s/%s" % (RUNLEVEL, name))
    # A link that leads nowhere is what a removed package leaves.
    return {unit: link for unit, link in found.items() if root.exists(link) and not _masked(root, unit)}


def _own(root: Root) -> Dict[str, str]:
    found = {}
    for path in OWN:
        if root.link_target(path) == "/dev/null":
            found[path] = "masked"
        elif not root.exists(path):
            found[path] = "missing"
    return found


def read_services(root: Root, with_own: bool) -> Services:
    """Return the services that may set clocks; WITH_OWN: and what is amiss with ours."""
    enabled = _enabled(root)
    clocks = [Service(unit, enabled[unit], KNOWN.get(unit, _untold)(root)) for unit in sorted(enabled)]
    return Services(tuple(clocks), _own(root) if with_own else {})
