# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the pages show of a report, worked out: topology, interrupts by CPU, clocks. Pure: plain data in and out."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import SCHEMA
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import CRITICAL, OK, SEVERITIES, WARNING
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list, parse_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import growth

UNKNOWN = "unknown"
KERNEL = ("/proc/", "/sys/")
# Of a link's state: how well that is, and a word for it.
HEALTH = {
    "full": (OK, "as fast as both ends can"),
    "held": (WARNING, "held back by a setting"),
    "degraded": (WARNING, "less than both ends can"),
    "asleep": (UNKNOWN, "asleep"),
    "down": (CRITICAL, "down"),
    "unread": (UNKNOWN, "not readable"),
    "unseen": (UNKNOWN, "not visible from here"),
}


class NotAReport(Exception):
    """Data that is no report of this version; the message says why."""


class Link(NamedTuple):
    """The link above a node. HEALTH: a severity or "unknown"; WORD: that in words.

    NEGOTIATED and POSSIBLE ("5 GT/s x1"): what is in force, and the most that both ends can; None where not known.
    """

    health: str
    word: str
    negotiated: Optional[str]
    possible: Optional[str]
    limit: str


class Node(NamedTuple):
    """A place in the topology. KIND: "complex", "port", "switch", "card" or "slot"; ABOUT: a line on it."""

    kind: str
    title: str
    name: str
    about: List[str]
    health: Optional[str]
    link: Optional[Link]
    below: List[Node]


class Served(NamedTuple):
    """How often one CPU served the cards' interrupts, before they were moved and since; SHARE: of the highest bar.

    NOW: addresses of the cards that it serves now.
    """

    cpu: int
    before: int
    since: int
    before_share: float
    since_share: float
    now: List[str]


class Cluster(NamedTuple):
    """CPUs of about the same speed, with what they served."""

    cpus: str
    speed: str
    served: List[Served]


class Place(NamedTuple):
    """One interrupt of a card: CPUs before, now, and as it would be; CPUs that it may use; how often it came.

    None: not known.
    """

    bdf: str
    irq: Optional[int]
    before: Optional[str]
    now: Optional[str]
    predicted: Optional[str]
    allowed: Optional[str]
    times: Optional[int]


class Clock(NamedTuple):
    """cpufreq policies that are alike. Frequencies in MHz; *_SHARE: place between the hardware's lowest and highest.

    GOVERNOR_BEFORE and GOVERNOR_AFTER: of a change in this run, or (in check mode) one that would be made.
    """

    cpus: str
    names: str
    governor: Optional[str]
    governor_before: Optional[str]
    governor_after: Optional[str]
    epp: Optional[str]
    current_mhz: Optional[Tuple[int, int]]
    min_mhz: Optional[int]
    max_mhz: Optional[int]
    hw_min_mhz: Optional[int]
    hw_max_mhz: Optional[int]
    current_share: Optional[float]
    min_share: float
    max_share: float


class Told(NamedTuple):
    """Findings that say the same of several things: one remedy, a line and the evidence for each."""

    id: str
    severity: str
    lines: List[str]
    remedy: str
    role: Optional[str]
    gain: Any
    evidence: Dict[str, Any]


class View(NamedTuple):
    """All that is shown of one box. READ_AT: when its report was written; KEY: its name as an anchor."""

    name: str
    key: str
    read_at: Optional[str]
    report: Mapping[str, Any]
    verdict: str
    severity: str
    counts: Dict[str, int]
    todo: List[Told]
    notes: List[Told]
    fine: List[Told]
    cards: List[Mapping[str, Any]]
    slowest: Optional[str]
    topology: List[Node]
    clusters: List[Cluster]
    was_moved: bool
    places: List[Place]
    clocks: List[Clock]
    facts: List[Tuple[str, str]]
    values: List[Mapping[str, Any]]
    files: List[Mapping[str, Any]]
    refused: List[Mapping[str, Any]]
    unknown: List[str]
    acted: bool
    check_mode: bool

    @property
    def to_do(self) -> int:
        """How many things there are to do."""
        return len(self.todo)

    @property
    def gain(self) -> Optional[str]:
        """What there is to be gained, in words; None where no card is."""
        told = self.report.get("expected_gain")
        return str(told["text"]) if told and self.cards else None

    @property
    def words(self) -> str:
        """What a search for this box looks through."""
        host = self.report["host"]
        told = [self.name, self.verdict, host["model"], host["kernel"], *(card["npu"] for card in self.cards)]
        told += [text for one in [*self.todo, *self.notes] for text in (one.id, *one.lines)]
        return " ".join(str(text) for text in told if text)


def speed(gt_s: Any, width: Any) -> Optional[str]:
    """Return "5 GT/s x1"; None where a part of it is not known."""
    return "%g GT/s x%d" % (gt_s, width) if gt_s and width else None


def _link(hop: Optional[Mapping[str, Any]]) -> Optional[Link]:
    if hop is None:
        return None
    health, word = HEALTH.get(hop["state"], (UNKNOWN, str(hop["state"])))
    lower, upper = (hop["lower_gt_s"], hop["lower_width"]), (hop["upper_gt_s"], hop["upper_width"])
    possible = speed(min(lower[0] or 0, upper[0] or 0), min(lower[1] or 0, upper[1] or 0))
    return Link(health, word, speed(hop["negotiated_gt_s"], hop["negotiated_width"]), possible, str(hop["limit"]))


def _can(gt_s: Any, width: Any) -> List[str]:
    told = speed(gt_s, width)
    return ["can %s" % told] if told else []


class _Topology:
    """Puts a tree together from the ways of single cards."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        self.cards = {card["bdf"]: card for card in report["cards"]}
        self.hops = {hop["lower"]: hop for card in self.cards.values() for hop in card["hops"]}
        self.uppers = {hop["upper"]: hop for hop in self.hops.values() if hop["upper"]}
        self.nodes: Dict[str, Node] = {}
        self.roots: List[Node] = []
        self.switch_on_bus: Dict[str, str] = {}  # bus of a switch's downstream ports -> its upstream port
        self.controllers: Dict[str, str] = {}

    def complex(self, bdf: str) -> Node:
        """Return the root complex that the root port (or device) BDF is at."""
        key = bdf[: bdf.rindex(":")]
        if key not in self.nodes:
            self.nodes[key] = Node("complex", "Root complex", self.controllers.get(key, key), [], None, None, [])
            self.roots.append(self.nodes[key])
        return self.nodes[key]

    def add(self, above: Node, node: Node) -> Node:
        """Hang NODE below ABOVE."""
        self.nodes[node.name] = node
        above.below.append(node)
        return node

    def way(self, card: Mapping[str, Any]) -> None:
        """Add a card and what is above it."""
        path = list(reversed(card["path"]))
        if card["controller"]:
            self.controllers[path[0][: path[0].rindex(":")]] = card["controller"]
        above = self.complex(path[0])
        for at, bdf in enumerate(path[:-1]):
            if bdf in self.nodes:
                above = self.nodes[bdf]
            elif at == 0:
                upper = self.uppers.get(bdf)
                about = _can(upper["upper_gt_s"], upper["upper_width"]) if upper else []
                above = self.add(above, Node("port", "Root port", bdf, about, None, None, []))
            elif bdf in self.hops or at % 2:
                hop = self.hops.get(bdf)
                about = _can(hop["lower_gt_s"], hop["lower_width"]) if hop else []
                above = self.add(above, Node("switch", "Switch", bdf, about, None, _link(hop), []))
            else:  # a switch's downstream port is not drawn: its link is the card's
                self.switch_on_bus[bdf[: bdf.rindex(":")]] = above.name
        self.add(above, self.card(card, path))

    def card(self, card: Mapping[str, Any], path: Sequence[str]) -> Node:
        """Return a card as a node."""
        hop = self.hops.get(card["bdf"])
        link = _link(hop)
        about = []
        if card["internal"]:
            about.append("part of the processor")
        elif hop is not None:
            about += _can(hop["lower_gt_s"], hop["lower_width"])
        if card["bandwidth_mb_s"]:
            about.append("%(read).0f MB/s read, %(write).0f MB/s write" % card["bandwidth_mb_s"])
            if card["share_mb_s"] and card["share_mb_s"] != card["bandwidth_mb_s"]:
                about.append("%(read).0f and %(write).0f MB/s while all cards work" % card["share_mb_s"])
        about.append("driver %s" % card["driver"] if card["driver"] else "no driver")
        if not card["alive"] and link is None:
            link = Link(CRITICAL, "no answer", None, None, "the card does not answer")
        health = CRITICAL if not card["alive"] else None
        title = str(card["npu"] or "Card")
        if len(path) > 2 and len(path) % 2 == 0:
            about.append("port %s" % path[-2])
        return Node("card", title, card["bdf"], about, health, link, [])

    def open(self, port: Mapping[str, Any]) -> None:
        """Add a port with nothing known behind it."""
        bdf = port["bdf"]
        key = bdf[: bdf.rindex(":")]
        above = self.nodes[self.switch_on_bus[key]] if key in self.switch_on_bus else self.complex(bdf)
        about = _can(port["capable_gt_s"], port["capable_width"])
        if port["slot_number"] is not None:
            about.append("slot %d" % port["slot_number"])
        title, health = ("Link up, no device: rescan", WARNING) if port["has_link"] else ("Nothing connected", None)
        self.add(above, Node("slot", title, bdf, about, health, None, []))


def topology(report: Mapping[str, Any]) -> List[Node]:
    """Return the root complexes with what hangs below them, as far as the report tells."""
    tree = _Topology(report)
    for card in report["cards"]:
        tree.way(card)
    for port in [*report["needs_rescan"], *report["empty_slots"]]:
        tree.open(port)
    return tree.roots


def _counts(told: Mapping[str, int]) -> Dict[int, int]:
    return {int(cpu): count for cpu, count in told.items()}


def _measure(tier: Mapping[str, Any]) -> str:
    """Return by what a tier was ranked, and its value."""
    if tier["basis"] == "maximum frequency" and tier["value"] is not None:
        return "up to %d MHz" % (tier["value"] // 1000)
    return str(tier["basis"]) if tier["value"] is None else "%(basis)s %(value)s" % tier


def _tiers(report: Mapping[str, Any], others: Iterable[int]) -> List[Tuple[str, str, Tuple[int, ...]]]:
    """Return (CPUs, how fast, their numbers) of each cluster; CPUs of which nothing else is known form the last."""
    found = []
    known: Set[int] = set()
    for at, tier in enumerate(report["tiers"]):
        cpus = parse_list(tier["cpus"] or "") or ()
        known.update(cpus)
        last = len(report["tiers"]) - 1
        rank = "" if last == 0 else "slowest" if at == 0 else "fastest" if at == last else ""
        value = "all equally fast" if len(report["tiers"]) == 1 else _measure(tier)
        found.append((tier["cpus"], ", ".join(part for part in (rank, value) if part), cpus))
    rest = tuple(sorted(set(others) - known))
    return [*found, (format_list(rest), "", rest)] if rest else found


def clusters(report: Mapping[str, Any]) -> Tuple[List[Cluster], bool]:
    """Return how often each CPU served the cards' interrupts, and whether one of these was moved."""
    before: Dict[int, int] = {}
    since: Dict[int, int] = {}
    now: Dict[int, List[str]] = {}
    moved = False
    for card in report["cards"]:
        for one in card["interrupts"]:
            whole = _counts(one["counts"])
            old = _counts(one["before"]["counts"]) if one.get("before") else {}
            moved = moved or bool(old)
            for cpu, count in old.items():
                before[cpu] = before.get(cpu, 0) + count
            for cpu, count in (growth(old, whole) if old else whole).items():
                since[cpu] = since.get(cpu, 0) + count
            for cpu in parse_list(one["effective"] or "") or ():
                if card["bdf"] not in now.setdefault(cpu, []):
                    now[cpu].append(card["bdf"])
    highest = max([*before.values(), *since.values(), 1])
    found = []
    for listed, how_fast, cpus in _tiers(report, [*before, *since, *now]):
        served = [
            Served(
                cpu,
                before.get(cpu, 0),
                since.get(cpu, 0),
                before.get(cpu, 0) / highest,
                since.get(cpu, 0) / highest,
                now.get(cpu, []),
            )
            for cpu in cpus
        ]
        found.append(Cluster(listed, how_fast, served))
    return found, moved


def places(report: Mapping[str, Any]) -> List[Place]:
    """Return where each interrupt of the cards was and is."""
    done = {}
    for placement in report.get("actions", {}).get("irq_affinity", {}).get("placements", []):
        done[placement["bdf"], placement["irq"]] = placement
    found = []
    for card in report["cards"]:
        for one in card["interrupts"]:
            action = done.get((card["bdf"], one["irq"]), {})
            before = action.get("effective_before")
            if before in (None, one["effective"]) and one.get("before"):
                before = one["before"]["effective"]
            count = sum(one["counts"].values()) if one["counts"] else None
            found.append(
                Place(
                    card["bdf"],
                    one["irq"],
                    before,
                    one["effective"],
                    action.get("effective_after"),
                    one["affinity"],
                    count,
                )
            )
    return found


def _mhz(khz: Optional[int]) -> Optional[int]:
    return None if khz is None else khz // 1000


def _several(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else "%s to %s" % (names[0], names[-1])


def clocks(report: Mapping[str, Any]) -> List[Clock]:
    """Return the cpufreq policies, those that are alike together."""
    actions = report.get("actions", {}).get("governor", {}).get("policies", [])
    changed = {one["policy"]: (one["before"], one["after"]) for one in actions if one["before"] != one["after"]}
    alike: Dict[Tuple[Any, ...], List[Mapping[str, Any]]] = {}
    for policy in report["policies"]:
        names = ("governor", "epp", "min_khz", "max_khz", "hw_min_khz", "hw_max_khz", "all_offline")
        key = (*(policy[name] for name in names), changed.get(policy["name"]))
        alike.setdefault(key, []).append(policy)
    found = []
    for members in alike.values():
        first = members[0]
        low, high = first["hw_min_khz"], first["hw_max_khz"]
        span = (high - low) if low is not None and high is not None and high > low else None

        def share(khz: Optional[int], otherwise: float, low: Optional[int] = low, span: Optional[int] = span) -> float:
            if khz is None or low is None or span is None:
                return otherwise
            return min(1.0, max(0.0, (khz - low) / span))

        now = sorted(one["current_khz"] for one in members if one["current_khz"] is not None)
        cpus = sorted({cpu for one in members for cpu in parse_list(one["cpus"] or "") or ()})
        found.append(
            Clock(
                format_list(cpus),
                _several([str(one["name"]) for one in members]),
                "offline" if first["all_offline"] else first["governor"],
                *changed.get(first["name"], (None, None)),
                first["epp"],
                (now[0] // 1000, now[-1] // 1000) if now else None,
                _mhz(first["min_khz"]),
                _mhz(first["max_khz"]),
                _mhz(low),
                _mhz(high),
                share(now[-1], 0.0) if now and span else None,
                share(first["min_khz"], 0.0),
                share(first["max_khz"], 1.0),
            )
        )
    return found


def facts(report: Mapping[str, Any]) -> List[Tuple[str, str]]:
    """Return what is known of the host, as (name, value)."""
    host, balancer = report["host"], report["irqbalance"]
    runs = {True: "runs", False: "does not run", None: "unknown"}[balancer["running"]]
    if balancer["running"] and balancer["policy_script"]:
        runs += ", with policy %s" % balancer["policy_script"]
    told = [
        ("Model", host["model"]),
        ("System", host["os"]),
        ("Kernel", host["kernel"]),
        ("Architecture", host["architecture"]),
        ("Page size", "%d KiB" % (host["page_size"] // 1024) if host["page_size"] else None),
        ("Virtualisation", host["virtualisation"]),
        ("Device tree", ", ".join(host["compatible"])),
        ("Boot options", "; ".join(" ".join(option) for option in host["boot_options"])),
        ("irqbalance", runs),
        ("Kept on the host", ", ".join(report["kept"]) or "nothing"),
    ]
    return [(name, str(value)) for name, value in told if value]


def gathered(findings: Sequence[Mapping[str, Any]]) -> List[Told]:
    """Return findings with those that differ in their subject only put together, in the order of the first of each."""
    alike: Dict[Tuple[Any, ...], Told] = {}
    for one in findings:
        gain = one.get("expected_gain")
        key = (one["id"], one["severity"], one["remedy"], one["role"], str(gain))
        told = alike.setdefault(key, Told(one["id"], one["severity"], [], one["remedy"], one["role"], gain, {}))
        told.lines.append(one["summary"])
        told.evidence.update(one["evidence"])
    return list(alike.values())


def worth_doing(report: Mapping[str, Any]) -> List[Told]:
    """Return what there is to do, with the evidence of all findings that it answers, in the report's order.

    A gain that is the whole host's is not told again.
    """
    if "worth_doing" not in report:
        return gathered([one for one in report["findings"] if one["severity"] in (CRITICAL, WARNING)])
    whole = report["expected_gain"]["text"]
    found = []
    for deed in report["worth_doing"]:
        gain = None if deed["expected_gain"] == whole else deed["expected_gain"]
        evidence: Dict[str, Any] = {}
        for one in report["findings"]:
            if one["id"] in deed["findings"] and one["summary"] in deed["summaries"]:
                evidence.update(one["evidence"])
        lines = list(dict.fromkeys(deed["summaries"]))
        names = ", ".join(deed["findings"])
        found.append(Told(names, deed["severity"], lines, deed["what"], deed["role"], gain, evidence))
    return found


def _slowest(report: Mapping[str, Any]) -> Optional[str]:
    """Return the narrowest of the cards' own links."""
    links = [
        hop
        for card in report["cards"]
        for hop in card["hops"]
        if hop["lower"] == card["bdf"] and hop["negotiated_gt_s"] and hop["negotiated_width"]
    ]
    least = min(links, key=lambda hop: hop["negotiated_gt_s"] * hop["negotiated_width"], default=None)
    return speed(least["negotiated_gt_s"], least["negotiated_width"]) if least else None


def view(name: str, key: str, report: Any, read_at: Optional[str] = None) -> View:
    """Return what a page shows of a report; raises NotAReport for data that is none."""
    if not isinstance(report, dict) or "schema" not in report or "findings" not in report:
        raise NotAReport("it is no report")
    if report["schema"] != SCHEMA:
        raise NotAReport("its schema is %s, and this version knows %d" % (report["schema"], SCHEMA))
    try:
        return _view(name, key, report, read_at)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise NotAReport("it is damaged (%s: %s)" % (type(error).__name__, error)) from error


def _view(name: str, key: str, report: Dict[str, Any], read_at: Optional[str]) -> View:
    findings = report["findings"]
    counts = {severity: sum(one["severity"] == severity for one in findings) for severity in SEVERITIES}
    bars, moved = clusters(report)
    actions = [action for action in report.get("actions", {}).values() if action]

    def collected(what: str) -> List[Any]:
        seen: List[Any] = []
        for action in actions:
            seen += [one for one in action.get(what, []) if one not in seen]
        return seen

    changes = collected("changes")
    return View(
        name,
        key,
        read_at,
        report,
        str(report["verdict"]),
        max((one["severity"] for one in findings), key=SEVERITIES.index, default=OK),
        counts,
        worth_doing(report),
        gathered([one for one in findings if one["severity"] not in (CRITICAL, WARNING, OK)]),
        gathered([one for one in findings if one["severity"] == OK]),
        report["cards"],
        _slowest(report),
        topology(report),
        bars,
        moved,
        places(report),
        clocks(report),
        facts(report),
        [one for one in changes if one["path"].startswith(KERNEL)],
        [one for one in changes if not one["path"].startswith(KERNEL)],
        collected("refused"),
        collected("unknown"),
        bool(actions),
        bool(report.get("check_mode")),
    )


def _since(one: Mapping[str, Any], old: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an interrupt with where it was, as OLD, an earlier reading of it, tells."""
    if old["effective"] != one["effective"] and old["counts"]:
        return dict(one, before={"effective": old["effective"], "counts": old["counts"]})
    return dict(one, before=old["before"]) if "before" in old else one


def with_before(report: Dict[str, Any], earlier: Any) -> Dict[str, Any]:
    """Return REPORT with what EARLIER, of the same boot, says of interrupts that were served elsewhere then.

    What it says of an interrupt that has stayed where it was is handed on. EARLIER may be anything.
    """
    try:
        boot = report["host"]["boot_id"]
        if boot is None or earlier["host"]["boot_id"] != boot or earlier["schema"] != report["schema"]:
            return report
        known = {
            (card["bdf"], one["irq"], one["hwirq"]): one for card in earlier["cards"] for one in card["interrupts"]
        }
        cards = []
        for card in report["cards"]:
            olds = [known.get((card["bdf"], one["irq"], one["hwirq"]), one) for one in card["interrupts"]]
            interrupts = [_since(one, old) for one, old in zip(card["interrupts"], olds)]
            cards.append(dict(card, interrupts=interrupts))
    except (AttributeError, KeyError, TypeError):
        return report
    return dict(report, cards=cards)
