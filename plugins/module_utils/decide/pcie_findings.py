# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the state of cards, links and slots means: the PCIe part of `findings`. Pure."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import (
    AX650N,
    CardKind,
    cards,
    kind_of,
    relatives,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import CRITICAL, INFO, WARNING, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.topology import (
    ASLEEP,
    DEGRADED,
    FULL,
    HELD,
    LEAST_MPS,
    UNREAD,
    CardPath,
    Hop,
    OpenPort,
    is_internal,
    open_ports,
    survey,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PciDevice, bandwidth_mb_s, climb

SYSFS = "/sys/bus/pci/devices/"
# Corrected errors cost a repeated packet each. A few come with every boot; a stream of them is a bad connection.
MANY_ERRORS, MANY_AN_HOUR = 100, 60
# Set by the mere search for devices at boot
HARMLESS_BITS = ("UnsupReq", "NonFatalErr")
RESCAN = "`echo 1 | sudo tee /sys/bus/pci/rescan`"


def _speed(gt_s: Optional[float], width: Optional[int]) -> str:
    return "%s x%s" % ("?" if gt_s is None else "%g GT/s" % gt_s, "?" if width is None else width)


def _presence(card: PciDevice, kind: CardKind) -> Optional[Finding]:
    sysfs = SYSFS + card.bdf
    if not card.alive:
        reads = "all ones"
        evidence: Dict[str, Any] = {sysfs + "/config": "ff ff ff ff"}
        if card.bars_lost:
            reads = "no address, and the kernel had given it some: it was reset, or its link dropped"
            evidence = {sysfs + "/config": "Mem-, base addresses 0", sysfs + "/resource": "addresses assigned"}
        return Finding(
            "card_dead",
            CRITICAL,
            "%s at %s is dead: its configuration space reads %s" % (kind.name, card.bdf, reads),
            evidence,
            "Power the host off and on again (a reboot leaves the card powered); check cooling; disable sleep.",
            None,
        )
    if card.driver is None:
        return Finding(
            "card_unbound",
            INFO if kind.internal else WARNING,  # a processor has its NPU whether anybody wants it or not
            "%s at %s has no driver, so it has no interrupt to place" % (kind.name, card.bdf),
            {sysfs + "/driver": None},
            "Install and load the card's driver; the interrupt is placed as soon as it binds.",
            "axcl_driver" if "ax_pcie_host_dev" in kind.modules else None,
        )
    if kind.drivers and card.driver not in kind.drivers:
        return Finding(
            "card_wrong_driver",
            WARNING,
            "%s at %s is held by %s instead of %s" % (kind.name, card.bdf, card.driver, " or ".join(kind.drivers)),
            {sysfs + "/driver": card.driver},
            "Unbind it from %s (a virtual machine may be using it) and bind %s." % (card.driver, kind.drivers[0]),
            None,
        )
    return None


def _ends(hop: Hop) -> Dict[str, Any]:
    """Return the evidence on a link: which configuration space says what."""
    can = _speed(hop.lower_gt_s, hop.lower_width)
    runs = _speed(hop.negotiated_gt_s, hop.negotiated_width)
    evidence: Dict[str, Any] = {"%s%s/config" % (SYSFS, hop.lower): "can %s, negotiated %s" % (can, runs)}
    if hop.upper is not None:
        evidence["%s%s/config" % (SYSFS, hop.upper)] = "can %s" % _speed(hop.upper_gt_s, hop.upper_width)
    return evidence


def _link(card: PciDevice, hop: Hop) -> Finding:
    """The link of the card itself."""
    runs = _speed(hop.negotiated_gt_s, hop.negotiated_width)
    if hop.state == UNREAD and card.config_bytes < 256:
        return Finding(
            "link_unknown",
            INFO,
            "the link of %s could not be read" % card.bdf,
            {"%s%s/config" % (SYSFS, card.bdf): "%d bytes readable" % card.config_bytes},
            "Run as root: the kernel shows others only the first 64 bytes of the configuration space.",
            None,
        )
    if hop.state == DEGRADED:
        return Finding(
            "link_degraded",
            WARNING,
            "the link of %s runs at %s, below what card and slot can do" % (card.bdf, runs),
            _ends(hop),
            "Power off, reseat the card, clean the slot, try another slot or cable: %s." % hop.limit,
            None,
        )
    if hop.state == HELD:
        return Finding(
            "link_held_back",
            INFO,
            "the link of %s runs at %s: %s" % (card.bdf, runs, hop.limit),
            _ends(hop),
            "If the board is good for more, raise it there: a slot's speed in the firmware's setup, max-link-speed in "
            "the device tree, dtparam=pciex1_gen=3 in a Raspberry Pi 5's config.txt.",
            None,
        )
    if hop.state == ASLEEP:
        return Finding(
            "link_asleep",
            INFO,
            "the link of %s is not judged: %s" % (card.bdf, hop.limit),
            {"%s%s/power_state" % (SYSFS, card.bdf): card.power_state},
            "Look again while it works.",
            None,
        )
    if hop.state != FULL:
        return Finding(
            "link_unseen",
            INFO,
            "the link of %s is not visible here: %s" % (card.bdf, hop.limit),
            _ends(hop),
            "Nothing is known to be wrong.",
            None,
        )
    return Finding(
        "link_at_limit",
        INFO,
        "the link of %s runs at %s (about %.0f MB/s read, %.0f MB/s write), the most it can: %s"
        % (card.bdf, runs, hop.read_mb_s or 0.0, hop.write_mb_s or 0.0, hop.limit),
        _ends(hop),
        "Nothing to be done in software.",
        None,
    )


def _uplinks(ways: Mapping[str, CardPath]) -> List[Finding]:
    """The links above the switches, each once: degraded ones, and those that all cards together can fill."""
    hops: Dict[str, Hop] = {}
    below: Dict[str, List[str]] = {}
    for bdf, way in ways.items():
        for hop in way.hops[1:]:
            hops.setdefault(hop.lower, hop)
            below.setdefault(hop.lower, []).append(bdf)
    found = []
    for lower, hop in hops.items():
        users = below[lower]
        own = [way.hops[0].read_mb_s for way in (ways[bdf] for bdf in users)]
        asked = sum(rate for rate in own if rate is not None)
        runs = _speed(hop.negotiated_gt_s, hop.negotiated_width)
        narrow = hop.read_mb_s is not None and hop.read_mb_s < asked
        if hop.state in (DEGRADED, HELD):
            found.append(
                Finding(
                    "uplink_degraded",
                    WARNING if hop.state == DEGRADED and narrow else INFO,
                    "the link above switch %s, which serves %s, runs at %s, below what both ends can do"
                    % (lower, _several(users), runs),
                    _ends(hop),
                    "Power off, reseat the switch's card or cable, clean the slot: %s." % hop.limit,
                    None,
                )
            )
        shares = [ways[bdf].share for bdf in users]
        if narrow and hop.read_mb_s is not None:
            each = ", ".join(sorted({"%.0f" % share.read for share in shares if share is not None})) or "less"
            found.append(
                Finding(
                    "uplink_narrow",
                    INFO,
                    "%s share the link above switch %s, %s: it carries %.0f MB/s read, they could take %.0f; while all "
                    "work each gets %s" % (_several(users), lower, runs, hop.read_mb_s, asked, each),
                    _ends(hop),
                    "Move cards to slots of other root ports, or the switch to a wider slot, if transfers matter.",
                    None,
                )
            )
    return found


def _several(bdfs: Sequence[str]) -> str:
    return bdfs[0] if len(bdfs) == 1 else "%d cards" % len(bdfs)


def _requests(card: PciDevice) -> Optional[Finding]:
    """MRRS of an AX650N: its driver assumes 512 (128 and 256 were seen to crash it, 4096 to cost 30 %)."""
    if (card.vendor, card.device) != AX650N or card.mrrs_bytes in (None, 512):
        return None
    told = {128: "crashes were seen", 256: "crashes were seen", 4096: "30 % less speed was seen"}
    return Finding(
        "mrrs_unusual",
        CRITICAL if card.mrrs_bytes in (128, 256) else WARNING,
        "%s has a maximum read request size of %s bytes; its driver assumes 512 (%s)"
        % (card.bdf, card.mrrs_bytes, told.get(card.mrrs_bytes or 0, "untested")),
        {"%s%s/config" % (SYSFS, card.bdf): "MRRS %s" % card.mrrs_bytes},
        "Remove whatever sets it (a setpci line, pci=pcie_bus_perf on the kernel's command line) and reboot.",
        None,
    )


def _payload(card: PciDevice, path: Sequence[PciDevice], way: CardPath) -> Optional[Finding]:
    """Payloads smaller than every device on the way could take."""
    able = [device.mps_capable_bytes for device in path]
    used = min((device.mps_bytes for device in path if device.mps_bytes is not None), default=LEAST_MPS)
    least = min((size for size in able if size is not None), default=0)
    narrowest = next((hop for hop in way.hops if hop.lower == way.bottleneck), None)
    if None in able or least <= used or narrowest is None or way.bandwidth is None:
        return None
    gain = bandwidth_mb_s(narrowest.negotiated_gt_s or 0.0, narrowest.negotiated_width or 0, least)
    return Finding(
        "payload_small",
        INFO,
        "%s moves payloads of %d bytes; all on its way can take %d (%.0f instead of %.0f MB/s read)"
        % (card.bdf, used, least, gain.read_mb_s, way.bandwidth.read),
        {
            "%s%s/config" % (SYSFS, device.bdf): "MPS %s of %s" % (device.mps_bytes, device.mps_capable_bytes)
            for device in path
        },
        "If transfers matter, boot with pci=pcie_bus_safe (never pcie_bus_perf with an AX650N in the host).",
        None,
    )


def _power_saving(card: PciDevice, port: Optional[PciDevice]) -> Optional[Finding]:
    """ASPM that is in force: L1 needs both ends, L0s is each end's own."""
    if card.aspm is None or port is None or port.aspm is None:
        return None
    mine, theirs = set(card.aspm.enabled), set(port.aspm.enabled)
    states = sorted((mine & theirs) | ((mine | theirs) & {"L0s"}))
    if not states:
        return None
    sysfs = SYSFS + card.bdf
    evidence: Dict[str, Any] = {
        sysfs + "/config": "ASPM " + (" ".join(card.aspm.enabled) or "off"),
        "%s%s/config" % (SYSFS, port.bdf): "ASPM " + (" ".join(port.aspm.enabled) or "off"),
    }
    exits = [us for us in (card.l1_exit_us, port.l1_exit_us) if us is not None]
    longest, bearable = max(exits, default=None), card.l1_acceptable_us
    too_long = "L1" in states and longest is not None and bearable is not None and longest > bearable
    takes = ""
    if "L1" in states and longest is not None:
        takes = ", and waking it takes %s us" % ("up to %d" % longest if longest < 65 else "more than 64")
    if too_long:
        takes += "; the card can wait for %d" % (bearable or 0)
    return Finding(
        "link_power_saving",
        WARNING if too_long else INFO,
        "the link of %s sleeps between transfers (%s)%s" % (card.bdf, ", ".join(states), takes),
        evidence,
        "For the shortest delay switch it off: "
        + ", ".join("`echo 0 | sudo tee %s/link/%s_aspm`" % (sysfs, state.lower()) for state in states)
        + ", or boot with pcie_aspm.policy=performance.",
        None,
    )


def _errors(device: PciDevice, uptime_s: Optional[float]) -> Optional[Finding]:
    """Errors that the kernel counted, of a card or of a port on its way."""
    evidence: Dict[str, Any] = {}
    serious = mild = 0
    for kind, counts in device.aer._asdict().items() if device.aer is not None else ():
        seen = {name: count for name, count in counts.items() if count}
        if seen:
            evidence["%s%s/aer_dev_%s" % (SYSFS, device.bdf, kind)] = seen
        grave = sum(count for name, count in seen.items() if name not in HARMLESS_BITS)
        serious, mild = (serious, sum(seen.values())) if kind == "correctable" else (serious + grave, mild)
    for name, count in (device.port_errors or {}).items():
        if count:
            evidence["%s%s/%s" % (SYSFS, device.bdf, name)] = count
            serious, mild = (serious, max(mild, count)) if name.endswith("_cor") else (serious + count, mild)
    if not serious and not mild:
        return None  # nothing, or only what the search for devices at boot leaves behind
    rate, often = "", False
    if mild and uptime_s:
        hourly = mild * 3600 / uptime_s
        often = mild >= MANY_ERRORS and hourly >= MANY_AN_HOUR
        rate = ": %d corrected, %.1f an hour" % (mild, hourly)
    return Finding(
        "link_errors",
        WARNING if serious or often else INFO,
        "%s has reported %s PCIe errors since boot%s" % (device.bdf, "uncorrectable" if serious else "corrected", rate),
        evidence,
        "Watch whether the counts grow; if so, reseat the card and check its power supply and cooling.",
        None,
    )


def _past_errors(path: Sequence[PciDevice]) -> Optional[Finding]:
    """Errors that left a bit behind, where no counter has them: nobody knows when, or how many."""
    evidence: Dict[str, Any] = {}
    for device in path:
        counted = device.aer._asdict() if device.aer is not None else {}
        known = {name for counts in counted.values() for name, count in counts.items() if count}
        bits = [*(device.correctable_status or ()), *(device.uncorrectable_status or ())]
        left = [name for name in bits if name not in known and name not in HARMLESS_BITS]
        if left:
            evidence["%s%s/config" % (SYSFS, device.bdf)] = "AER status: " + " ".join(left)
    if not evidence:
        return None
    return Finding(
        "past_errors",
        INFO,
        "PCIe errors left their mark at %s; when and how many is not known"
        % ", ".join(where[len(SYSFS) : -len("/config")] for where in evidence),
        evidence,
        "Nothing to be done, unless the card gives trouble.",
        None,
    )


def _slots(found: Sequence[PciDevice], ways: Mapping[str, CardPath], ports: Sequence[OpenPort]) -> List[Finding]:
    """Empty slots in which a card would have a wider or faster link than where it is."""
    told = []
    for card in found:
        hops = ways[card.bdf].hops
        if not hops or hops[0].state != FULL:
            continue
        hop = hops[0]
        here = bandwidth_mb_s(hop.negotiated_gt_s or 0.0, hop.negotiated_width or 0, LEAST_MPS).raw_mb_s
        better: Dict[str, str] = {}
        for port in ports:
            gt_s = min(hop.lower_gt_s or 0.0, port.capable_gt_s or 0.0)
            width = min(hop.lower_width or 0, port.capable_width or 0)
            if not port.has_link and bandwidth_mb_s(gt_s, width, LEAST_MPS).raw_mb_s > here:
                better[port.bdf] = _speed(gt_s, width)
        if better:
            best = ", ".join("%s (%s)" % pair for pair in better.items())
            told.append(
                Finding(
                    "better_slot",
                    INFO,
                    "%s runs at %s where it is; empty ports could give it more: %s"
                    % (card.bdf, _speed(hop.negotiated_gt_s, hop.negotiated_width), best),
                    {"%s%s/config" % (SYSFS, bdf): "empty, %s with this card" % speed for bdf, speed in better.items()},
                    "Move the card there, if the board has a connector for it at that port.",
                    None,
                )
            )
    return told


def _rescans(ports: Sequence[OpenPort]) -> List[Finding]:
    return [
        Finding(
            "port_needs_rescan",
            WARNING if port.certain else INFO,
            "the link of port %s is up, but no device is known behind it" % port.bdf,
            {"%s%s/config" % (SYSFS, port.bdf): "link active" if port.certain else "width above 0, slot occupied"},
            "Look for it again with %s; if it stays away, power the host off and on." % RESCAN,
            None,
        )
        for port in ports
        if port.has_link
    ]


def _missing(devices: Sequence[PciDevice], ports: Sequence[OpenPort]) -> Finding:
    evidence: Dict[str, Any] = {"/sys/bus/pci/devices": len(devices)}
    remedy = "Seat the card, check its power; if it is another make, add its identity to edgenpu_devices."
    seated = [port.bdf for port in ports if port.occupied and not port.has_link]
    for bdf in seated:
        evidence["%s%s/config" % (SYSFS, bdf)] = "slot occupied, link down"
    if seated:
        remedy = "Something is seated at %s, and its link is down: reseat it. %s" % (", ".join(seated), remedy)
    summary = "no NPU card of the catalogue among %d PCI devices" % len(devices)
    return Finding("card_missing", WARNING, summary, evidence, remedy, None)


def _relatives(devices: Sequence[PciDevice], catalogue: Sequence[CardKind]) -> List[Finding]:
    found = []
    for maker, device in relatives(devices, catalogue):
        identity = "%04x:%04x" % (device.vendor or 0, device.device or 0)
        summary = "%s is a device of %s that is not in the catalogue (%s); it is left alone"
        found.append(
            Finding(
                "card_unknown",
                INFO,
                summary % (device.bdf, maker, identity),
                {"%s%s/%s" % (SYSFS, device.bdf, name): value for name, value in _identity(device)},
                "If it is an NPU, add vendor and device to edgenpu_devices.",
                None,
            )
        )
    return found


def _identity(device: PciDevice) -> Tuple[Tuple[str, str], ...]:
    return (
        ("vendor", "0x%04x" % (device.vendor or 0)),
        ("device", "0x%04x" % (device.device or 0)),
        ("class", "0x%06x" % (device.class_code or 0)),
    )


def pcie_findings(
    devices: Sequence[PciDevice], catalogue: Sequence[CardKind], uptime_s: Optional[float] = None
) -> List[Finding]:
    """Return the findings on cards, links and slots. UPTIME_S: seconds since boot, over which errors were counted."""
    by_bdf = {device.bdf: device for device in devices}
    ways = survey(devices, catalogue)
    ports = open_ports(devices)
    found: List[Optional[Finding]] = []
    present = cards(devices, catalogue)
    if not present:
        found.append(_missing(devices, ports))
    on_the_way: Dict[str, PciDevice] = {}
    for card in present:
        kind = kind_of(card, catalogue)
        if kind is not None:
            found.append(_presence(card, kind))
        if not card.alive:
            continue
        path = climb(by_bdf, card.bdf)
        way = ways[card.bdf]
        if way.hops:
            found.append(_link(card, way.hops[0]))
            found.append(_payload(card, path, way))
            found.append(_power_saving(card, by_bdf.get(card.parent or "")))
        found.append(_requests(card))
        if not is_internal(card, kind):
            on_the_way.update((device.bdf, device) for device in path)
    found += [_errors(device, uptime_s) for device in on_the_way.values()]
    found.append(_past_errors(tuple(on_the_way.values())))
    found += _uplinks(ways)
    found += _slots(present, ways, ports)
    found += _rescans(ports)
    found += _relatives(devices, catalogue)
    return [one for one in found if one is not None]
