# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a PCIe link could do, what it does, and which end (if any) is the limit. Pure."""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import Link, PciDevice


class LinkVerdict(NamedTuple):
    """A card's link. POSSIBLE_*: the most that both ends can do together (GT/s, lanes). DEGRADED: it does less.

    LIMIT says in words who sets the limit.
    """

    possible_gt_s: float
    possible_width: int
    negotiated_gt_s: float
    negotiated_width: int
    degraded: bool
    limit: str


def _sides(card: float, slot: float, what: str) -> str:
    if card == slot:
        return "card and slot agree on %s" % what
    return "the %s sets %s" % ("slot" if slot < card else "card", what)


def judge_link(card: PciDevice, devices: Sequence[PciDevice]) -> Optional[LinkVerdict]:
    """Return the verdict on the link above CARD; None where an end or a figure of it cannot be read."""
    port = next((device for device in devices if device.bdf == card.parent), None)
    if port is None:
        return None
    figures = _figures(card.link, port.link)
    if figures is None:
        return None
    card_gt_s, card_width, slot_gt_s, slot_width, gt_s, width = figures
    possible_gt_s, possible_width = min(card_gt_s, slot_gt_s), min(card_width, slot_width)
    degraded = gt_s < possible_gt_s or width < possible_width
    speed = "%g GT/s" % possible_gt_s
    lanes = "x%d" % possible_width
    if degraded:
        limit = "both ends can do %s %s; training settled for less: seating, cable, dust or power" % (speed, lanes)
    else:
        limit = "%s, %s" % (_sides(card_gt_s, slot_gt_s, speed), _sides(card_width, slot_width, lanes))
    return LinkVerdict(possible_gt_s, possible_width, gt_s, width, degraded, limit)


def _figures(card: Optional[Link], slot: Optional[Link]) -> Optional[Tuple[float, int, float, int, float, int]]:
    """Return card GT/s and width, slot GT/s and width, negotiated GT/s and width; None if one is unknown."""
    if card is None or slot is None:
        return None
    if card.capable_gt_s is None or card.capable_width is None or slot.capable_gt_s is None:
        return None
    if slot.capable_width is None or card.negotiated_gt_s is None or card.negotiated_width is None:
        return None
    return (
        card.capable_gt_s,
        card.capable_width,
        slot.capable_gt_s,
        slot.capable_width,
        card.negotiated_gt_s,
        card.negotiated_width,
    )
