# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trees of /sys out of what lspci and sbc-bench printed on other people's machines, register by register.

lspci shows what it read from the same configuration space that the collection reads: turned back into bytes at their
offsets, a published listing is judged from reading to verdict.
"""

from __future__ import annotations

import re
import struct
from typing import Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

VENDORS = {
    "Axera": 0x1F4B,
    "ASMedia": 0x1B21,
    "Fuzhou Rockchip": 0x1D87,
    "Realtek": 0x10EC,
    "Intel": 0x8086,
    "Broadcom": 0x14E4,
    "Raspberry Pi": 0x1DE4,
}
DEVICES = {"ASM2824": 0x2824, "ASM1164": 0x1164, "RTL8125": 0x8125, "RK3588": 0x3588, "BCM2712": 0x2712, "RP1": 0x0001}
CLASSES = {
    "Host bridge": 0x060000,
    "PCI bridge": 0x060400,
    "VGA compatible controller": 0x030000,
    "Multimedia video controller": 0x040000,
    "SATA controller": 0x010601,
    "Ethernet controller": 0x020000,
}
CAPABILITIES = {"Power Management": 0x01, "MSI:": 0x05, "Express": 0x10, "MSI-X:": 0x11}
EXTENDED = {
    "Advanced Error Reporting": 0x0001,
    "Device Serial Number": 0x0003,
    "Virtual Channel": 0x0002,
    "Vendor Specific": 0x000B,
    "Physical Resizable BAR": 0x0015,
    "Virtual Resizable BAR": 0x0024,
    "Latency Tolerance Reporting": 0x0018,
    "Transaction Processing Hints": 0x0017,
    "Secondary PCI Express": 0x0019,
    "L1 PM Substates": 0x001E,
}
PORTS = {"Endpoint": 0, "Root Port": 4, "Upstream Port": 5, "Downstream Port": 6}
SPEEDS = {"2.5": 1, "5": 2, "8": 3, "16": 4, "32": 5}
UNCORRECTABLE = {
    "DLP": 4,
    "SDES": 5,
    "TLP": 12,
    "FCP": 13,
    "CmpltTO": 14,
    "CmpltAbrt": 15,
    "UnxCmplt": 16,
    "RxOF": 17,
    "MalfTLP": 18,
    "ECRC": 19,
    "UnsupReq": 20,
    "ACSViol": 21,
}
CORRECTABLE = {"RxErr": 0, "BadTLP": 6, "BadDLLP": 7, "Rollover": 8, "Timeout": 12, "AdvNonFatalErr": 13}
SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Shown(NamedTuple):
    """One function as lspci shows it: its address with the domain, its configuration space, what sysfs adds."""

    bdf: str
    config: bytes
    secondary: Optional[int]
    files: Dict[str, str]
    driver: Optional[str]
    module: Optional[str]


def _identity(text: str) -> Tuple[int, int]:
    """Return vendor and device, by number where one is shown."""
    numbers = re.search(r"\[([0-9a-f]{4}):([0-9a-f]{4})\]", text)
    if numbers:
        return int(numbers.group(1), 16), int(numbers.group(2), 16)
    vendor = next((number for name, number in VENDORS.items() if name in text), 0)
    device = re.search(r"Device ([0-9a-f]{4})", text)
    named = next((number for name, number in DEVICES.items() if name in text), 0x0FFF)
    return vendor, int(device.group(1), 16) if device else named


def _find(pattern: str, text: str) -> Tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise AssertionError("the listing has no %r in %r" % (pattern, text[:200]))
    return match.groups()


def _flags(line: str, bits: Dict[str, int]) -> int:
    return sum(1 << bits[name] for name in re.findall(r"(\w+)\+", line) if name in bits)


def _states(text: str) -> int:
    return (1 if "L0s" in text else 0) | (2 if "L1" in text else 0)


def _express(data: bytearray, at: int, text: str) -> None:
    version, port = _find(r"Express \(v(\d)\) (Root Port|Upstream Port|Downstream Port|Endpoint)", text)
    (largest,) = _find(r"DevCap:\s*MaxPayload (\d+)", text)
    payload, request = _find(r"MaxPayload (\d+) bytes, MaxReadReq (\d+)", text)
    speed, width, capable = _find(r"LnkCap:.*Speed ([\d.]+)GT/s, Width x(\d+), ASPM ([^,\n]*)", text)
    (enabled,) = _find(r"LnkCtl:\s*ASPM ([^;]*);", text)
    now, lanes = _find(r"LnkSta:\s*Speed ([\d.]+)GT/s.*Width x(\d+)", text)
    fastest, target = re.search(r"Speeds: 2\.5-([\d.]+)GT/s", text), re.search(r"Target Link Speed: ([\d.]+)GT/s", text)
    struct.pack_into("<H", data, at + 2, int(version) | PORTS[port] << 4)
    struct.pack_into("<I", data, at + 4, int(largest).bit_length() - 8)
    control = (int(payload).bit_length() - 8) << 5 | (int(request).bit_length() - 8) << 12
    struct.pack_into("<H", data, at + 8, control)
    link = SPEEDS[speed] | int(width) << 4 | _states(capable) << 10 | ("LLActRep+" in text) << 20
    struct.pack_into("<I", data, at + 0x0C, link)
    struct.pack_into("<H", data, at + 0x10, _states(enabled) if "Enabled" in enabled else 0)
    struct.pack_into("<H", data, at + 0x12, SPEEDS[now] | int(lanes) << 4 | ("DLActive+" in text) << 13)
    if fastest and target:
        struct.pack_into("<I", data, at + 0x2C, (2 << (SPEEDS[fastest.group(1)] - 1)) - 1 << 1)
        struct.pack_into("<H", data, at + 0x30, SPEEDS[target.group(1)])


def _capabilities(data: bytearray, block: str) -> None:
    pointer, before = 0x34, 0
    for part in re.split(r"\n\s+(?=Capabilities: \[)", block)[1:]:
        place, extended, title = _find(r"Capabilities: \[([0-9a-f]+)( v\d+)?\] (.*)", part)
        at = int(place, 16)
        if extended:
            number = next(value for name, value in EXTENDED.items() if title.startswith(name))
            struct.pack_into("<I", data, at, number | int(extended[2:]) << 16)
            if before:
                data[before + 2 : before + 4] = struct.pack(
                    "<H", struct.unpack_from("<H", data, before + 2)[0] | at << 4
                )
            before = at
            if number == 0x0001:
                struct.pack_into("<I", data, at + 0x04, _flags(_find(r"UESta:(.*)", part)[0], UNCORRECTABLE))
                struct.pack_into("<I", data, at + 0x10, _flags(_find(r"CESta:(.*)", part)[0], CORRECTABLE))
            continue
        data[pointer], data[at] = (
            at,
            next((value for name, value in CAPABILITIES.items() if title.startswith(name)), 0x09),
        )
        pointer = at + 1
        if title.startswith("MSI:"):
            enabled, granted, capable = _find(r"Enable([+-]) Count=(\d+)/(\d+)", title)
            codes = (int(capable).bit_length() - 1) << 1 | (int(granted).bit_length() - 1) << 4
            struct.pack_into("<H", data, at + 2, (enabled == "+") | codes)
        elif title.startswith("MSI-X:"):
            enabled, size = _find(r"Enable([+-]) Count=(\d+)", title)
            struct.pack_into("<H", data, at + 2, (enabled == "+") << 15 | int(size) - 1)
        elif title.startswith("Express"):
            _express(data, at, part)


def _regions(data: bytearray, block: str) -> Optional[str]:
    """Fill in the base addresses, and return the kernel's own list of them; a "[virtual]" one only the kernel knows."""
    rows = ["0x%016x 0x%016x 0x%016x" % (0, 0, 0)] * 6
    found = re.findall(r"Region (\d): Memory at ([0-9a-f]+) .*?(\[virtual\] )?\[size=(\d+)([KMG]?)\]", block)
    for number, address, virtual, size, unit in found:
        start = int(address, 16)
        rows[int(number)] = "0x%016x 0x%016x 0x%016x" % (start, start + int(size) * SIZES[unit] - 1, 0x40200)
        if not virtual:
            struct.pack_into("<I", data, 0x10 + 4 * int(number), start)
    return "\n".join(rows) if found else None


def lspci(text: str) -> List[Shown]:
    """Return the functions in the output of lspci, with any of -v, -nn, -k; lines of something else are passed over."""
    shown = []
    for block in re.split(r"^(?=(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7] )", text, flags=re.M)[1:]:
        address, kind, name = _find(r"^(\S+) ([^:]*): (.*)", block)
        bdf = address if address.count(":") == 2 else "0000:" + address
        verbose = "Capabilities:" in block
        data = bytearray(4096 if verbose else 256 if "Region" in block else 64)
        number = re.search(r"\[([0-9a-f]{4})\]", kind)
        class_code = int(number.group(1), 16) << 8 if number else CLASSES[kind]
        revision = re.search(r"\(rev ?([0-9a-f]{2})\)", name)
        struct.pack_into("<HH", data, 0, *_identity(name))
        struct.pack_into("<I", data, 8, class_code << 8 | (int(revision.group(1), 16) if revision else 0))
        buses = re.search(r"secondary=([0-9a-f]+), subordinate=([0-9a-f]+)", block)
        data[0x0E] = class_code == 0x060400
        if buses:
            data[0x19], data[0x1A] = (int(bus, 16) for bus in buses.groups())
        subsystem = re.search(r"Subsystem: (.*)", block)
        if subsystem and not data[0x0E]:
            struct.pack_into("<HH", data, 0x2C, *_identity(subsystem.group(1)))
        control = re.search(r"Control: (.*)", block)
        if control:
            data[4] = _flags(control.group(1).replace("I/O", "IO"), {"IO": 0, "Mem": 1, "BusMaster": 2})
        data[6] = 0x10 if "Status: Cap+" in block else 0
        if verbose:
            _capabilities(data, block)
        files = {}
        for file, pattern in (("irq", r"IRQ (\d+)"), ("numa_node", r"NUMA node: (\d+)")):
            value = re.search(pattern, block)
            if value:
                files[file] = value.group(1)
        resource = _regions(data, block)
        if resource:
            files["resource"] = resource
        driver, module = re.search(r"driver in use: (\S+)", block), re.search(r"Kernel modules: (\S+)", block)
        shown.append(
            Shown(
                bdf,
                bytes(data),
                int(buses.group(1), 16) if buses else None,
                files,
                driver.group(1) if driver else None,
                module.group(1) if module else None,
            )
        )
    return shown


def tree_view(text: str) -> Dict[str, int]:
    """Return the bus behind each bridge in the output of lspci -vt, for the domain 0000."""
    behind: Dict[str, int] = {}
    columns: Dict[int, int] = {}
    for line in text.splitlines():
        bus = 0
        device = ""
        for match in re.finditer(r"\[0000:(..)\]-|\[(..)(?:-..)?\]|[+\\]-|(..\.\d)(?=[-\s])", line.split("  Intel")[0]):
            root, secondary, address = match.groups()
            if root:
                bus = int(root, 16)
            elif secondary:
                behind[device] = bus = int(secondary, 16)
            elif address:
                device = "0000:%02x:%s" % (bus, address)
            else:
                bus = columns.setdefault(match.start(), bus)
    return behind


def pci_tree(tree: Tree, shown: List[Shown], behind: Optional[Dict[str, int]] = None) -> None:
    """Make the devices of a listing; BEHIND tells of the buses where the listing does not."""
    above = {}
    for one in shown:
        bus = one.secondary if one.secondary is not None else (behind or {}).get(one.bdf)
        if bus is not None:
            above["%s:%02x" % (one.bdf[:4], bus)] = one.bdf
    for one in shown:
        path = [one.bdf]
        while path[0][:7] in above:
            path.insert(0, above[path[0][:7]])
        real = tree.pci("pci%s/%s" % (path[0][:7], "/".join(path)), one.config, one.files)
        if one.driver:
            drivers = "/sys/bus/pci/drivers/" + one.driver
            tree.link(real + "/driver", "../" * (real.count("/") - 1) + drivers[5:])
            if one.module and not tree.root.link(drivers + "/module"):
                tree.link(drivers + "/module", "../../../../module/" + one.module)


def sbc_bench(tree: Tree, topology: str, governors: str = "") -> None:
    """Make the CPUs and cpufreq policies that sbc-bench lists; each cluster is a package, as lscpu shows them."""
    policies: Dict[str, List[Tuple[str, str, str]]] = {}
    for number, cluster, policy, low, high in re.findall(
        r"^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+Cortex", topology, re.M
    ):
        policies.setdefault(policy, []).append((number, low, high))
        tree.files(
            "/sys/devices/system/cpu/cpu%s/topology" % number,
            {"physical_package_id": cluster, "thread_siblings_list": number},
        )
    count = sum(len(members) for members in policies.values())
    tree.files("/sys/devices/system/cpu", {"present": "0-%d" % (count - 1), "online": "0-%d" % (count - 1)})
    original = governors.partition("Tuned governor")[0]
    for policy, members in policies.items():
        listed = " ".join(number for number, _low, _high in members)
        low, high = (members[0][at] + "000" for at in (1, 2))
        contents = {
            "cpuinfo_min_freq": low,
            "cpuinfo_max_freq": high,
            "scaling_min_freq": low,
            "scaling_max_freq": high,
        }
        told = re.search(r"cpufreq-policy%s: (\S+) / \d+ MHz \((.*) / (.*)\)" % policy, original)
        if told:
            contents["scaling_governor"] = told.group(1)
            contents["scaling_available_governors"] = told.group(2)
            contents["scaling_available_frequencies"] = " ".join(mhz + "000" for mhz in told.group(3).split())
        tree.policy(int(policy), listed, listed, contents)
