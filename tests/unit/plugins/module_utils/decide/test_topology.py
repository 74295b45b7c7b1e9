# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any, Optional

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.topology import LinkVerdict, judge_link
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import Link
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts


def judged(card: Optional[Link], slot: Optional[Link], **more: Any) -> Optional[LinkVerdict]:
    return judge_link(hosts.card(link=card, **more), [hosts.port(slot), hosts.card(link=card)])


def test_cm3588() -> None:
    """PCIe 2.0 x2 card in a PCIe 3.0 x1 slot."""
    assert judged(Link(5.0, 2, 5.0, 1), Link(8.0, 1, 5.0, 1)) == LinkVerdict(
        5.0, 1, 5.0, 1, False, "the card sets 5 GT/s, the slot sets x1"
    )


@pytest.mark.parametrize(
    ("card", "slot", "limit"),
    [
        ((5.0, 2), (2.5, 2), "the slot sets 2.5 GT/s, card and slot agree on x2"),
        ((5.0, 2), (5.0, 4), "card and slot agree on 5 GT/s, the card sets x2"),
        ((8.0, 4), (8.0, 4), "card and slot agree on 8 GT/s, card and slot agree on x4"),
    ],
)
def test_who_sets_the_limit(card: Any, slot: Any, limit: str) -> None:
    speed, width = min(card[0], slot[0]), min(card[1], slot[1])
    verdict = judged(Link(card[0], card[1], speed, width), Link(slot[0], slot[1], speed, width))
    assert verdict == LinkVerdict(speed, width, speed, width, False, limit)


@pytest.mark.parametrize(("speed", "width"), [(2.5, 1), (5.0, 1), (2.5, 2)])
def test_degraded(speed: float, width: int) -> None:
    verdict = judged(Link(5.0, 2, speed, width), Link(8.0, 2, speed, width))
    assert verdict == LinkVerdict(
        5.0,
        2,
        speed,
        width,
        True,
        "both ends can do 5 GT/s x2; training settled for less: seating, cable, dust or power",
    )


WHOLE = Link(5.0, 2, 5.0, 1)


@pytest.mark.parametrize(
    ("card", "slot"),
    [
        (None, WHOLE),
        (WHOLE, None),
        (WHOLE._replace(capable_gt_s=None), WHOLE),
        (WHOLE._replace(capable_width=None), WHOLE),
        (WHOLE._replace(negotiated_gt_s=None), WHOLE),
        (WHOLE._replace(negotiated_width=None), WHOLE),
        (WHOLE, WHOLE._replace(capable_gt_s=None)),
        (WHOLE, WHOLE._replace(capable_width=None)),
    ],
)
def test_unknown(card: Optional[Link], slot: Optional[Link]) -> None:
    assert judged(card, slot) is None


def test_the_card_s_own_registers_tell_what_was_negotiated() -> None:
    """A port may answer None there, and an upstream port above a switch has a link of its own."""
    assert judged(WHOLE, WHOLE._replace(negotiated_gt_s=None, negotiated_width=None)) is not None


def test_no_port_above() -> None:
    assert judged(WHOLE, WHOLE, parent=None) is None
    assert judged(WHOLE, WHOLE, parent="0000:00:00.0") is None
