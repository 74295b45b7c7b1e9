# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's state as metrics in Prometheus' text format, for node_exporter's textfile collector. Pure.

Names and labels are what users' dashboards and alerts rest on: one that exists never changes its meaning. Units are
base units. What is not known has no sample.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import vectors
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import (
    CardKind,
    kind_of,
    resolve,
    to_data,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.drift import CLOCKS, INTERRUPTS, held
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import Snapshot, findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import (
    COLLECTION_VERSION,
    SEVERITIES,
    WishError,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.topology import judge_link, survey
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import climb

HOST_FILE, AGENT_FILE = "edgenpu_tuning.prom", "edgenpu_tuning_agent.prom"
LEAST_INTERVAL_S = 10
MOST_INTERVAL_S = 31557600.0  # a year
_MIB = 1 << 20
# systemd.time(7), "Parsing Time Spans"
_UNITS_S = (
    (1e-6, "usec us \u00b5s \u03bcs"),
    (1e-3, "msec ms"),
    (1, "seconds second sec s"),
    (60, "minutes minute min m"),
    (3600, "hours hour hr h"),
    (86400, "days day d"),
    (604800, "weeks week w"),
    (2629800, "months month M"),
    (31557600, "years year y"),
)
_SECONDS = {unit: seconds for seconds, units in _UNITS_S for unit in units.split()}
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)[ \t]*([a-zA-Z\u00b5\u03bc]*)[ \t]*")
_PLACES_OF_THE_KERNEL = ("/proc", "/sys", "/dev")


def span_s(text: str) -> Optional[float]:
    """Return the seconds of a time span as systemd writes it ("5min", "1h 30m", "90"); None if it is none."""
    at, total = 0, 0.0
    text = text.strip()
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or (match.group(2) or "s") not in _SECONDS:
            return None
        total += float(match.group(1)) * _SECONDS[match.group(2) or "s"]
        at = match.end()
    return total if text else None


class MetricsWishes(NamedTuple):
    """Where metrics are written, how often (as systemd writes time spans), and which devices are NPU cards."""

    directory: str
    interval: str
    catalogue: Tuple[CardKind, ...]

    @property
    def paths(self) -> Tuple[str, str]:
        """The files: of the host's state, and of the agent's last run."""
        return "%s/%s" % (self.directory, HOST_FILE), "%s/%s" % (self.directory, AGENT_FILE)

    def to_data(self) -> Dict[str, Any]:
        """Return the wishes as JSON can hold them."""
        return dict(self._asdict(), catalogue=to_data(self.catalogue))

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> MetricsWishes:
        """Return wishes from the form of `to_data`; raises WishError where they make no sense."""
        directory, interval = str(data.get("directory", "")).rstrip("/"), str(data.get("interval", "")).strip()
        steps = directory.split("/")
        if len(steps) < 2 or steps[0] or not all(steps[1:]) or {".", ".."} & set(steps) or not directory.isprintable():
            raise WishError(
                "directory: %r is no absolute path of a directory; write the one that node_exporter reads "
                "(--collector.textfile.directory), such as /var/lib/prometheus/node-exporter" % directory
            )
        if "/" + steps[1] in _PLACES_OF_THE_KERNEL:
            raise WishError("directory: %s belongs to the kernel; name one in a file system" % directory)
        seconds = span_s(interval)
        if seconds is None:
            raise WishError(
                "interval: %r is no time span of systemd; write one such as 5min, 90s or 1h 30min" % interval
            )
        if seconds > MOST_INTERVAL_S:
            raise WishError("interval: %s is more than a year; leave metrics off instead" % interval)
        if seconds < LEAST_INTERVAL_S:
            raise WishError(
                "interval: %s is less than %d s, and each time costs as much as a diagnosis; write more"
                % (interval, LEAST_INTERVAL_S)
            )
        return cls(directory, interval, resolve(data.get("catalogue")))


class Run(NamedTuple):
    """One run of the agent: when it ended (seconds since 1970), how long it took, and how much came of it."""

    ended_s: float
    duration_s: float
    changes: int
    refused: int
    problems: int


Labels = Tuple[Tuple[str, str], ...]


class _Page:
    """Metrics in the order in which they were first added."""

    def __init__(self) -> None:
        self._heads: Dict[str, Tuple[str, str]] = {}
        self._samples: Dict[str, Dict[Labels, float]] = {}

    def add(self, name: str, what: str, value: Optional[float], **labels: Optional[str]) -> None:
        """Add a sample to the metric edgenpu_NAME; none if VALUE is None. WHAT explains it."""
        if value is None:
            return
        self._heads.setdefault(name, ("counter" if name.endswith("_total") else "gauge", what))
        key = tuple((label, text or "") for label, text in labels.items())
        self._samples.setdefault(name, {})[key] = value

    def text(self) -> str:
        lines: List[str] = []
        for name, (kind, what) in self._heads.items():
            full = "edgenpu_" + name
            lines.append("# HELP %s %s" % (full, what.replace("\\", "\\\\").replace("\n", "\\n")))
            lines.append("# TYPE %s %s" % (full, kind))
            lines += ["%s%s %s" % (full, _braces(labels), _number(one)) for labels, one in self._samples[name].items()]
        return "".join(line + "\n" for line in lines)


def _braces(labels: Labels) -> str:
    return "{%s}" % ",".join('%s="%s"' % (name, _escaped(text)) for name, text in labels) if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return "%d" % value if value == int(value) else repr(float(value))


def _times(value: Optional[float], factor: float) -> Optional[float]:
    return None if value is None else value * factor


def _cards(page: _Page, snapshot: Snapshot) -> None:
    by_bdf = {device.bdf: device for device in snapshot.devices}
    ways = survey(snapshot.devices, snapshot.catalogue)
    page.add("cards", "NPU cards on the PCI bus.", len(snapshot.cards))
    for card in snapshot.cards:
        bdf, kind = card.bdf, kind_of(card, snapshot.catalogue)
        name = "" if kind is None else kind.name
        page.add("card_present", "An NPU card is on the PCI bus at this address.", 1, bdf=bdf, npu=name)
        page.add("card_alive", "The card answers: 0 if its registers read all ones.", int(card.alive), bdf=bdf)
        page.add("card_bound", "A driver is bound to the card.", int(card.driver is not None), bdf=bdf)
        place = card.of_node or card.controller
        page.add("card_info", "Driver and slot of the card.", 1, bdf=bdf, npu=name, driver=card.driver, slot=place)
        page.add("card_max_payload_bytes", "PCIe payload size in force (MPS).", card.mps_bytes, bdf=bdf)
        page.add("card_max_read_request_bytes", "PCIe read requests in force (MRRS).", card.mrrs_bytes, bdf=bdf)
        link, judged = card.link, judge_link(card, by_bdf.get(card.parent or ""))
        if link is not None and judged is not None:
            speed = "link_speed_transfers_per_second"
            page.add(speed, "Negotiated speed of the card's link, by lane.", _times(link.negotiated_gt_s, 1e9), bdf=bdf)
            page.add("link_width_lanes", "Negotiated width of the card's link.", link.negotiated_width, bdf=bdf)
            page.add(
                "link_possible_speed_transfers_per_second",
                "The most that both ends of the card's link can do, by lane.",
                judged.possible_gt_s * 1e9,
                bdf=bdf,
            )
            page.add(
                "link_possible_width_lanes",
                "The most lanes that both ends of the card's link can use.",
                judged.possible_width,
                bdf=bdf,
            )
        way = ways.get(bdf)
        for metric, what, rate in (
            ("card_bandwidth_bytes_per_second", "the card alone", way and way.bandwidth),
            ("card_shared_bandwidth_bytes_per_second", "while all cards work", way and way.share),
        ):
            if rate:
                carried = "What the links up to the processor can carry, %s (computed)." % what
                page.add(metric, carried, rate.read * 1e6, bdf=bdf, direction="read")
                page.add(metric, carried, rate.write * 1e6, bdf=bdf, direction="write")
        for hop in climb(by_bdf, bdf):
            for severity in ("correctable", "nonfatal", "fatal") if hop.aer else ():
                what = "AER errors on the way to the card."
                errors = sum(getattr(hop.aer, severity).values())
                page.add("pcie_errors_total", what, errors, bdf=hop.bdf, severity=severity)


def _answers(page: _Page, snapshot: Snapshot) -> None:
    """What AXCL cards tell of themselves. Other hosts need none of its code."""
    axcl = snapshot.axcl
    if axcl is None or axcl.table is None:
        return
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import placed

    for row in placed(axcl.table, [card.bdf for card in snapshot.cards]).cards:
        bdf = row.bdf
        if bdf is None:
            continue
        page.add("card_temperature_celsius", "Temperature of the card's chip.", row.temperature_c, bdf=bdf)
        for name, what, percent in (
            ("cpu", "How much of the card's own processor is used.", row.cpu_percent),
            ("npu", "How much of the card's NPU is used.", row.npu_percent),
        ):
            page.add("card_%s_usage_ratio" % name, what, None if percent is None else percent / 100, bdf=bdf)
        for name, what, mib in (
            ("memory", "the card's own system", row.memory_mib),
            ("cmm", "models and media (CMM)", row.cmm_mib),
        ):
            page.add("card_%s_used_bytes" % name, "Memory for %s in use." % what, _times(mib.used, _MIB), bdf=bdf)
            page.add("card_%s_size_bytes" % name, "Memory for %s." % what, _times(mib.total, _MIB), bdf=bdf)


def _interrupts(page: _Page, snapshot: Snapshot) -> None:
    for card in snapshot.cards:
        for vector, irq in enumerate(vectors(card)):
            interrupt = snapshot.interrupts.get(irq)
            for cpu, count in sorted(interrupt.counts.items()) if interrupt is not None else ():
                if count:
                    where = {"bdf": card.bdf, "vector": str(vector), "cpu": str(cpu)}
                    page.add("interrupts_total", "Interrupts of the card that each CPU has served.", count, **where)


def _clocks(page: _Page, snapshot: Snapshot) -> None:
    for policy in snapshot.policies:
        name = policy.name
        for metric, what, khz in (
            ("frequency", "Clock of the CPUs of a cpufreq policy.", policy.current_khz),
            ("limit", "Highest clock that is allowed now (scaling_max_freq).", policy.max_khz),
            ("hardware_limit", "Highest clock that the hardware has.", policy.hw_max_khz),
        ):
            full = "cpufreq_policy_%s_hertz" % metric
            page.add(full, what, _times(khz, 1e3), policy=name, cpus=format_list(policy.cpus))
        if policy.governor is not None:
            what = "The governor in force."
            page.add("cpufreq_policy_governor_info", what, 1, policy=name, governor=policy.governor)


def _wishes(page: _Page, snapshot: Snapshot) -> None:
    for role in sorted(snapshot.wishes):
        page.add("wishes_kept", "Wishes of this role are kept in force on the host.", 1, role=role)
    kept = held(snapshot)
    for role, found in kept.items():
        page.add("drift_values", "Values that are not as wished.", len(found.changes), role=role)
    what = "The interrupt is where the wishes want it."
    for (bdf, vector), right in kept[INTERRUPTS].states.items() if INTERRUPTS in kept else ():
        page.add("interrupt_on_wished_cpu", what, int(right), bdf=bdf, vector=vector)
    for (policy,), right in kept[CLOCKS].states.items() if CLOCKS in kept else ():
        page.add("cpufreq_policy_governor_as_wished", "The governor is the wished one.", int(right), policy=policy)


def _findings(page: _Page, snapshot: Snapshot) -> None:
    found = findings(snapshot)
    for severity in SEVERITIES:
        count = sum(one.severity == severity for one in found)
        page.add("findings", "Findings of the diagnosis, by severity.", count, severity=severity)
    for one in found:
        count = sum((other.id, other.severity) == (one.id, one.severity) for other in found)
        page.add("finding", "How often the diagnosis has this finding.", count, id=one.id, severity=one.severity)


def host_page(snapshot: Snapshot, taken_s: float, agent: Optional[str] = None) -> str:
    """Return the metrics of a host. TAKEN_S: seconds since 1970; AGENT: the name of the agent's directory."""
    page = _Page()
    page.add("build_info", "Version of the collection.", 1, version=COLLECTION_VERSION, agent=agent)
    host = snapshot.host
    page.add("host_info", "The board and its kernel.", 1, model=host.model, kernel=host.kernel)
    page.add("diagnosis_timestamp_seconds", "When the host was looked at, since 1970.", round(taken_s, 3))
    for part in (_findings, _cards, _answers, _interrupts, _clocks, _wishes):
        part(page, snapshot)
    return page.text()


def agent_page(run: Run) -> str:
    """Return the metrics of the agent's last run."""
    page = _Page()
    page.add("agent_last_run_timestamp_seconds", "When the agent's last run ended, since 1970.", round(run.ended_s, 3))
    page.add("agent_last_run_duration_seconds", "How long it took.", round(run.duration_s, 3))
    page.add("agent_last_run_changes", "Values that it changed.", run.changes)
    page.add("agent_last_run_refused", "Values that the kernel refused.", run.refused)
    page.add("agent_last_run_problems", "Wishes that it could not follow.", run.problems)
    return page.text()
