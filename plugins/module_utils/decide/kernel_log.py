# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel log's known lines mean for a host now: each kind once, and only what nothing later has put right.

The table of lines, with their meanings and cures, is in `observe.axcl`, which recognises them. Pure.
"""

from __future__ import annotations

import re
from typing import Any, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import INFO, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import Event

# (what puts something right, what it puts right; None: whatever was wrong with the card)
_CURES: Tuple[Tuple[str, Optional[FrozenSet[str]]], ...] = (
    ("handshake_done", None),
    ("card_alive", None),
    ("firmware_pushed", frozenset(("firmware_missing", "firmware_push_failed", "no_firmware_buffer"))),
)
# Moments, over when the line is written: a card that works says nothing of whether they will come again.
_PASSING = ("host_memory_fragmented", "ports_used_up", "iommu_fault")
_FRESH_S = 86400.0  # a moment that has not come again for a day is a note
# Applied by a role
_ROLES = {"firmware_missing": "axcl_driver", "host_slept": "axcl_driver"}
_ADDRESS = re.compile(r"(?:0x)?([0-9a-f]{2}):(?:0x)?([0-9a-f]{2})\.([0-7])\b", re.IGNORECASE)


class Situation(NamedTuple):
    """CARDS: addresses of the AXCL cards. WORKING: those that axcl-smi has just told of. UPTIME_S: since boot."""

    cards: Sequence[str]
    working: FrozenSet[str] = frozenset()
    uptime_s: Optional[float] = None


def bus_of(bdf: str) -> int:
    """Return the number of the PCI bus, which is how the driver calls its card."""
    return int(bdf.split(":")[1], 16)


def _concerns(event: Event, cards: Sequence[str]) -> bool:
    """Tell whether a line is about these cards or their driver, and says something here."""
    if event.id == "iommu_fault":  # the only lines that other drivers' devices cause, too
        named = {"%s:%s.%s" % match for match in _ADDRESS.findall(event.line.lower())}
        return any(bdf.partition(":")[2] in named for bdf in cards)
    return event.id != "no_peer_to_peer" or len(cards) > 1


def _cures(later: Event, event: Event) -> bool:
    return any(later.id == name and (kinds is None or event.id in kinds) for name, kinds in _CURES)


def _put_right(event: Event, later: Sequence[Event], situation: Situation) -> bool:
    """Tell whether the cards have shown since that they work: the one that is named, or else all."""
    if event.id in _PASSING:
        return False
    buses = {bus_of(bdf) for bdf in situation.cards}
    concerned = buses if event.device is None else {event.device}
    well: Set[int] = {bus_of(bdf) for bdf in situation.working}
    for one in later:
        if _cures(one, event):
            well |= concerned if one.device is None else {one.device}
    return bool(well) and concerned <= well


def standing(events: Sequence[Event], situation: Situation) -> List[Event]:
    """Return the failures in EVENTS that nothing has put right, in order."""
    return [
        event
        for at, event in enumerate(events)
        if event.severity != INFO
        and _concerns(event, situation.cards)
        and not _put_right(event, events[at + 1 :], situation)
    ]


def dead_cards(events: Sequence[Event], situation: Situation) -> List[str]:
    """Return the cards of which the log's last word is that they are dead."""
    dead = {event.device for event in standing(events, situation) if event.id == "card_dead"}
    return [bdf for bdf in situation.cards if bus_of(bdf) in dead]


def _shown(event: Event) -> str:
    if event.time_s is not None:
        return "[%.6f] %s" % (event.time_s, event.line)
    return event.line if event.when is None else "[%s] %s" % (event.when, event.line)


def _is_old(event: Event, situation: Situation) -> bool:
    if event.id not in _PASSING or event.time_s is None or situation.uptime_s is None:
        return False
    return situation.uptime_s - event.time_s > _FRESH_S


def log_findings(events: Sequence[Event], situation: Situation) -> List[Finding]:
    """Return one finding for each kind of failure that stands, in the order of their first lines."""
    kinds: Dict[str, List[Event]] = {}
    for event in standing(events, situation):
        kinds.setdefault(event.id, []).append(event)
    found = []
    for name, lines in kinds.items():
        first, last = lines[0], lines[-1]
        evidence: Dict[str, Any] = {"kernel log": _shown(first)}
        if len(lines) > 1:
            evidence = {
                "kernel log, first": _shown(first),
                "kernel log, last": _shown(last),
                "kernel log, lines": len(lines),
            }
        buses = sorted({event.device for event in lines if event.device is not None})
        where = "" if not buses else " (PCI bus %s)" % ", ".join("%02x" % bus for bus in buses)
        severity = first.severity
        if name == "no_peer_to_peer" or _is_old(last, situation):
            severity = INFO
        found.append(
            Finding(
                "log_" + name,
                severity,
                "the kernel log says%s: %s" % (where, first.summary),
                evidence,
                first.cure or "",
                _ROLES.get(name),
            )
        )
    return found
