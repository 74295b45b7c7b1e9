# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PCI devices: configuration space decoded from its bytes, the tree from sysfs, what a link can carry.

Register layouts are those of the PCI Express Base Specification, chapter 7; names of offsets are those of the kernel's
include/uapi/linux/pci_regs.h. "Not known" is None throughout: a register with a reserved value is not known.
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import parse_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

DEVICES = "/sys/bus/pci/devices"
DEVICE_TREE = "/firmware/devicetree/base"

CAP_MSI, CAP_SSVID, CAP_PCIE, CAP_MSIX = 0x05, 0x0D, 0x10, 0x11
EXT_CAP_AER, EXT_CAP_VENDOR = 0x0001, 0x000B
THUNDERBOLT = (0x8086, 0x1234)  # vendor, and the vendor specific capability by which Linux knows its controllers
MAX_CAPABILITIES = 48  # 192 bytes hold no more 4-byte entries; the kernel's own bound (PCI_FIND_CAP_TTL)
MAX_EXTENDED = 480  # (4096 - 256) / 8, the kernel's bound

GT_S = {1: 2.5, 2: 5.0, 3: 8.0, 4: 16.0, 5: 32.0, 6: 64.0}
PORT_TYPES = {
    0: "endpoint",
    1: "legacy endpoint",
    4: "root port",
    5: "upstream port",
    6: "downstream port",
    7: "bridge",
    8: "bridge",
    9: "integrated endpoint",
    10: "event collector",
}
NO_LINK = ("integrated endpoint", "event collector")  # these sit inside the root complex
PORTS = ("root port", "downstream port")  # a slot, or something soldered in its place, is behind each of these
# PCI_ERR_COR_STATUS and PCI_ERR_UNCOR_STATUS, with the names that the kernel's aer_dev_* files use
CORRECTABLE_BITS = {
    0: "RxErr",
    6: "BadTLP",
    7: "BadDLLP",
    8: "Rollover",
    12: "Timeout",
    13: "NonFatalErr",
    14: "CorrIntErr",
    15: "HeaderOF",
}
UNCORRECTABLE_BITS = {
    4: "DLP",
    5: "SDES",
    12: "TLP",
    13: "FCP",
    14: "CmpltTO",
    15: "CmpltAbrt",
    16: "UnxCmplt",
    17: "RxOF",
    18: "MalfTLP",
    19: "ECRC",
    20: "UnsupReq",
    21: "ACSViol",
    22: "UncorrIntErr",
    23: "BlockedTLP",
    24: "AtomicOpBlocked",
    25: "TLPBlockedErr",
    26: "PoisonTLPBlocked",
}

_BDF = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])")
_HOST_BRIDGE = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")
_COUNT = re.compile(r"[0-9]{1,20}")
_SPEED_TEXT = re.compile(r"([0-9]+(?:\.[0-9]+)?) GT/s")


class Link(NamedTuple):
    """A link's capability and what was negotiated; a negotiated width of 0 is an empty slot (or a link that is down).

    The speed is then None: the register's value is undefined while the link is down.
    """

    capable_gt_s: float | None
    capable_width: int | None
    negotiated_gt_s: float | None
    negotiated_width: int | None


class Msi(NamedTuple):
    """MSI or MSI-X. ``granted_vectors`` is 0 while not enabled.

    For MSI it is what the control register grants. MSI-X has no such register: it is the size of the table in
    `ConfigSpace`, and the number of the device's interrupts in `PciDevice`.
    """

    enabled: bool
    capable_vectors: int
    granted_vectors: int


class Aspm(NamedTuple):
    """Link power states that the hardware announces, and those in force; of "L0s" and "L1"."""

    supported: tuple[str, ...]
    enabled: tuple[str, ...]


class Slot(NamedTuple):
    """What a port says of the slot behind it; OCCUPIED by its presence detection, which some boards do not wire."""

    number: int  # printed on some boards
    occupied: bool
    hotplug: bool


class Aer(NamedTuple):
    """Errors counted since the device appeared, per kind, zeros included, the kernel's TOTAL_ lines left out."""

    correctable: dict[str, int]
    nonfatal: dict[str, int]
    fatal: dict[str, int]


class ConfigSpace(NamedTuple):
    """What a device's configuration space says of it; `decode_config` fills it."""

    length: int  # bytes decoded
    alive: bool  # False: all ones
    vendor: int | None
    device: int | None
    subsystem_vendor: int | None
    subsystem_device: int | None
    class_code: int | None
    revision: int | None
    header_type: int | None  # 0 device, 1 bridge, 2 CardBus
    capabilities: tuple[tuple[int, int], ...]  # (id, offset), in the order of the list
    extended: tuple[tuple[int, int], ...]
    port_type: str | None
    link: Link | None
    mps_capable_bytes: int | None
    mps_bytes: int | None
    mrrs_bytes: int | None
    msi: Msi | None
    msix: Msi | None
    aspm: Aspm | None
    correctable_status: tuple[str, ...] | None  # AER status bits set, None without that capability
    uncorrectable_status: tuple[str, ...] | None
    memory_enabled: bool | None = None  # decodes memory addresses ("Mem+" in lspci)
    no_addresses: bool = False  # every base address register is 0
    secondary_bus: int | None = None  # of a bridge: the bus behind it, and the last one behind that
    subordinate_bus: int | None = None
    link_active: bool | None = None  # of a port that tells: the data link layer is up
    target_gt_s: float | None = None  # of a port: the most that it trains for
    slot: Slot | None = None  # of a port that says it has one
    l1_exit_us: int | None = None  # at most this long to leave L1; 65 stands for "more than 64"
    l1_acceptable_us: int | None = None  # of an endpoint: the longest that it can wait; None also for "no limit"
    tunnel: bool = False  # a Thunderbolt controller: the figures of its links are made up


class PciDevice(NamedTuple):
    """One PCI function."""

    bdf: str  # "0003:31:00.0"; the domain may have more than four digits
    vendor: int | None
    device: int | None
    subsystem_vendor: int | None
    subsystem_device: int | None
    class_code: int | None  # 24 bits
    revision: int | None
    driver: str | None
    module: str | None
    parent: str | None  # BDF of the bridge above; None on a root bus, or where the path is not known
    controller: str | None  # platform device above the host bridge ("fe180000.pcie"); None on x86
    of_node: str | None  # that controller's device tree node ("/pcie@fe180000")
    port_type: str | None
    link: Link | None
    mps_capable_bytes: int | None
    mps_bytes: int | None
    mrrs_bytes: int | None
    msi: Msi | None
    msix: Msi | None
    aspm: Aspm | None
    aer: Aer | None
    msi_irqs: tuple[int, ...]
    legacy_irq: int | None
    numa_node: int | None
    local_cpus: tuple[int, ...] | None
    alive: bool  # False: configuration space reads all ones, or BARS_LOST
    config_bytes: int  # 64 without root, 256 or 4096 with; 0 unreadable
    power_state: str | None  # "D0", "D3hot", ...; None where the kernel says "unknown" (no driver yet) or nothing
    correctable_status: tuple[str, ...] | None = None
    uncorrectable_status: tuple[str, ...] | None = None
    memory_enabled: bool | None = None
    bars_lost: bool = False  # the kernel gave it addresses, and its registers hold none: "[virtual]" in lspci
    suspended: bool = False  # put to sleep by runtime power management
    secondary_bus: int | None = None
    subordinate_bus: int | None = None
    link_active: bool | None = None
    target_gt_s: float | None = None
    slot: Slot | None = None
    l1_exit_us: int | None = None
    l1_acceptable_us: int | None = None
    tunnel: bool = False  # Thunderbolt or USB4, or behind it
    board_width: int | None = None  # of a root port: lanes that the device tree gives its controller
    port_errors: dict[str, int] | None = None  # of a root port: messages received, by aer_rootport_total_err_* file


class Bandwidth(NamedTuple):
    """What a link carries in one direction, in units of 10^6 bytes per second."""

    raw_mb_s: float  # after line encoding
    read_mb_s: float  # achievable by DMA reads
    write_mb_s: float  # achievable by DMA writes of 64 KiB, as their sender measures it
    write_sustained_mb_s: float = 0.0  # what the link carries of an endless run of writes


def _u16(data: bytes, offset: int) -> Optional[int]:
    return int.from_bytes(data[offset : offset + 2], "little") if 0 <= offset <= len(data) - 2 else None


def _u32(data: bytes, offset: int) -> Optional[int]:
    return int.from_bytes(data[offset : offset + 4], "little") if 0 <= offset <= len(data) - 4 else None


def _payload(code: int) -> Optional[int]:
    return 128 << code if code <= 5 else None


def _capabilities(data: bytes, header_type: Optional[int]) -> Tuple[Tuple[int, int], ...]:
    status = _u16(data, 0x06)
    if status is None or not status & 0x10 or header_type is None:
        return ()
    pointer = 0x14 if header_type == 2 else 0x34
    found: List[Tuple[int, int]] = []
    seen = set()
    offset = data[pointer] & 0xFC if pointer < len(data) else 0
    while 0x40 <= offset <= len(data) - 2 and offset not in seen and len(found) < MAX_CAPABILITIES:
        seen.add(offset)
        if data[offset] == 0xFF:
            break
        found.append((data[offset], offset))
        offset = data[offset + 1] & 0xFC
    return tuple(found)


def _extended(data: bytes) -> Tuple[Tuple[int, int], ...]:
    found: List[Tuple[int, int]] = []
    seen = set()
    offset = 0x100
    while 0x100 <= offset <= len(data) - 4 and offset not in seen and len(found) < MAX_EXTENDED:
        seen.add(offset)
        header = _u32(data, offset)
        if header is None or header in (0, 0xFFFFFFFF):
            break
        found.append((header & 0xFFFF, offset))
        offset = header >> 20 & 0xFFC
    return tuple(found)


def _decode_link(data: bytes, cap: int) -> Optional[Link]:
    flags, link_cap, link_status = _u16(data, cap + 0x02), _u32(data, cap + 0x0C), _u16(data, cap + 0x12)
    if flags is None or link_cap is None or link_status is None or link_cap == 0xFFFFFFFF:
        return None
    # The supported speeds vector is the better source, as for the kernel's max_link_speed; version 1 has none.
    vector = (_u32(data, cap + 0x2C) or 0) >> 1 & 0x7F if flags & 0xF >= 2 else 0
    speed = GT_S.get(vector.bit_length()) if vector else GT_S.get(link_cap & 0xF)
    width = link_status >> 4 & 0x3F
    return Link(speed, link_cap >> 4 & 0x3F or None, GT_S.get(link_status & 0xF) if width else None, width)


def _decode_slot(data: bytes, cap: int) -> Optional[Slot]:
    flags, slot_cap, status = _u16(data, cap + 0x02), _u32(data, cap + 0x14), _u16(data, cap + 0x1A)
    if flags is None or not flags & 0x100 or slot_cap is None or status is None:
        return None
    return Slot(slot_cap >> 19, bool(status & 0x40), bool(slot_cap & 0x40))


def _l1_exit_us(link_cap: int) -> Optional[int]:
    if not link_cap & 0x800:
        return None  # no L1
    code = link_cap >> 15 & 7
    return 1 << code if code < 7 else 65


def _is_tunnel(data: bytes, vendor: Optional[int], extended: Tuple[Tuple[int, int], ...]) -> bool:
    own = (_u32(data, offset + 4) for number, offset in extended if number == EXT_CAP_VENDOR)
    return vendor == THUNDERBOLT[0] and any(head is not None and head & 0xFFFF == THUNDERBOLT[1] for head in own)


def _power_states(bits: int) -> Tuple[str, ...]:
    return tuple(name for bit, name in ((1, "L0s"), (2, "L1")) if bits & bit)


def _decode_aspm(data: bytes, cap: int) -> Optional[Aspm]:
    link_cap, control = _u32(data, cap + 0x0C), _u16(data, cap + 0x10)
    if link_cap is None or control is None or link_cap == 0xFFFFFFFF:
        return None
    return Aspm(_power_states(link_cap >> 10 & 3), _power_states(control & 3))


def _decode_msi(data: bytes, cap: int) -> Optional[Msi]:
    control = _u16(data, cap + 2)
    if control is None or control == 0xFFFF:
        return None
    capable, granted = control >> 1 & 7, control >> 4 & 7
    if capable > 5 or granted > 5:
        return None
    enabled = bool(control & 1)
    return Msi(enabled, 1 << capable, 1 << granted if enabled else 0)


def _decode_msix(data: bytes, cap: int) -> Optional[Msi]:
    control = _u16(data, cap + 2)
    if control is None or control == 0xFFFF:
        return None
    size, enabled = (control & 0x7FF) + 1, bool(control & 0x8000)
    return Msi(enabled, size, size if enabled else 0)


def _bits(value: Optional[int], names: Dict[int, str]) -> Optional[Tuple[str, ...]]:
    if value is None or value == 0xFFFFFFFF:
        return None
    return tuple(name for bit, name in names.items() if value >> bit & 1)


def decode_config(data: bytes) -> ConfigSpace:
    """Decode configuration space of any length; never raises, what is missing or not understood is None."""
    alive = not data or data[:64].strip(b"\xff") != b""
    empty = ConfigSpace(
        len(data),
        alive,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        (),
        (),
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
    )
    if not alive or len(data) < 16:
        return empty
    header_type = data[0x0E] & 0x7F
    command = _u16(data, 0x04) or 0
    bars = data[0x10:0x28] if header_type == 0 else b""
    caps = _capabilities(data, header_type)
    first: Dict[int, int] = {}
    for number, offset in caps:
        first.setdefault(number, offset)
    extended = _extended(data)
    aer = next((offset for number, offset in extended if number == EXT_CAP_AER), None)
    subsystem = 0x2C if header_type == 0 else first[CAP_SSVID] + 4 if CAP_SSVID in first else -1

    port_type, link, aspm = "bridge" if header_type == 1 and len(data) >= 256 else None, None, None
    mps_capable = mps = mrrs = None
    link_active, target, slot, l1_exit, l1_acceptable = None, None, None, None, None
    if CAP_PCIE in first:
        cap = first[CAP_PCIE]
        flags, capable, control = _u16(data, cap + 2), _u32(data, cap + 4), _u16(data, cap + 8)
        port_type = PORT_TYPES.get(flags >> 4 & 0xF) if flags is not None else None
        link_cap = _u32(data, cap + 0x0C) or 0
        if port_type not in NO_LINK:
            link, aspm = _decode_link(data, cap), _decode_aspm(data, cap)
            l1_exit = _l1_exit_us(link_cap)
        if port_type in PORTS:
            slot = _decode_slot(data, cap)
            status = _u16(data, cap + 0x12)
            link_active = bool(status & 0x2000) if status is not None and link_cap & 0x100000 else None
            target = GT_S.get((_u16(data, cap + 0x30) or 0) & 0xF) if flags is not None and flags & 0xF >= 2 else None
        elif capable is not None and capable >> 9 & 7 != 7:
            l1_acceptable = 1 << (capable >> 9 & 7)
        mps_capable = _payload(capable & 7) if capable is not None else None
        mps = _payload(control >> 5 & 7) if control is not None else None
        mrrs = _payload(control >> 12 & 7) if control is not None else None
    return empty._replace(
        vendor=_u16(data, 0x00),
        device=_u16(data, 0x02),
        subsystem_vendor=_u16(data, subsystem),
        subsystem_device=_u16(data, subsystem + 2) if subsystem >= 0 else None,
        class_code=data[0x0B] << 16 | data[0x0A] << 8 | data[0x09],
        revision=data[0x08],
        header_type=header_type,
        capabilities=caps,
        extended=extended,
        port_type=port_type,
        link=link,
        mps_capable_bytes=mps_capable,
        mps_bytes=mps,
        mrrs_bytes=mrrs,
        msi=_decode_msi(data, first[CAP_MSI]) if CAP_MSI in first else None,
        msix=_decode_msix(data, first[CAP_MSIX]) if CAP_MSIX in first else None,
        aspm=aspm,
        correctable_status=_bits(_u32(data, aer + 0x10), CORRECTABLE_BITS) if aer is not None else None,
        uncorrectable_status=_bits(_u32(data, aer + 0x04), UNCORRECTABLE_BITS) if aer is not None else None,
        memory_enabled=bool(command & 2),
        no_addresses=len(bars) == 24 and not any(byte & (0xFF if at % 4 else 0xF0) for at, byte in enumerate(bars)),
        secondary_bus=data[0x19] if header_type == 1 and len(data) > 0x1A else None,
        subordinate_bus=data[0x1A] if header_type == 1 and len(data) > 0x1A else None,
        link_active=link_active,
        target_gt_s=target,
        slot=slot,
        l1_exit_us=l1_exit,
        l1_acceptable_us=l1_acceptable,
        tunnel=_is_tunnel(data, _u16(data, 0x00), extended),
    )


def bdf_key(bdf: str) -> Tuple[int, int, int, int]:
    """Return (domain, bus, device, function) to sort by; zeros for what is no BDF."""
    match = _BDF.fullmatch(bdf)
    if match is None:
        return (0, 0, 0, 0)
    domain, bus, device, function = (int(part, 16) for part in match.groups())
    return (domain, bus, device, function)


def parse_speed(text: Optional[str]) -> Optional[float]:
    """Return GT/s from sysfs's "5.0 GT/s PCIe" or "8 GT/s"; None for "Unknown" and the like."""
    match = _SPEED_TEXT.match(text or "")
    return float(match.group(1)) if match else None


def parse_aer(text: str) -> Dict[str, int]:
    """Return the counters of one aer_dev_* file."""
    counters = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and _COUNT.fullmatch(words[1]) and not words[0].startswith("TOTAL_"):
            counters[words[0]] = int(words[1])
    return counters


def _sysfs_link(root: Root, path: str) -> Optional[Link]:
    width = root.number(path + "/current_link_width")
    capable = root.number(path + "/max_link_width")
    speed = parse_speed(root.text(path + "/current_link_speed"))
    capable_speed = parse_speed(root.text(path + "/max_link_speed"))
    if width is None and capable is None and speed is None and capable_speed is None:
        return None
    if not 0 <= (capable or 0) <= 32 or not 0 <= (width or 0) <= 32:
        return None  # 63 is what a device that no longer answers reads as
    return Link(capable_speed, capable or None, speed if width else None, width)


def _sysfs_aspm(root: Root, path: str) -> Optional[Aspm]:
    states = [(name, root.number("%s/link/%s_aspm" % (path, name.lower()))) for name in ("L0s", "L1")]
    known = [(name, value) for name, value in states if value is not None]
    if not known:
        return None  # absent also where the link above supports no state: not known
    return Aspm(tuple(name for name, value in known), tuple(name for name, value in known if value))


def _has_addresses(root: Root, path: str) -> bool:
    """Tell whether the kernel has given the device's base address registers any address."""
    lines = (root.text(path + "/resource") or "").splitlines()[:6]
    return any(line.split() and line.split()[0].strip("0x") for line in lines)


def _read_port_errors(root: Root, path: str) -> Optional[Dict[str, int]]:
    names = ("aer_rootport_total_err_cor", "aer_rootport_total_err_nonfatal", "aer_rootport_total_err_fatal")
    counts = {name: root.number("%s/%s" % (path, name)) for name in names}
    known = {name: count for name, count in counts.items() if count is not None}
    return known or None


def _board_width(root: Root, of_node: Optional[str]) -> Optional[int]:
    """Return the lanes that a controller's device tree node gives it: fewer than it has, where they are split up."""
    raw = root.data("/sys%s%s/num-lanes" % (DEVICE_TREE, of_node), 4) if of_node is not None else None
    lanes = int.from_bytes(raw, "big") if raw is not None and len(raw) == 4 else 0
    return lanes if 1 <= lanes <= 32 else None


def _read_aer(root: Root, path: str) -> Optional[Aer]:
    texts = [root.text("%s/aer_dev_%s" % (path, kind)) for kind in ("correctable", "nonfatal", "fatal")]
    if all(text is None for text in texts):
        return None
    return Aer(*[parse_aer(text or "") for text in texts])


def _place(root: Root, path: str) -> Tuple[Optional[str], Optional[str], Optional[str]]:
    """Return (parent, controller, device tree node) from the device's real path."""
    real = root.real(path)
    parts = (real or "").strip("/").split("/")
    parent = parts[-2] if len(parts) > 1 and _BDF.fullmatch(parts[-2]) else None
    bridge = max((at for at, part in enumerate(parts) if _HOST_BRIDGE.fullmatch(part)), default=0)
    above = parts[:bridge]
    if len(above) < 3 or _BDF.fullmatch(above[-1]):
        return parent, None, None  # directly below /sys/devices, or behind another PCI device
    controller = above[-1] if "platform" in above else None
    for place in (above, parts[: bridge + 1]):
        target = root.link_target("/" + "/".join(place) + "/of_node")
        if target is not None and DEVICE_TREE in target:
            return parent, controller, target.partition(DEVICE_TREE)[2] or "/"
    return parent, controller, None


def read_device(root: Root, bdf: str) -> Optional[PciDevice]:
    """Return one function, None if there is no such device."""
    path = "%s/%s" % (DEVICES, bdf)
    if not _BDF.fullmatch(bdf) or not root.exists(path):
        return None
    power_state = root.text(path + "/power_state")
    suspended = root.text(path + "/power/runtime_status") == "suspended"
    # The kernel would wake it up to read this. (One that has died says D3cold, too, but is not suspended.)
    asleep = suspended and power_state == "D3cold"
    data = b"" if asleep else root.data(path + "/config") or b""
    config = decode_config(data)

    def identity(known: Optional[int], name: str, absent: int) -> Optional[int]:
        # a virtual function's own register holds all ones; the kernel knows better, also of a device that died
        return known if known not in (None, absent) else root.number("%s/%s" % (path, name), 16)

    # 64 bytes hold no capability: what sysfs prints is then all there is
    has_capabilities = len(data) >= 256
    link, aspm = config.link, config.aspm
    if config.alive and not has_capabilities and not asleep:
        link, aspm = _sysfs_link(root, path), _sysfs_aspm(root, path)
    irqs = tuple(sorted(int(name) for name in root.names(path + "/msi_irqs") if name.isdecimal()))
    msix = config.msix
    if msix is not None and msix.enabled:
        msix = msix._replace(granted_vectors=min(len(irqs), msix.capable_vectors))
    numa_node = root.number(path + "/numa_node")
    local_cpus = root.text(path + "/local_cpulist")
    parent, controller, of_node = _place(root, path)
    bars_lost = config.memory_enabled is False and config.no_addresses and config.vendor != 0xFFFF
    bars_lost = bars_lost and _has_addresses(root, path)
    is_root_port = config.port_type == "root port"
    return PciDevice(
        bdf=bdf,
        vendor=identity(config.vendor, "vendor", 0xFFFF),
        device=identity(config.device, "device", 0xFFFF),
        subsystem_vendor=identity(config.subsystem_vendor, "subsystem_vendor", 0xFFFF),
        subsystem_device=identity(config.subsystem_device, "subsystem_device", 0xFFFF),
        class_code=identity(config.class_code, "class", 0xFFFFFF),
        revision=identity(config.revision, "revision", -1),
        driver=root.link(path + "/driver"),
        module=root.link(path + "/driver/module"),
        parent=parent,
        controller=controller,
        of_node=of_node,
        port_type=config.port_type,
        link=link,
        mps_capable_bytes=config.mps_capable_bytes,
        mps_bytes=config.mps_bytes,
        mrrs_bytes=config.mrrs_bytes,
        msi=config.msi,
        msix=msix,
        aspm=aspm,
        aer=_read_aer(root, path),
        msi_irqs=irqs,
        legacy_irq=root.number(path + "/irq") or None,
        numa_node=numa_node if numa_node is not None and numa_node >= 0 else None,
        local_cpus=parse_list(local_cpus) if local_cpus is not None else None,
        alive=config.alive and not bars_lost,
        config_bytes=len(data),
        power_state=power_state if power_state not in ("unknown", "error") else None,
        correctable_status=config.correctable_status,
        uncorrectable_status=config.uncorrectable_status,
        memory_enabled=config.memory_enabled,
        bars_lost=bars_lost,
        suspended=suspended,
        secondary_bus=config.secondary_bus,
        subordinate_bus=config.subordinate_bus,
        link_active=config.link_active,
        target_gt_s=config.target_gt_s,
        slot=config.slot,
        l1_exit_us=config.l1_exit_us,
        l1_acceptable_us=config.l1_acceptable_us,
        tunnel=config.tunnel or root.text(path + "/removable") == "removable",
        board_width=_board_width(root, of_node) if is_root_port else None,
        port_errors=_read_port_errors(root, path) if is_root_port else None,
    )


def read_devices(root: Root) -> tuple[PciDevice, ...]:
    """Return every PCI function, by domain, bus, device and function."""
    found = (read_device(root, bdf) for bdf in sorted(root.names(DEVICES), key=bdf_key))
    return tuple(device for device in found if device is not None)


def climb(by_bdf: Mapping[str, PciDevice], bdf: str) -> tuple[PciDevice, ...]:
    """Return the devices from BDF up to its root port, in that order; () if BDF is not among them."""
    chain: Dict[str, PciDevice] = {}
    at: Optional[str] = bdf
    while at is not None and at in by_bdf and at not in chain:
        chain[at] = by_bdf[at]
        at = by_bdf[at].parent
    return tuple(chain.values())


def path_to_root(devices: Iterable[PciDevice], bdf: str) -> tuple[PciDevice, ...]:
    """Return what `climb` does, from a list of devices."""
    return climb({device.bdf: device for device in devices}, bdf)


def interrupts_of(devices: Sequence[PciDevice]) -> Dict[int, str]:
    """Return the BDF that owns each interrupt number in msi_irqs."""
    return {irq: device.bdf for device in devices for irq in device.msi_irqs}


# Bytes on the link around one packet's payload. Framing (2 with 8b/10b: STP and END; 4 with 128b/130b, where the STP
# token takes the sequence number in), sequence number (2 with 8b/10b), header of three double words (12), LCRC (4).
_TLP_OVERHEAD = 20
# One data link layer packet (acknowledgement or flow control, 8 bytes framed) goes back per packet in the worst case;
# with reads it shares the direction of the completions with the credits that the requests need.
_DLLP = 8
# A posted write is done, for its sender, when it is buffered: of a 64 KiB transfer the last 3 KiB cost no time.
_TRANSFER, _POSTED_BUFFER = 65536, 3072


def bandwidth_mb_s(gt_s: float, width: int, mps_bytes: int) -> Bandwidth:
    """Return what a link of WIDTH lanes at GT_S can carry with payloads of at most MPS_BYTES.

    Frame arithmetic, and one fitted constant: the 3 KiB in ``write_mb_s``. Published measurements of a PCIe 2.0 core
    (Microchip, PolarFire PCIe user guide, section 3.5.1: 64 KiB DMA, MPS 128, one lane) read 411 and write 453 of
    500 MB/s, and 206 and 226 of 250 MB/s at Gen1; this model says 410.3 and 453.7, 205.1 and 226.8. Frames of 128 bytes
    alone bound a sustained run of writes at 432.4 MB/s, so that 453 cannot be one: see ``write_sustained_mb_s``.
    """
    if gt_s <= 0 or width <= 0 or mps_bytes <= 0:
        return Bandwidth(0.0, 0.0, 0.0, 0.0)
    if gt_s <= 5.0:
        encoding = 8 / 10
    elif gt_s <= 32.0:
        encoding = 128 / 130
    else:
        encoding = 236 / 256  # bytes for packets in a flit; sequence numbers and CRC are the flit's
    raw = gt_s * 1000 / 8 * width * encoding
    sustained = raw * mps_bytes / (mps_bytes + _TLP_OVERHEAD)
    return Bandwidth(
        raw_mb_s=raw,
        read_mb_s=raw * mps_bytes / (mps_bytes + _TLP_OVERHEAD + _DLLP),
        write_mb_s=min(raw, sustained * _TRANSFER / (_TRANSFER - _POSTED_BUFFER)),
        write_sustained_mb_s=sustained,
    )
