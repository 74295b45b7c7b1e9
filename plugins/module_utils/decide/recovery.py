# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which step may bring a dead card back, the weakest first, and which may not be taken here. Pure.

The next step follows from what is seen and from what this run has tried, so a run that was killed anywhere is repeated.
"""

from __future__ import annotations

import re
from typing import Collection, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import CRITICAL, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import Problem, Table, Version
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import Holder
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import Host
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PORTS, PciDevice, bdf_key, climb

STOP_USERS, CARD_REBOOT, RELOAD, RESCAN, BUS_RESET = "stop_users", "card_reboot", "reload", "rescan", "bus_reset"
LADDER = (CARD_REBOOT, RELOAD, RESCAN, BUS_RESET)  # from weak to strong
FINISH = "finish"  # what a run that was killed has left undone
ALIVE, DEAD, UNKNOWN = "alive", "dead", "unknown"
GO, EXHAUSTED, REFUSED = "go", "exhausted", "refused"  # outcomes of a decision, besides ALIVE

# Answers of axcl-smi that tell nothing about a card.
_UNSAID = (
    "already_running",
    "lock_busy",
    "tool_missing",
    "tool_failed",
    "no_permission",
    "next_generation",
    "no_table",
)
_BDF = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_INDEX_SINCE = (2, 26)  # the tool's -d takes a card's index; before that it took the number of its bus
_ASHES = (
    "A reboot of the host resets the card's port, but leaves the card powered: if that does not help either, switch "
    "the host's power off and on"
)


class RecoveryWishes(NamedTuple):
    """What may be done. CARDS: addresses, () for all. MAX_STEP: the strongest step of LADDER. Seconds."""

    cards: Tuple[str, ...] = ()
    max_step: str = BUS_RESET
    stop_users: bool = False
    stop_timeout_s: int = 30
    load_timeout_s: int = 300  # for each card


class CardSigns(NamedTuple):
    """A card's signs of life. LIFE: ALIVE, DEAD or UNKNOWN, and WHY.

    RESPONDS: its configuration space can be read. PORT: the port above it, None if that is not known (or is none).
    BELOW: what else is below that port, in words.
    """

    bdf: str
    on_bus: bool
    responds: bool
    life: str
    why: str
    port: Optional[str] = None
    below: Tuple[str, ...] = ()


class User(NamedTuple):
    """A process that uses the driver: it has a device node open, or is loading a module. SERVICE: of systemd."""

    pid: int
    name: str
    path: str
    service: Optional[str]

    @property
    def described(self) -> str:
        """The process in words."""
        return "%s (PID %d%s)" % (self.name, self.pid, "" if self.service is None else ", " + self.service)


class Situation(NamedTuple):
    """What a decision rests on. LOADING: a module of the driver is being loaded. READY: axcl-smi can be asked.

    UNFINISHED: what a run that was killed has taken away (cards, "the driver") and not brought back.
    """

    cards: Tuple[CardSigns, ...]
    users: Tuple[User, ...]
    loading: bool
    ready: bool
    has_tool: bool
    unfinished: Tuple[str, ...] = ()


class Decision(NamedTuple):
    """OUTCOME: GO (take STEP for CARDS), or ALIVE, EXHAUSTED, REFUSED. PASSED_OVER: (step, why it is not taken).

    HELD_BACK: a stronger step is left that only the wishes rule out.
    """

    outcome: str
    why: str
    step: Optional[str] = None
    cards: Tuple[str, ...] = ()
    passed_over: Tuple[Tuple[str, str], ...] = ()
    held_back: bool = False


def no_recovery_here(host: Host, system: str, user_id: int) -> Optional[str]:
    """Return in one sentence why no card can be recovered from here and what to do; None if it can be.

    SYSTEM: the kernel's name ("Linux"), USER_ID: the effective one.
    """
    if system != "Linux":
        return "this host runs %s; the cards' driver is for Linux" % system
    if (host.virtualisation or "").startswith("container"):
        return "this is a %s, and its cards are the host's; run this there" % host.virtualisation
    if user_id != 0:
        return "user id %d may not reload drivers; run as root (become: true)" % user_id
    return None


def wrong_recovery(wishes: RecoveryWishes, bus: Dict[str, bool]) -> Optional[str]:
    """Return what is wrong with the wishes, in one sentence; None if they can be granted.

    BUS: every PCI address of the host, and whether it is an AX650N.
    """
    for bdf in wishes.cards:
        if not _BDF.fullmatch(bdf):
            return "cards: %r is no PCI address; write one such as 0003:31:00.0" % bdf
        if not bus.get(bdf, True):
            return "cards: %s is another device and no AX650N; `lspci -d 1f4b:0650` tells their addresses" % bdf
    if not 1 <= wishes.stop_timeout_s <= 600:
        return "stop_timeout: %d s is no time to end in; write 1 to 600" % wishes.stop_timeout_s
    if not 10 <= wishes.load_timeout_s <= 3600:
        return "load_timeout: %d s is no limit for one card; write 10 to 3600" % wishes.load_timeout_s
    return None


def judge(
    device: Optional[PciDevice], findings: Sequence[Finding], table: Optional[Table], trouble: Optional[Problem]
) -> Tuple[str, str]:
    """Return whether a card is alive, and why: by the same proof as the driver's.

    FINDINGS: that proof. TABLE: axcl-smi's, None if it was not asked. TROUBLE: why it must not be.
    """
    if device is None:
        return DEAD, "it is not on the PCI bus"
    if device.bars_lost:
        return DEAD, "it has lost its memory addresses"
    if not device.alive:
        return DEAD, "its configuration space reads all ones"
    if trouble is not None:
        return DEAD, trouble.summary
    broken = [finding for finding in findings if finding.severity == CRITICAL]
    unsaid = [problem for problem in (() if table is None else table.problems) if problem.id in _UNSAID]
    if table is None or (unsaid and [finding.id for finding in broken] == ["card_in_table"]):
        return UNKNOWN, unsaid[0].summary if unsaid else "axcl-smi is not there to be asked"
    if broken:
        begins = device.bdf + ": "  # whoever tells the reason names the card
        words = (finding.summary for finding in broken)
        return DEAD, "; ".join(one[len(begins) :] if one.startswith(begins) else one for one in words)
    return ALIVE, "it is bound, its firmware is up, and it has a plausible row in axcl-smi"


def place(
    by_bdf: Dict[str, PciDevice], bdf: str, kept: Optional[str], targets: Collection[str]
) -> Tuple[Optional[str], Tuple[str, ...]]:
    """Return the port above a card, and what else is below that. KEPT: the port that it had when we removed it."""
    device = by_bdf.get(bdf)
    domain, bus = bdf_key(bdf)[:2]
    if device is not None:
        port = by_bdf.get(device.parent or "")
    elif kept in by_bdf:
        port = by_bdf[kept or ""]
    else:
        behind = (one for one in by_bdf.values() if one.secondary_bus == bus and bdf_key(one.bdf)[0] == domain)
        port = next(behind, None)
    if port is None or port.port_type not in PORTS:
        return None, ()
    others = [
        other
        for other in by_bdf.values()
        if other.bdf not in targets and port.bdf in [one.bdf for one in climb(by_bdf, other.bdf)[1:]]
    ]
    return port.bdf, tuple("%s (%s)" % (one.bdf, one.driver or "no driver") for one in others)


def targets(situation: Situation, wishes: RecoveryWishes) -> Tuple[CardSigns, ...]:
    """Return the cards that are to be alive."""
    return tuple(card for card in situation.cards if not wishes.cards or card.bdf in wishes.cards)


def _unfit(step: str, card: CardSigns, situation: Situation) -> Optional[str]:
    """Return why a step cannot help one card; None if it may."""
    if step in (CARD_REBOOT, RELOAD):
        if not card.on_bus:
            return "%s is not on the PCI bus" % card.bdf
        if not card.responds:
            return "nothing reaches %s, since %s" % (card.bdf, card.why)
    if step == CARD_REBOOT and not situation.ready:
        return "the driver is not loaded, and it is what would ask the card to reboot"
    if step == BUS_RESET:
        if card.port is None:
            return "no port is known above %s" % card.bdf
        if card.below:
            return "%s, above %s, has others below it that it would reset, too: %s" % (
                card.port,
                card.bdf,
                ", ".join(card.below),
            )
    return None


def _in_use(who: str, wishes: RecoveryWishes, tried: Collection[str]) -> Optional[str]:
    if not who:
        return None
    if STOP_USERS in tried:
        return (
            "still there after SIGTERM and %d s, or back again: %s; stop it yourself (a service: systemctl stop). "
            "SIGKILL is never used: it leaves the card in a state that only a power cycle ends"
            % (wishes.stop_timeout_s, who)
        )
    if not wishes.stop_users:
        return "the driver is in use by %s; stop that, or allow it with stop_users: true (SIGTERM, never SIGKILL)" % who
    return None


def next_step(situation: Situation, wishes: RecoveryWishes, tried: Collection[str] = ()) -> Decision:
    """Return what is to be done now. TRIED: the steps that this run has taken already."""
    wanted = targets(situation, wishes)
    dead = [card for card in wanted if card.life != ALIVE]
    if situation.unfinished and not tried:
        why = "an earlier run has taken away and not brought back: %s" % ", ".join(situation.unfinished)
        return Decision(GO, why, FINISH, tuple(card.bdf for card in dead))
    if not wanted and not situation.has_tool:
        return Decision(ALIVE, "no AX650N is on the PCI bus and no driver of one is installed: nothing to recover")
    if not wanted:
        return Decision(REFUSED, "no AX650N is on the PCI bus; if one has been there, name its address in cards")
    if not dead:
        return Decision(ALIVE, "; ".join("%s is alive: %s" % (card.bdf, card.why) for card in wanted))
    signs = "; ".join("%s: %s" % (card.bdf, card.why) for card in dead)
    if not situation.has_tool:
        why = "axcl-smi is not installed, so nothing could tell whether a step has helped; run the role axcl_driver"
        return Decision(REFUSED, "%s (%s)" % (why, signs))
    doubtful = [card for card in dead if card.life == UNKNOWN]
    who = ", ".join(user.described for user in situation.users)
    if doubtful:
        why = "whether it is alive cannot be told: %s%s; try again when that is over"
        return Decision(
            REFUSED, "%s: %s" % (doubtful[0].bdf, why % (doubtful[0].why, " (it may be %s)" % who if who else ""))
        )
    if situation.loading and not who:
        why = "the driver is still being loaded, which takes up to four minutes a card; try again when it is through"
        return Decision(REFUSED, why)
    in_use = _in_use(who, wishes, tried)
    if in_use is not None:
        return Decision(REFUSED, in_use)
    if who:
        why = "it is in use by %s, whom every other step would break off (%s)" % (who, signs)
        return Decision(GO, why, STOP_USERS, tuple(card.bdf for card in dead))
    return _climb(situation, wishes, tried, dead, signs)


def _climb(
    situation: Situation, wishes: RecoveryWishes, tried: Collection[str], dead: Sequence[CardSigns], signs: str
) -> Decision:
    named = {card.bdf for card in targets(situation, wishes)}
    bystanders = [card.bdf for card in situation.cards if card.on_bus and card.bdf not in named]
    passed_over: List[Tuple[str, str]] = []
    held_back = False
    for step in LADDER:
        if step in tried:
            continue
        if LADDER.index(step) > LADDER.index(wishes.max_step):
            passed_over.append((step, "max_step: %s allows no more" % wishes.max_step))
            held_back = True
            continue
        if step != CARD_REBOOT and bystanders:
            why = "it unloads the driver, which resets every card, also %s; name that in cards, too, or name none"
            passed_over.append((step, why % ", ".join(bystanders)))
            held_back = True
            continue
        unfit = {card.bdf: _unfit(step, card, situation) for card in dead}
        fit = tuple(bdf for bdf, why in unfit.items() if why is None)
        mute = [bdf for bdf, why in unfit.items() if why is not None]
        # Loading the driver reads every card that is on the bus, and one that has lost its link answers with an abort.
        if fit and not (step == RELOAD and mute):
            return Decision(GO, signs, step, fit, tuple(passed_over))
        passed_over.append((step, "; ".join(sorted({why for why in unfit.values() if why is not None}))))
    why = "every step that may be taken was tried in vain" if tried else "no step can be taken"
    why = "%s (%s)" % (why, signs)
    if passed_over:
        why += "; not taken: " + "; ".join("%s (%s)" % one for one in passed_over)
    if not held_back:
        why += ". " + _ASHES
    return Decision(EXHAUSTED, why, passed_over=tuple(passed_over), held_back=held_back)


def indexes(bdf: str, table: Table, cards: Sequence[str]) -> Tuple[int, ...]:
    """Return the numbers under which the tool may know a card of the bus (CARDS: all of them), likeliest first.

    A dead card has no row that would tell its number.
    """
    row = [card.number for card in table.cards if card.bdf == bdf]
    version: Optional[Version] = table.version
    numbers = None if version is None else tuple(int(part) for part in version.release.split(".")[:2])
    if numbers is not None and numbers < _INDEX_SINCE:
        return (bdf_key(bdf)[1],)
    if row:
        return tuple(row)
    taken = {card.number for card in table.cards}
    return tuple(number for number in range(len(cards)) if number not in taken)


def reboot_reason(decision: Decision) -> Optional[str]:
    """Return why only a reboot of the host is left; None if it is not called for."""
    return decision.why if decision.outcome == EXHAUSTED and not decision.held_back else None


def as_users(holders: Sequence[Holder], services: Dict[int, Optional[str]]) -> Tuple[User, ...]:
    """Return the processes among HOLDERS, each once."""
    found: Dict[int, User] = {}
    for one in holders:
        found.setdefault(one.pid, User(one.pid, one.name, one.path, services.get(one.pid)))
    return tuple(found[pid] for pid in sorted(found))


def kernel_lines(before: str, after: str, names: Sequence[str], telling: Collection[str]) -> Tuple[str, ...]:
    """Return what the kernel log AFTER says, and BEFORE did not, of devices (NAMES) or in lines that are TELLING.

    Each text once, since a dead card's heartbeat repeats itself, and the last 40 at most.
    """
    old = set(before.splitlines())
    found: Dict[str, str] = {}
    for line in after.splitlines():
        text = re.sub(r"^(?:<\d+>)?\[[^\]]*\] ?", "", line)
        if line not in old and text not in found and (text in telling or any(name in line for name in names)):
            found[text] = line
    return tuple(found.values())[-40:]


def cards_as_data(before: Sequence[CardSigns], after: Sequence[CardSigns]) -> List[Dict[str, Optional[str]]]:
    """Return the cards as plain data, each with its life before and after."""
    was = {card.bdf: card.life for card in before}
    return [
        {"bdf": card.bdf, "before": was.get(card.bdf), "after": card.life, "why": card.why, "port": card.port}
        for card in after
    ]


def summary(decision: Decision, tried: Sequence[str]) -> str:
    """Return the outcome in one sentence. TRIED: the steps that were taken."""
    if decision.outcome == ALIVE:
        return "alive again after %s. %s" % (tried[-1], decision.why) if tried else decision.why
    if decision.outcome == GO:
        return "%s would be tried first for %s: %s" % (decision.step, ", ".join(decision.cards), decision.why)
    return decision.why
