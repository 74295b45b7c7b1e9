# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""cpufreq policies: groups of CPUs with one clock, and what governs it."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import parse_blank_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

POLICIES = "/sys/devices/system/cpu/cpufreq"
_DEFAULT_GOVERNOR = re.compile(r"CONFIG_CPU_FREQ_DEFAULT_GOV_([A-Z_]+)=y\Z")
_GOVERNOR_MODULE = re.compile(r"(?:.*/)?cpufreq_([a-z]+)\.ko(?:\.[a-z0-9]+)?:")
_CONFIG_BYTES = 4 << 20  # bounds a kernel's configuration, packed and unpacked; the largest have a tenth of that
_KHZ = re.compile(r"[0-9]{1,12}")


class Policy(NamedTuple):
    """One policy. Frequencies are in kHz.

    A policy whose CPUs are all offline keeps its directory and refuses every read (EBUSY): of its CPUs only the first
    is known then, from its name.
    """

    name: str  # "policy4"
    cpus: tuple[int, ...]  # related_cpus: online and offline ones
    affected: tuple[int, ...]  # the online ones
    driver: str | None
    governor: str | None
    available_governors: tuple[str, ...]  # grows as governor modules are loaded
    min_khz: int | None
    max_khz: int | None
    hw_min_khz: int | None
    hw_max_khz: int | None
    current_khz: int | None
    available_khz: tuple[int, ...]  # ascending, () where the driver has no table
    epp: str | None  # energy_performance_preference
    all_offline: bool


def _read_policy(root: Root, name: str) -> Policy:
    path = "%s/%s/" % (POLICIES, name)
    affected_text = root.text(path + "affected_cpus")
    refused = affected_text is None and (path + "affected_cpus", "EBUSY") in root.unread
    if refused:
        return Policy(name, (int(name[6:]),), (), None, None, (), None, None, None, None, None, (), None, True)
    related = parse_blank_list(root.text(path + "related_cpus") or "")
    affected = parse_blank_list(affected_text or "")
    frequencies = (root.text(path + "scaling_available_frequencies") or "").split()
    return Policy(
        name=name,
        cpus=related or affected or (int(name[6:]),),
        affected=affected or (),
        driver=root.text(path + "scaling_driver"),
        governor=root.text(path + "scaling_governor"),
        available_governors=tuple((root.text(path + "scaling_available_governors") or "").split()),
        min_khz=root.number(path + "scaling_min_freq"),
        max_khz=root.number(path + "scaling_max_freq"),
        hw_min_khz=root.number(path + "cpuinfo_min_freq"),
        hw_max_khz=root.number(path + "cpuinfo_max_freq"),
        current_khz=root.number(path + "scaling_cur_freq"),
        available_khz=tuple(sorted(int(word) for word in frequencies if _KHZ.fullmatch(word))),
        epp=root.text(path + "energy_performance_preference"),
        all_offline=affected_text == "",
    )


def read_policies(root: Root) -> tuple[Policy, ...]:
    """Return every policy by its number; () where the kernel has no cpufreq driver."""
    names = (name for name in root.names(POLICIES) if name.startswith("policy") and name[6:].isdecimal())
    return tuple(_read_policy(root, name) for name in sorted(names, key=lambda name: int(name[6:])))


def parse_modules_dep(text: str) -> Tuple[str, ...]:
    """Return the cpufreq governors among the modules of a modules.dep, sorted."""
    found = set()
    for line in text.splitlines():
        match = _GOVERNOR_MODULE.match(line)
        if match and match.group(1) != "stats":
            found.add(match.group(1))
    return tuple(sorted(found))


def loadable_governors(root: Root, release: str) -> Optional[Tuple[str, ...]]:
    """Return the governors that kernel RELEASE has as modules; None if that cannot be told.

    Writing such a governor's name loads it, though scaling_available_governors does not list it yet.
    """
    if not release or "/" in release or release in (".", ".."):
        return None
    for place in ("/lib/modules", "/usr/lib/modules"):
        text = root.text("%s/%s/modules.dep" % (place, release))
        if text is not None:
            return parse_modules_dep(text)
    return None


def _config_of_running_kernel(root: Root) -> Optional[str]:
    """Return what the running kernel carries of its configuration (CONFIG_IKCONFIG_PROC); None if none, or damaged."""
    raw = root.data("/proc/config.gz", _CONFIG_BYTES)
    if raw is None:
        return None
    try:
        import zlib  # not at every start of the agent, and not every Python has it
    except ImportError:
        return None
    unpacker = zlib.decompressobj(wbits=31)  # gzip's format, its checksum included
    try:
        text = unpacker.decompress(raw, _CONFIG_BYTES)
    except zlib.error:
        return None
    return text.decode("utf-8", "replace") if unpacker.eof else None


def default_governor(root: Root, release: str) -> Optional[str]:
    """Return the governor that the running kernel, RELEASE, gives to a new policy; None if that cannot be told.

    The command line wins over what the kernel was built with (drivers/cpufreq/cpufreq.c, cpufreq.default_governor).
    """
    for word in (root.text("/proc/cmdline") or "").split():
        name, _equals, value = word.partition("=")
        if name == "cpufreq.default_governor":
            return value
    config = root.text("/boot/config-" + release) or _config_of_running_kernel(root) or ""
    for line in config.splitlines():
        match = _DEFAULT_GOVERNOR.match(line)
        if match:
            return match.group(1).lower()
    return None
