# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much a finding's remedy can gain, where that was measured, and the order of what is worth doing. Pure.

Measured: AX650N cards in an RK3588 (CM3588 NAS, one lane), each inference once with the interrupt on a slow core and
schedutil, once with it on a fast core and performance: 97 latencies, and the decoding of six language models. The
formulas are fitted to those latencies; of 151 later ones that were not used for it, 86 % lie within the band. Only both
together were measured, never one alone.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import AX650N
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import CRITICAL, WARNING, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PciDevice

MEASURED_ON = "an Axera AX650N in an RK3588"
SHORTEST_MS, LONGEST_MS = (
    0.2,
    50.0,
)  # no latency below was measured; above, nothing is left that could be told from noise
EXAMPLES_MS = (1.0, 4.0, 10.0)
LLM_DECODE = (1.2, 2.0)  # times the tokens per second; models above 3 billion parameters at the lower end

# What was changed together in the measured runs
PAIR = ("interrupt_on_slow_core", "interrupt_undone", "clock_drops", "clock_conflict")
_INTERRUPT = PAIR[:2]
# Nothing works, or nothing works well, before this is done
FIRST = (
    "card_dead",
    "card_missing",
    "card_silent",
    "card_unbound",
    "card_wrong_driver",
    "driver_not_for_this_kernel",
    "driver_not_signed",
    "driver_of_other_kernel",
    "interrupt_missing",
    "interrupt_not_requested",
)
# Costs speed, and nobody has measured how much
COSTS = (
    "clock_capped",
    "host_throttled",
    "interrupt_moving",
    "interrupt_unsteerable",
    "link_degraded",
    "link_errors",
    "link_held_back",
    "link_power_saving",
    "payload_small",
    "uplink_degraded",
    "uplink_narrow",
)
# Seen on one board, not measured properly
SEEN = {"mrrs_unusual": "seen once: 4096 bytes decoded about 30 % slower than 512, and 128 and 256 crashed"}
# Costs nothing now: what has been gained is lost with the next event
KEEPS = ("agent_off", "clock_not_kept", "irqbalance_may_move", "not_kept")

_ROLE = "Run the role "


class Band(NamedTuple):
    """What an inference gains, in percent of throughput: about 10 % of all gain less than LOW, 10 % more than HIGH."""

    low_percent: float
    middle_percent: float
    high_percent: float


class Deed(NamedTuple):
    """One thing worth doing. FINDINGS: the ids of those that it answers, gravest first; SUMMARIES: what they say."""

    what: str
    role: Optional[str]
    severity: str
    findings: Tuple[str, ...]
    summaries: Tuple[str, ...]
    expected_gain: Optional[str]


def band(default_latency_ms: float) -> Optional[Band]:
    """Return what one inference gains that takes DEFAULT_LATENCY_MS untuned.

    None below what was measured, and where no gain in the mean can be measured (above about 50 ms).
    """
    if not SHORTEST_MS <= default_latency_ms <= LONGEST_MS:
        return None
    gains = []
    for share, offset_ms, slope_ms in ((0.036, 0.03, 0.126), (0.31, 0.29, 0.17), (0.48, 0.49, 0.17)):
        saved_ms = max(0.0, min(share * default_latency_ms, offset_ms + slope_ms * math.log10(default_latency_ms)))
        gains.append(100 * saved_ms / (default_latency_ms - saved_ms))
    return Band(*gains)


def is_measured(cards: Sequence[PciDevice], compatible: Sequence[str]) -> bool:
    """Tell whether a host has such a card and is such a board: COMPATIBLE are its names in the device tree."""
    board = any(name in ("rockchip,rk3588", "rockchip,rk3588s") for name in compatible)
    return board and any((card.vendor, card.device) == AX650N for card in cards)


def measured_words() -> str:
    """Return the bands in words."""
    bands = [(latency_ms, band(latency_ms)) for latency_ms in EXAMPLES_MS]
    told = ["%.0f to %.0f %% at %g ms" % (one[0], one[2], latency_ms) for latency_ms, one in bands if one is not None]
    return "LLM decode %g to %g times as fast, single inferences %s, none above about %g ms" % (
        *LLM_DECODE,
        ", ".join(told),
        LONGEST_MS,
    )


def _pair(found: Sequence[Finding]) -> Tuple[bool, bool]:
    """Return whether the interrupt and whether a clock was found as in the measured runs before tuning."""
    amiss = {one.id for one in found if one.id in PAIR and one.severity in (WARNING, CRITICAL)}
    return bool(amiss & set(_INTERRUPT)), bool(amiss - set(_INTERRUPT))


def _pair_words(found: Sequence[Finding], measured: bool) -> Optional[str]:
    """Return what putting right interrupts and clocks gains; None where nothing is amiss with them."""
    amiss = _pair(found)
    if not any(amiss):
        return None
    if not measured:
        return "not measured for this card on this board, only for %s" % MEASURED_ON
    if all(amiss):
        return "interrupt and clocks together: %s" % measured_words()
    return "at most: %s; measured for interrupt and clocks together, never for one alone" % measured_words()


def _words(finding: Finding, pair: Optional[str]) -> Optional[str]:
    if finding.severity not in (WARNING, CRITICAL):
        return None
    if finding.id in PAIR:
        return pair
    if finding.id in SEEN:
        return SEEN[finding.id]
    if finding.id in FIRST:
        return "all of it: without this the card does not work"
    if finding.id in COSTS:
        return "not measured"
    if finding.id in KEEPS:
        return "none now; without it what has been gained is lost again"
    return None


def weigh(found: Sequence[Finding], measured: bool) -> List[Finding]:
    """Return FOUND with what each remedy can gain, in words; MEASURED: on such a card and board."""
    pair = _pair_words(found, measured)
    return [one._replace(expected_gain=_words(one, pair)) for one in found]


def expectation(found: Sequence[Finding], measured: bool) -> Dict[str, Any]:
    """Return what is to be expected on the whole host, in words and numbers; no numbers where none can be given."""
    pair = _pair_words(found, measured)
    amiss = {one.id for one in found if one.severity in (WARNING, CRITICAL)}
    text = "none from interrupts and clocks: they are in order, or as wished"
    if amiss.intersection(FIRST) or any(one.severity == CRITICAL and one.id not in SEEN for one in found):
        pair, text = None, "not to be told before the card works"
    elif amiss.intersection(COSTS) or amiss.intersection(SEEN):
        text = "not measured for what is amiss here"
    told: Dict[str, Any] = {
        "measured_on": MEASURED_ON,
        "applies": measured,
        "text": pair or text,
        "llm_decode_times": None,
        "single_inference": [],
    }
    if pair is not None and measured:
        told["llm_decode_times"] = {"low": LLM_DECODE[0], "high": LLM_DECODE[1]}
        for latency_ms in EXAMPLES_MS:
            one = band(latency_ms)
            if one is not None:
                numbers = {name: round(value, 1) for name, value in one._asdict().items()}
                told["single_inference"].append(dict(numbers, default_latency_ms=latency_ms))
    return told


def _rank(finding: Finding) -> int:
    groups = (FIRST, PAIR, (*COSTS, *SEEN), KEEPS)
    place = next((at for at, ids in enumerate(groups, 1) if finding.id in ids), len(groups) + 1)
    return 0 if finding.severity == CRITICAL else place


def _key(finding: Finding) -> str:
    """Return what two findings have in common that are answered by doing one thing."""
    if finding.remedy.startswith(_ROLE):
        return _ROLE + finding.remedy[len(_ROLE) :].split()[0].rstrip(".:,;")
    return finding.remedy


def worth_doing(found: Sequence[Finding]) -> List[Deed]:
    """Return what is worth doing, that which gains most first; findings with the same remedy are one thing."""
    groups: Dict[str, List[Finding]] = {}
    chosen = [one for one in found if one.severity in (WARNING, CRITICAL)]
    ordered = sorted(chosen, key=_rank)
    for one in ordered:
        # That a wish is not in force is what is seen of a cause that another finding of the same role names.
        cause = next((other for other in ordered if one.id == "drift" != other.id and other.role == one.role), one)
        groups.setdefault(_key(cause), []).append(one)
    deeds = []
    for members in groups.values():
        first = members[0]
        deeds.append(
            Deed(
                first.remedy,
                first.role,
                CRITICAL if any(one.severity == CRITICAL for one in members) else WARNING,
                tuple(dict.fromkeys(one.id for one in members)),
                tuple(one.summary for one in members),
                first.expected_gain,
            )
        )
    return deeds


def verdict(found: Sequence[Finding]) -> str:
    """Return one line on the whole host."""
    deeds = worth_doing(found)
    if not deeds:
        return "As fast as it can be"
    if deeds[0].severity == CRITICAL:
        return "Broken: " + deeds[0].summaries[0]
    missing = [one for one in found if one.id == "card_missing"]
    if missing:
        return "Nothing to tune: " + missing[0].summary
    count = "%d thing%s to do" % (len(deeds), "" if len(deeds) == 1 else "s")
    if any(name in (*FIRST, *PAIR, *COSTS, *SEEN) for deed in deeds for name in deed.findings):
        return "Not as fast as it can be: " + count
    return "As fast as it can be, but %s" % count
