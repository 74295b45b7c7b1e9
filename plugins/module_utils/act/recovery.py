# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bringing dead cards back: one step, the weakest that may help, then a look whether it has, then the next.

A card is never left off the bus without a rescan: what is removed stands in a record first, and the next run begins
with what that says.
"""

from __future__ import annotations

import json
import re
import time
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import agent
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.driver import SHORT_S, Failed, load, unload
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import UNIT as AGENT_UNIT
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import UNIT_NAME as AGENT
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import ABSENT, FileState, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.driver import DriverWishes, card_proof
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.recovery import (
    ALIVE,
    BUS_RESET,
    CARD_REBOOT,
    FINISH,
    GO,
    RELOAD,
    RESCAN,
    STOP_USERS,
    CardSigns,
    Decision,
    RecoveryWishes,
    Situation,
    User,
    as_users,
    indexes,
    judge,
    kernel_lines,
    next_step,
    place,
    targets,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import (
    LAST_MODULE,
    ask,
    driver_problem,
    find_tool,
    parse_info,
    parse_kernel_log,
    placed,
    read_driver,
    read_table,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import (
    read_cards,
    read_holders,
    read_loaders,
    service_of,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import DEVICES, bdf_key, read_devices
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Runner

RECORD = "/run/edgenpu-tuning-recovery.json"  # a boot brings removed cards back by itself, and forgets this
RECORD_SCHEMA = 1
WHOLE_BUS = "/sys/bus/pci/rescan"
BRIDGE_CONTROL, HELD_IN_RESET = 0x3E, 0x40  # PCI_BRIDGE_CONTROL, PCI_BRIDGE_CTL_BUS_RESET
HOLD_S, TRAIN_S = 0.1, 1.0  # in reset at least 1 ms; afterwards a device may take a second until it answers
POLL_S = 2.0
AGENT_S = 200.0
# Seconds until a step must have shown that it helped; a card that is being rebooted takes as long as one being loaded.
PATIENCE_S = {FINISH: 10.0, STOP_USERS: 10.0, RELOAD: 30.0, RESCAN: 30.0, BUS_RESET: 30.0}

_REBOOTED = re.compile(r"reboot device \d+ success")


class Clock(NamedTuple):
    """Time, as tests need to have it in their hands. Seconds."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Tried(NamedTuple):
    """A step that was taken. HELPED: all cards are alive. WHY: what went wrong, or the signs after it."""

    step: str
    cards: Tuple[str, ...]
    helped: bool
    why: str
    kernel: Tuple[str, ...]


class Moved(NamedTuple):
    """A card's interrupts before and after."""

    bdf: str
    before: Tuple[int, ...]
    after: Tuple[int, ...]


class Recovered(NamedTuple):
    """How it ended (DECISION), cards before and after, steps, processes stopped, interrupts.

    ASTRAY: what of our wishes is not in force after it; None where none were kept on the host, or nothing was done.
    """

    decision: Decision
    before: Tuple[CardSigns, ...]
    after: Tuple[CardSigns, ...]
    tried: List[Tried]
    stopped: List[User]
    moved: List[Moved]
    astray: Optional[List[str]]


class Away(NamedTuple):
    """What a run of ours has taken away: CARDS off the bus, each with the port that it was below, and the DRIVER."""

    cards: Dict[str, Optional[str]]
    driver: bool

    @property
    def named(self) -> Tuple[str, ...]:
        """All of it in words."""
        return (*sorted(self.cards), *(("the driver",) if self.driver else ()))


def read_away(root: Root) -> Away:
    """Return what a run of ours has taken away and not brought back yet."""
    try:
        data = json.loads(root.text(RECORD) or "")
        if data["schema"] == RECORD_SCHEMA:
            cards = {str(bdf): None if port is None else str(port) for bdf, port in data["cards"].items()}
            return Away(cards, data["driver"] is True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return Away({}, False)


def addresses(root: Root) -> Dict[str, bool]:
    """Return every PCI address, and whether it is an AX650N."""
    found = {card.bdf for card in read_cards(root)}
    return {bdf: bdf in found for bdf in root.names(DEVICES)}


class _Healer:
    """Recovers the cards of one host."""

    def __init__(self, sink: Sink, wishes: RecoveryWishes, runner: Runner, clock: Clock) -> None:
        self.sink = sink
        self.root = sink.root
        self.wishes = wishes
        self.runner = runner
        self.clock = clock
        self.stopped: List[User] = []
        self.situation = Situation((), (), False, False, False)
        self._do: Dict[str, Callable[[Sequence[str]], None]] = {
            STOP_USERS: self._stop_users,
            CARD_REBOOT: self._reboot,
            RELOAD: self._reload,
            RESCAN: self._rescan,
            BUS_RESET: self._reset,
            FINISH: self._finish,
        }

    # ---- looking ----------------------------------------------------------------------------------------------------

    def look(self) -> Situation:
        """Return the state of cards and driver; a dead card makes the tool take its time."""
        root = self.root
        by_bdf = {device.bdf: device for device in read_devices(root)}
        away = read_away(root)
        bdfs = {card.bdf for card in read_cards(root)}.union(away.cards, self.wishes.cards)
        driver = read_driver(root)
        trouble, tool = driver_problem(driver), find_tool(root)
        table = placed(read_table(self.runner, tool), bdfs) if tool is not None and trouble is None else None
        events = parse_kernel_log(self.log())
        wanted = self.wishes.cards or tuple(bdfs)
        signs = []
        for bdf in sorted(bdfs, key=bdf_key):
            device = by_bdf.get(bdf)
            proof = card_proof(bdf, None if device is None else device.driver, table, events)
            life, why = judge(device, proof, table, trouble)
            port, below = place(by_bdf, bdf, away.cards.get(bdf), wanted)
            responds = device is not None and device.alive
            signs.append(CardSigns(bdf, device is not None, responds, life, why, port, below))
        loading = any(module.name == LAST_MODULE and module.state == "Loading" for module in driver.modules)
        self.situation = Situation(tuple(signs), self.users(), loading, table is not None, tool is not None, away.named)
        return self.situation

    def users(self) -> Tuple[User, ...]:
        """Return the processes that use the driver now."""
        holders = (*read_holders(self.root), *read_loaders(self.root))
        return as_users(holders, {one.pid: service_of(self.root, one.pid) for one in holders})

    def log(self) -> str:
        """Return the kernel log; "" if it cannot be read."""
        ran = self.runner(["dmesg"], SHORT_S)
        return ran.output if ran.status == 0 else ""

    def await_loading(self) -> None:
        """Give a driver that is being loaded the time that it may take."""
        deadline = self.clock.now() + self.wishes.load_timeout_s * max(1, len(read_cards(self.root)))
        while self.clock.now() < deadline:
            states = {module.name: module.state for module in read_driver(self.root).modules}
            if states.get(LAST_MODULE) != "Loading":
                return
            self.clock.sleep(POLL_S)

    def dead(self) -> List[CardSigns]:
        """Return the cards that are not alive, by the last look."""
        return [card for card in targets(self.situation, self.wishes) if card.life != ALIVE]

    # ---- acting -----------------------------------------------------------------------------------------------------

    def take(self, step: str, cards: Tuple[str, ...]) -> Tried:
        """Take a step, and look until the cards are alive or its time is over."""
        before = self.log()
        patience = PATIENCE_S.get(step, float(self.wishes.load_timeout_s))
        why = ""
        try:
            self._do[step](cards)
        except (Failed, OSError) as error:
            why, patience = str(error), 0.0
        deadline = self.clock.now() + patience
        self.look()
        while self.dead() and self.clock.now() < deadline:
            self.clock.sleep(POLL_S)
            self.look()
        dead = self.dead()
        signs = "; ".join("%s: %s" % (card.bdf, card.why) for card in dead)
        after = self.log()
        told = [event.line for event in parse_kernel_log(after)]
        names = [*cards, *(card.port for card in self.situation.cards if card.bdf in cards and card.port is not None)]
        why = "; ".join(part for part in (why, signs) if part)
        return Tried(step, cards, not dead, why, kernel_lines(before, after, names, told))

    def _stop_users(self, cards: Sequence[str]) -> None:
        found = self.users()
        self.stopped += found
        self.runner(["sh", "-c", 'kill -TERM "$@"', "sh", *(str(user.pid) for user in found)], SHORT_S)
        deadline = self.clock.now() + self.wishes.stop_timeout_s
        while self.users() and self.clock.now() < deadline:
            self.clock.sleep(0.5)
        left = [user.described for user in self.users()]
        if left:
            raise Failed("after SIGTERM and %d s: %s" % (self.wishes.stop_timeout_s, ", ".join(left)))

    def _reboot(self, cards: Sequence[str]) -> None:
        """Ask the vendor's tool to reboot the cards; its exit status is 0 whatever happened, so its words count."""
        refused = [why for why in (self._reboot_one(bdf) for bdf in cards) if why is not None]
        if len(refused) == len(cards):
            raise Failed("; ".join(refused))

    def _reboot_one(self, bdf: str) -> Optional[str]:
        number = self._number(bdf)
        tool = find_tool(self.root)
        if number is None or tool is None:
            return "%s: axcl-smi does not tell under which number it knows this card" % bdf
        limit = float(self.wishes.load_timeout_s)
        answer = ask(self.runner, tool, ("reboot", "-d", str(number)), limit, answer="y\n")
        if _REBOOTED.search(answer.text):
            return None
        problems = [*answer.problems, *parse_info(answer.text).problems]
        return "%s: %s" % (bdf, problems[0].summary if problems else "axcl-smi reboot did not tell of a success")

    def _number(self, bdf: str) -> Optional[int]:
        """Return the number by which the tool knows a card: another one must not be rebooted in its place."""
        tool = find_tool(self.root)
        if tool is None:
            return None
        there = [card.bdf for card in self.situation.cards if card.on_bus]
        numbers = indexes(bdf, placed(read_table(self.runner, tool), there), there)
        if len(there) == 1:
            return numbers[0] if numbers else None
        for number in numbers:
            info = parse_info(ask(self.runner, tool, ("info", "--temp", "-d", str(number))).text)
            said = {info.device, *(problem.device for problem in info.problems)}
            if bdf_key(bdf)[1] in said:
                return number
        return None

    def _unload(self) -> None:
        self._keep(read_away(self.root)._replace(driver=True))
        try:
            unload(self.sink, self.runner)
        except Failed as error:
            try:  # a part of it may be gone already, and what was there before is better than half of it
                self._load()
            except Failed as again:
                raise Failed("%s; and what was unloaded before: %s" % (error, again)) from again
            raise

    def _load(self) -> None:
        load(self.sink, self.runner, DriverWishes(load_timeout_s=self.wishes.load_timeout_s))
        self._keep(read_away(self.root)._replace(driver=False))

    def _reload(self, cards: Sequence[str]) -> None:
        self._unload()
        self._load()

    def _rescan(self, cards: Sequence[str]) -> None:
        self._unload()
        self._all_of(lambda: self._off_and_on(cards, None), self._load)

    def _reset(self, cards: Sequence[str]) -> None:
        self._unload()
        self._all_of(lambda: self._off_and_on(cards, self._reset_port), self._load)

    def _finish(self, cards: Sequence[str]) -> None:
        away = read_away(self.root)
        # Loading the driver reads every card, and one without a link answers with an abort: that is for a rescan.
        safe = all(card.responds for card in self.situation.cards if card.on_bus)
        self._all_of(lambda: self._look_for(away.cards), *([self._load] if away.driver and safe else []))

    def _all_of(self, *parts: Callable[[], None]) -> None:
        """Do every part, whatever happens to those before it: each brings something back."""
        troubles = []
        for part in parts:
            try:
                part()
            except (Failed, OSError) as error:
                troubles.append(str(error))
        if troubles:
            raise Failed("; ".join(troubles))

    def _off_and_on(self, cards: Sequence[str], between: Optional[Callable[[str], None]]) -> None:
        """Take cards off the bus, do what is to be done to each one's port with nothing below it, and look for them.

        No driver may be loaded: under one, removing a card ends in reads of memory that is not there any more.
        """
        ports = {card.bdf: card.port for card in self.situation.cards if card.bdf in cards}
        away = read_away(self.root)
        there = {bdf: port for bdf, port in ports.items() if self._there(bdf)}
        self._keep(away._replace(cards=dict(away.cards, **there)))
        troubles = []
        try:
            for bdf, port in ports.items():
                if bdf in there:
                    troubles.append(self.sink.trigger("%s/%s/remove" % (DEVICES, bdf)))
                if between is not None and port is not None:
                    between(port)
        finally:
            self._look_for(ports)
        refused = [trouble for trouble in troubles if trouble is not None]
        if refused:
            raise Failed("; ".join(refused))

    def _there(self, bdf: str) -> bool:
        return self.root.exists("%s/%s" % (DEVICES, bdf))

    def _keep(self, away: Away) -> None:
        text = json.dumps(dict(away._asdict(), schema=RECORD_SCHEMA), sort_keys=True) + "\n"
        state = FileState(text.encode("ascii")) if away.named else ABSENT
        if self.sink.state(RECORD).content != state.content:
            self.sink.put(RECORD, state)

    def _look_for(self, ports: Mapping[str, Optional[str]]) -> None:
        """Let the kernel look for cards below their ports, and keep on record those that it does not find."""
        troubles = [self._look_behind(port) for port in sorted(set(ports.values()), key=str)]
        self.runner(["udevadm", "settle", "--timeout=30"], SHORT_S)
        away = read_away(self.root)
        self._keep(away._replace(cards={bdf: port for bdf, port in away.cards.items() if not self._there(bdf)}))
        refused = [trouble for trouble in troubles if trouble is not None]
        if refused:
            raise Failed("; ".join(refused))

    def _look_behind(self, port: Optional[str]) -> Optional[str]:
        """Let the kernel look for devices: below one port where that is known, else on all buses."""
        if port is None or not self._there(port):
            return self.sink.trigger(WHOLE_BUS)
        held = self._control(port)
        if held is not None and held & HELD_IN_RESET:  # by a run that was killed while it did
            self._release(port, held)
        return self.sink.trigger("%s/%s/rescan" % (DEVICES, port))

    def _control(self, port: str) -> Optional[int]:
        data = self.root.data("%s/%s/config" % (DEVICES, port), BRIDGE_CONTROL + 1)
        return data[BRIDGE_CONTROL] if data is not None and len(data) > BRIDGE_CONTROL else None

    def _release(self, port: str, control: int) -> Optional[str]:
        path = "%s/%s/config" % (DEVICES, port)
        reason = self.sink.set_byte(path, BRIDGE_CONTROL, control & ~HELD_IN_RESET)
        self.clock.sleep(TRAIN_S)
        return reason

    def _reset_port(self, port: str) -> None:
        """Reset the bus behind a port: by the kernel's own file (since 6.13), else by the register that it writes."""
        directory = "%s/%s" % (DEVICES, port)
        if self.root.exists(directory + "/reset_subordinate"):
            reason = self.sink.trigger(directory + "/reset_subordinate")
            if reason is None:
                self.clock.sleep(TRAIN_S)
                return
        control = self._control(port)
        if control is None:
            raise Failed("%s: its registers cannot be read, so it cannot be reset" % port)
        try:
            reason = self.sink.set_byte(directory + "/config", BRIDGE_CONTROL, control | HELD_IN_RESET)
            self.clock.sleep(HOLD_S)
        finally:
            again = self._release(port, control)
        if reason is not None or again is not None:
            raise Failed("%s: its bus cannot be reset: %s" % (port, reason or again))


def _interrupts(root: Root) -> Dict[str, Tuple[int, ...]]:
    found = {}
    for card in read_cards(root):
        names = root.names("%s/%s/msi_irqs" % (DEVICES, card.bdf))
        found[card.bdf] = tuple(sorted(int(name) for name in names if name.isdecimal()))
    return found


def _astray(sink: Sink, runner: Runner) -> Optional[List[str]]:
    """Let the agent place what has moved, and return what of the wishes on the host is not in force after that."""
    if not sink.root.exists(AGENT_UNIT):
        return None
    runner(["udevadm", "settle", "--timeout=30"], SHORT_S)
    # The driver's bind event has started it already; this waits for that run, or for one more, which changes nothing.
    runner(["systemctl", "start", AGENT], AGENT_S)
    report = agent.keep_in_force(sink, check=True)
    return [
        *("%s is %s and should be %s" % (change.path, change.before, change.after) for change in report.changes),
        *report.problems,
    ]


def recover(
    sink: Sink, wishes: RecoveryWishes, runner: Runner, check: bool = False, clock: Optional[Clock] = None
) -> Recovered:
    """Bring the wished cards back to life, as far as that is allowed; of a living card nothing is touched.

    Check mode looks only, and DECISION is the first step that would be taken.
    """
    healer = _Healer(sink, wishes, runner, clock or Clock())
    if not check:
        healer.await_loading()
    before = healer.look()
    found = _interrupts(sink.root)
    tried: List[Tried] = []
    decision = next_step(before, wishes)
    while decision.outcome == GO and decision.step is not None and not check:
        tried.append(healer.take(decision.step, decision.cards))
        decision = next_step(healer.situation, wishes, [one.step for one in tried])
    astray = _astray(sink, runner) if tried else None
    now = _interrupts(sink.root)
    moved = [Moved(bdf, found.get(bdf, ()), now[bdf]) for bdf in sorted(now)] if tried else []
    return Recovered(decision, before.cards, healer.situation.cards, tried, healer.stopped, moved, astray)


def as_changes(done: Recovered) -> List[Change]:
    """Return the steps that were taken (in check mode: the first that would be) as changes."""
    if done.decision.outcome == GO and done.decision.step is not None:
        path = "%s: %s" % (done.decision.step, ", ".join(done.decision.cards))
        return [Change(path, "not alive", None, done.decision.why)]
    return [
        Change(
            "%s: %s" % (one.step, ", ".join(one.cards)), "not alive", "alive" if one.helped else "not alive", one.why
        )
        for one in done.tried
    ]
