# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Heat: what cools the CPUs by slowing them down, the zones that order it, and what was counted of it.

Only zones that can slow a CPU down are read: other sensors (of disks, of radio cards) may wake what they stand for.
"""

from __future__ import annotations

import re
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.board import read_compatible
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

THERMAL = "/sys/class/thermal"
CPUS = "/sys/devices/system/cpu"
PLATFORM = "/sys/devices/platform"
# drivers/thermal/cpufreq_cooling.c and cpuidle_cooling.c (before 5.12 their names held a running number only),
# drivers/acpi/processor_thermal.c, drivers/thermal/intel/intel_powerclamp.c
_SLOWS_CPUS = re.compile(
    r"(?:cpufreq|idle)-cpu([0-9]{1,6})|thermal-(?:cpufreq|idle)-[0-9]{1,6}|Processor|intel_powerclamp"
)
_BOUND = re.compile(r"cdev[0-9]{1,4}")
_TRIP = re.compile(r"(trip_point_[0-9]{1,4})_type")
# Bits of the Raspberry Pi's firmware that hold now; those 16 places further up say that it has been so since boot.
FIRMWARE_BITS = ("under-voltage", "clock capped", "throttled", "soft temperature limit")


class Cooling(NamedTuple):
    """A device that cools by slowing CPUs down. STATE: 0 means not at all."""

    path: str
    kind: str
    cpu: int | None  # the CPU whose policy it slows down; None where its name does not tell
    state: int | None
    max_state: int | None


class Trip(NamedTuple):
    """A temperature, in thousandths of a degree Celsius, at which a zone does something."""

    path: str
    kind: str  # "passive" slows down
    temperature_mc: int


class Zone(NamedTuple):
    """A thermal zone that can slow CPUs down. COOLING: the paths of what does."""

    path: str
    kind: str | None
    temperature_mc: int | None
    trips: tuple[Trip, ...]
    cooling: tuple[str, ...]


class Thermal(NamedTuple):
    """What is known of heat. THROTTLED: times since boot, by CPU (x86). FIRMWARE: (path, bits) of a Raspberry Pi."""

    cooling: tuple[Cooling, ...] = ()
    zones: tuple[Zone, ...] = ()
    throttled: Mapping[int, int] = {}
    firmware: tuple[str, int] | None = None


def _numbered(root: Root, beginning: str) -> List[str]:
    names = [name for name in root.names(THERMAL) if name.startswith(beginning) and name[len(beginning) :].isdecimal()]
    return ["%s/%s" % (THERMAL, name) for name in sorted(names, key=lambda name: int(name[len(beginning) :]))]


def _read_cooling(root: Root) -> List[Cooling]:
    found = []
    for path in _numbered(root, "cooling_device"):
        kind = root.text(path + "/type") or ""
        match = _SLOWS_CPUS.fullmatch(kind)
        if match is not None:
            cpu = None if match.group(1) is None else int(match.group(1))
            found.append(Cooling(path, kind, cpu, root.number(path + "/cur_state"), root.number(path + "/max_state")))
    return found


def _read_zone(root: Root, path: str, known: Sequence[str]) -> Optional[Zone]:
    names = root.names(path)
    bound = {root.link("%s/%s" % (path, name)) for name in names if _BOUND.fullmatch(name)}
    cooling = tuple(device for device in known if device.rpartition("/")[2] in bound)
    if not cooling:
        return None
    trips = []
    for match in filter(None, map(_TRIP.fullmatch, names)):
        kind = root.text("%s/%s" % (path, match.group()))
        temperature = root.number("%s/%s_temp" % (path, match.group(1)))
        if kind and temperature is not None:
            trips.append(Trip("%s/%s_temp" % (path, match.group(1)), kind, temperature))
    return Zone(path, root.text(path + "/type"), root.number(path + "/temp"), tuple(trips), cooling)


def _read_firmware(root: Root) -> Optional[tuple[str, int]]:
    """Return what a Raspberry Pi's firmware says of voltage and heat, where its kernel has a file for it."""
    if not any(name.startswith("raspberrypi,") for name in read_compatible(root)):
        return None
    for bus in (name for name in root.names(PLATFORM) if name.startswith("soc")):
        path = "%s/%s/%s:firmware/get_throttled" % (PLATFORM, bus, bus)
        bits = root.number(path, 16)
        if bits is not None:
            return path, bits
    return None


def read_thermal(root: Root, cpus: Sequence[int]) -> Thermal:
    """Return what is known of heat; CPUS are those whose counters are read."""
    cooling = _read_cooling(root)
    known = [device.path for device in cooling]
    zones = (_read_zone(root, path, known) for path in (_numbered(root, "thermal_zone") if known else ()))
    throttled: Dict[int, int] = {}
    if cpus and root.exists("%s/cpu%d/thermal_throttle" % (CPUS, cpus[0])):
        for cpu in cpus:
            count = root.number("%s/cpu%d/thermal_throttle/core_throttle_count" % (CPUS, cpu))
            if count is not None:
                throttled[cpu] = count
    return Thermal(tuple(cooling), tuple(zone for zone in zones if zone), throttled, _read_firmware(root))
