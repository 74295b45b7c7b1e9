# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way from a card to the root complex, link by link: what it could do, does, who limits and shares it. Pure."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import CardKind, kind_of
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import (
    NO_LINK,
    PORTS,
    PciDevice,
    bandwidth_mb_s,
    climb,
)

BRIDGES = (*PORTS, "upstream port", "bridge")
# States of a link. HELD: its port was told to train for less. UNSEEN: an end is not visible, or its figures are made
# up.
FULL, HELD, DEGRADED, ASLEEP, DOWN, UNREAD, UNSEEN = "full", "held", "degraded", "asleep", "down", "unread", "unseen"
JUDGED = (FULL, HELD, DEGRADED, ASLEEP)
BRIDGE_CLASS = 0x0604
VIRTUAL_MACHINES = (0x1B36, 0x15AD)  # QEMU and VMware: what their ports say of a link is made up
# MPS where it is not known: the least there is, and what a reset leaves
LEAST_MPS = 128


class LinkVerdict(NamedTuple):
    """A device's link. POSSIBLE_*: the most that both ends can do together (GT/s, lanes). DEGRADED: it does less.

    LIMIT says in words who sets the limit.
    """

    possible_gt_s: float
    possible_width: int
    negotiated_gt_s: float
    negotiated_width: int
    degraded: bool
    limit: str


class Hop(NamedTuple):
    """One link. LOWER is its end at the card's side, UPPER the port above; *_gt_s and *_width what each is capable of.

    LIMITED_BY names who sets speed and width: "card", "switch", "slot" (the port, or the lanes that the board gives
    it), "setting" or "training". LIMIT says it in words, or why nothing can be said. *_mb_s is what it carries with the
    payloads in force on the whole way.
    """

    lower: str
    lower_type: Optional[str]
    lower_gt_s: Optional[float]
    lower_width: Optional[int]
    upper: Optional[str]
    upper_type: Optional[str]
    upper_gt_s: Optional[float]
    upper_width: Optional[int]
    negotiated_gt_s: Optional[float]
    negotiated_width: Optional[int]
    state: str
    limited_by: Tuple[str, ...]
    limit: str
    read_mb_s: Optional[float]
    write_mb_s: Optional[float]

    @property
    def possible(self) -> Tuple[float, int]:
        """The most that both ends can do together: GT/s and lanes; zeros where it is not known."""
        return (
            min(self.lower_gt_s or 0.0, self.upper_gt_s or 0.0),
            min(self.lower_width or 0, self.upper_width or 0),
        )


class Rate(NamedTuple):
    """What a card can move, in 10^6 bytes per second."""

    read: float
    write: float


class CardPath(NamedTuple):
    """A card's way to the root complex.

    HOPS: its links, from the card up; () for a card inside the processor. BOTTLENECK: the lower end of the narrowest.
    SHARED_WITH: devices in other slots whose way has a link in common with this one. BANDWIDTH: the card alone;
    SHARE: while all cards work.
    """

    hops: Tuple[Hop, ...]
    bottleneck: Optional[str]
    shared_with: Tuple[str, ...]
    bandwidth: Optional[Rate]
    share: Optional[Rate]


class OpenPort(NamedTuple):
    """A port with nothing known behind it. OCCUPIED: what presence detection says, None without it.

    HAS_LINK: its link is up, so that something is there which a rescan will find; CERTAIN: the port itself says so.
    """

    bdf: str
    port_type: str
    capable_gt_s: Optional[float]
    capable_width: Optional[int]
    slot_number: Optional[int]
    of_node: Optional[str]
    occupied: Optional[bool]
    has_link: bool
    certain: bool


def asleep(device: PciDevice) -> bool:
    """Tell whether a device sleeps: its link may be slower then, and reading it may wake it up."""
    return device.suspended or (device.power_state or "").startswith("D3")


def _names(lower: PciDevice, upper: PciDevice) -> Tuple[str, str]:
    return "switch" if lower.port_type == "upstream port" else "card", "slot"


def _sides(lower: float, upper: float, what: str, names: Tuple[str, str]) -> Tuple[str, Tuple[str, ...]]:
    if lower == upper:
        return "%s and %s agree on %s" % (*names, what), names
    name = names[1] if upper < lower else names[0]
    return "the %s sets %s" % (name, what), (name,)


def _judge(lower: PciDevice, upper: Optional[PciDevice]) -> Tuple[str, Tuple[str, ...], str]:
    """Return (state, who limits it, that in words) of a link."""
    if upper is None or upper.port_type not in (*PORTS, None):
        return UNSEEN, (), "no port stands above it: it was handed to this virtual machine, or is behind a bridge"
    if upper.vendor in VIRTUAL_MACHINES:
        return UNSEEN, (), "the port above it is a virtual machine's; run the diagnosis on the machine around it"
    if lower.tunnel or upper.tunnel:
        return UNSEEN, (), "it is connected by Thunderbolt or USB4, whose ports make these figures up"
    if asleep(lower) and lower.link is None:
        return ASLEEP, (), "it sleeps, and reading its registers would wake it up"
    mine, theirs = lower.link, upper.link
    if mine is None or theirs is None:
        return UNREAD, (), "its registers could not be read"
    if mine.negotiated_width == 0:
        return DOWN, (), "its registers tell of no link"
    slot_width = _slot_width(upper)
    if mine.capable_gt_s is None or mine.capable_width is None or theirs.capable_gt_s is None or slot_width is None:
        return UNREAD, (), "its registers hold values that nobody has defined"
    if mine.negotiated_gt_s is None or mine.negotiated_width is None:
        return UNREAD, (), "its registers hold values that nobody has defined"
    gt_s, width = min(mine.capable_gt_s, theirs.capable_gt_s), min(mine.capable_width, slot_width)
    most = "%g GT/s x%d" % (gt_s, width)
    if mine.negotiated_gt_s < gt_s or mine.negotiated_width < width:
        if asleep(lower):
            return ASLEEP, (), "both ends can do %s; it sleeps, and may come back to that when it works" % most
        if mine.negotiated_width >= width and mine.negotiated_gt_s == upper.target_gt_s:
            told = "both ends can do %s; the port was told to train for %g GT/s at most (firmware, device tree)"
            return HELD, ("setting",), told % (most, upper.target_gt_s)
        wires = ", or lanes that the board does not wire" if mine.negotiated_gt_s >= gt_s else ""
        why = "both ends can do %s; training settled for less: seating, cable, dust or power%s" % (most, wires)
        return DEGRADED, ("training",), why
    names = _names(lower, upper)
    speed, by_speed = _sides(mine.capable_gt_s, theirs.capable_gt_s, "%g GT/s" % gt_s, names)
    lanes, by_width = _sides(mine.capable_width, slot_width, "x%d" % width, names)
    return FULL, tuple(sorted({*by_speed, *by_width})), "%s, %s" % (speed, lanes)


def _slot_width(port: PciDevice) -> Optional[int]:
    """Return how many lanes a port has for its slot: a board may split a controller's lanes between several."""
    if port.link is None or port.link.capable_width is None or port.board_width is None:
        return None if port.link is None else port.link.capable_width
    if (port.link.negotiated_width or 0) > port.board_width:
        return port.link.capable_width  # what runs is stronger than what is written
    return min(port.link.capable_width, port.board_width)


def link_above(lower: PciDevice, upper: Optional[PciDevice], mps_bytes: int = LEAST_MPS) -> Optional[Hop]:
    """Return the link between a device and the bridge above it; None where there is none.

    Inside a switch and inside the root complex are no links.
    """
    if lower.port_type is None and (lower.class_code or 0) >> 8 == BRIDGE_CLASS:
        return None  # its registers could not be read: either end of a switch
    if lower.port_type in (*PORTS, *NO_LINK) or (upper is not None and upper.port_type == "upstream port"):
        return None
    if lower.link is None and lower.config_bytes >= 256:
        return None  # conventional PCI
    state, limited_by, limit = _judge(lower, upper)
    mine, theirs = lower.link, upper.link if upper is not None else None
    band = None
    tunnel = lower.tunnel or (upper is not None and upper.tunnel)
    if mine is not None and mine.negotiated_gt_s and mine.negotiated_width and not tunnel:
        band = bandwidth_mb_s(mine.negotiated_gt_s, mine.negotiated_width, mps_bytes)
    return Hop(
        lower.bdf,
        lower.port_type,
        mine.capable_gt_s if mine is not None else None,
        mine.capable_width if mine is not None else None,
        upper.bdf if upper is not None else None,
        upper.port_type if upper is not None else None,
        theirs.capable_gt_s if theirs is not None else None,
        _slot_width(upper) if upper is not None else None,
        mine.negotiated_gt_s if mine is not None else None,
        mine.negotiated_width if mine is not None else None,
        state,
        limited_by,
        limit,
        None if band is None else round(band.read_mb_s, 1),
        None if band is None else round(band.write_mb_s, 1),
    )


def judge_link(device: PciDevice, upper: Optional[PciDevice]) -> Optional[LinkVerdict]:
    """Return the verdict on the link above DEVICE; None where an end or a figure of it cannot be read."""
    hop = link_above(device, upper)
    if hop is None or hop.state not in JUDGED or hop.negotiated_gt_s is None or hop.negotiated_width is None:
        return None
    gt_s, width = hop.possible
    return LinkVerdict(gt_s, width, hop.negotiated_gt_s, hop.negotiated_width, hop.state != FULL, hop.limit)


def is_internal(card: PciDevice, kind: Optional[CardKind]) -> bool:
    """Tell whether a card is part of the processor: then it has no link of which anything could be said."""
    return card.port_type in NO_LINK or (kind is not None and kind.internal)


def hops_of(card: PciDevice, by_bdf: Dict[str, PciDevice]) -> Tuple[Hop, ...]:
    """Return the links from CARD up to the root complex."""
    path = [_typed(device, at) for at, device in enumerate(climb(by_bdf, card.bdf))]
    mps = min((device.mps_bytes for device in path if device.mps_bytes is not None), default=LEAST_MPS)
    ends = zip(path, (*path[1:], None))
    return tuple(hop for lower, upper in ends for hop in [link_above(lower, upper, mps)] if hop is not None)


def _typed(device: PciDevice, above: int) -> PciDevice:
    """Return a device with its port type. Who is not root cannot read it, but ports alternate on the way up."""
    if device.port_type is not None or above == 0:
        return device
    if above % 2 == 0:
        return device._replace(port_type="upstream port")
    return device._replace(port_type="root port" if device.parent is None else "downstream port")


def survey(devices: Sequence[PciDevice], kinds: Sequence[CardKind]) -> Dict[str, CardPath]:
    """Return the way of every NPU card, by its address."""
    by_bdf = {device.bdf: device for device in devices}
    ways: Dict[str, Tuple[Hop, ...]] = {}
    for device in devices:
        kind = kind_of(device, kinds)
        if kind is not None:
            ways[device.bdf] = () if is_internal(device, kind) or not device.alive else hops_of(device, by_bdf)
    shares = _shares(ways)
    users = _users(devices, by_bdf) if ways else {}
    found = {}
    for bdf, hops in ways.items():
        carrying = [hop for hop in hops if hop.read_mb_s is not None]
        narrowest = min(carrying, key=lambda hop: hop.read_mb_s or 0.0, default=None)
        whole = bool(carrying) and len(carrying) == len(hops)
        others = {user for hop in hops if hop.upper is not None for user in users.get(hop.upper, ())}
        found[bdf] = CardPath(
            hops,
            narrowest.lower if narrowest is not None else None,
            tuple(user for user in by_bdf if user in others and user[:-2] != bdf[:-2]),
            _least(carrying) if whole else None,
            shares.get(bdf) if whole else None,
        )
    return found


def _least(hops: Sequence[Hop]) -> Rate:
    return Rate(min(hop.read_mb_s or 0.0 for hop in hops), min(hop.write_mb_s or 0.0 for hop in hops))


def _users(devices: Sequence[PciDevice], by_bdf: Dict[str, PciDevice]) -> Dict[str, List[str]]:
    """Return the devices behind each bridge: one function of each, bridges left out."""
    users: Dict[str, List[str]] = {}
    seen = set()
    for device in devices:
        # who is not root sees a bridge by its class only
        if device.port_type in BRIDGES or (device.class_code or 0) >> 8 == BRIDGE_CLASS or device.bdf[:-2] in seen:
            continue
        seen.add(device.bdf[:-2])
        for bridge in climb(by_bdf, device.bdf)[1:]:
            users.setdefault(bridge.bdf, []).append(device.bdf)
    return users


def _shares(ways: Dict[str, Tuple[Hop, ...]]) -> Dict[str, Rate]:
    """Return what each card gets while all work: links are shared evenly, and what one cannot use the others get."""
    reads, writes = (_fill(ways, which) for which in ("read_mb_s", "write_mb_s"))
    return {bdf: Rate(reads[bdf], writes[bdf]) for bdf in reads if bdf in writes}


def _fill(ways: Dict[str, Tuple[Hop, ...]], which: str) -> Dict[str, float]:
    room: Dict[str, float] = {}
    members: Dict[str, set[str]] = {}
    for bdf, hops in ways.items():
        for hop in hops:
            carried = getattr(hop, which)
            if carried is not None:
                link = hop.upper or hop.lower
                room[link] = min(carried, room.get(link, carried))
                members.setdefault(link, set()).add(bdf)
    shares: Dict[str, float] = {}
    while members:
        tightest = min(members, key=lambda link: room[link] / len(members[link]))
        each = room[tightest] / len(members[tightest])
        for bdf in sorted(members[tightest]):
            shares[bdf] = each
            for link, users in members.items():
                if bdf in users:
                    users.discard(bdf)
                    room[link] = max(0.0, room[link] - each)
        members = {link: users for link, users in members.items() if users}
    return shares


def open_ports(devices: Sequence[PciDevice]) -> List[OpenPort]:
    """Return the ports with nothing known behind them: empty slots, and ports that need a rescan.

    A port that says of itself that it has no slot serves something soldered that is switched off. Where a device tree
    describes the controllers it means nothing: they say so whether they have one or not.
    """
    parents = {device.parent for device in devices}
    found = []
    for port in devices:
        link = port.link
        if port.port_type not in PORTS or port.bdf in parents or link is None or port.tunnel or not port.alive:
            continue
        if _bus_in_use(port, devices):
            continue
        occupied = port.slot.occupied if port.slot is not None else None
        # A port that does not report whether its link is active keeps the last width, sometimes for ever.
        told = port.link_active is None and bool(link.negotiated_width) and occupied is True
        has_link = port.link_active is True or told
        if has_link or port.slot is not None or port.of_node is not None:
            found.append(
                OpenPort(
                    port.bdf,
                    port.port_type or "",
                    link.capable_gt_s,
                    _slot_width(port),
                    port.slot.number if port.slot is not None else None,
                    port.of_node,
                    occupied,
                    has_link,
                    port.link_active is True,
                )
            )
    return found


def _bus_in_use(port: PciDevice, devices: Sequence[PciDevice]) -> bool:
    """Tell whether a device is on a bus behind PORT; its place in the tree may not be known."""
    if not port.secondary_bus:
        return False
    domain, last = port.bdf.split(":")[0], max(port.secondary_bus, port.subordinate_bus or 0)
    buses = (device.bdf.split(":") for device in devices)
    return any(parts[0] == domain and port.secondary_bus <= int(parts[1], 16) <= last for parts in buses)
