# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Axera's PCIe cards as their own software tells of them: axcl-smi, the driver's modules and nodes, the kernel log.

axcl-smi ends with exit status 0 whatever happened, prints errors to standard output, in colour, in two styles, one of
which may cut a line of the other in two, and refuses to run twice. So its text is cleaned first and then read by
structure (bars, numbers with units), never by columns; what was not understood is returned, not dropped.

The tool and its log lines call the PCI *bus number* of a card its "device", in decimal; the kernel log has it in
hexadecimal. Here both are ``device``, a number.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple, cast

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Runner

# Not on everybody's PATH: the vendor's package extends that of login shells only. The second is its name up to V2.18.
TOOLS = ("/usr/bin/axcl/axcl-smi", "/usr/bin/axcl/axcl_smi")
PCI_DRIVER = "ax_pcie_dev_host"  # in /sys/bus/pci/drivers; its module has the words the other way round
# In the order in which they are loaded; the last is not loaded by the vendor's package.
MODULES = ("ax_pcie_host_dev", "ax_pcie_msg", "ax_pcie_mmb", "axcl_host", "ax_pcie_p2p_rc", "ax_pcie_net_host")
OLD_MODULES = ("ax_pcie_boot", "ax_pcie_net2")  # of V2
LAST_MODULE = "axcl_host"  # loading it takes minutes: it hands every card its firmware
LAST_NODE = "/dev/axcl_host"  # made when that is over
NODES = ("/dev/msg_userdev", "/dev/ax_mmb_dev", LAST_NODE, "/dev/p2p")

LOCK = "/run/edgenpu-tuning-axcl.lock"
ASK_S = 60.0  # a request to a dead card takes the tool 50 s, and only then it says so
LOCK_WAIT_S = 70  # the longest that another call of ours can take
RETRIES, RETRY_S = 5, 2  # while somebody else's call is under way

MOST_LEFTOVERS = 20


class _Pattern:
    """A regular expression that is compiled when it is first used."""

    def __init__(self, text: str, flags: int) -> None:
        self._text, self._flags = text, flags

    def __getattr__(self, name: str) -> Any:
        return getattr(re.compile(self._text, self._flags), name)


def _lazy(text: str, flags: int = 0) -> re.Pattern[str]:
    """Return a regular expression. A diagnosis needs few of the many here, and to compile all costs more than it does.

    The module `re` keeps what it has compiled.
    """
    return cast("re.Pattern[str]", _Pattern(text, flags))


class Problem(NamedTuple):
    """One thing that is wrong, in our words, with what to do. DEVICE: the card's bus number, where the text has it."""

    id: str
    summary: str
    remedy: str
    evidence: str
    device: Optional[int] = None


class Version(NamedTuple):
    """``release`` "3.6.5", ``stamp`` "20250908154509" (None in old versions), ``built`` as printed by -v."""

    release: str
    stamp: Optional[str] = None
    built: Optional[str] = None


class Usage(NamedTuple):
    """Memory in MiB."""

    used: Optional[int]
    total: Optional[int]


class Card(NamedTuple):
    """One card of the table; what the tool shows as "--" is None. ``bdf`` is in sysfs's lower case.

    ``number`` counts the cards from 0; the tool takes it for its option -d.
    """

    number: int
    bdf: Optional[str]
    name: Optional[str]
    firmware: Optional[str]
    temperature_c: Optional[int]
    cpu_percent: Optional[int]
    npu_percent: Optional[int]
    memory_mib: Usage
    cmm_mib: Usage


class Process(NamedTuple):
    """A process of the host that uses a card. The tool cuts names after 66 characters: ``name_cut`` then."""

    card: int
    pid: int
    name: str
    name_cut: bool
    npu_memory_kib: int


class Table(NamedTuple):
    """What axcl-smi prints without arguments. ``version`` is the tool's: its "Driver" is a constant of the program."""

    version: Optional[Version]
    cards: Tuple[Card, ...]
    processes: Tuple[Process, ...]
    problems: Tuple[Problem, ...]
    not_understood: Tuple[str, ...]


class Info(NamedTuple):
    """What `axcl-smi info` prints of one card, for the one topic that was asked for; all else is None or empty."""

    device: Optional[int]
    temperature_c: Optional[float]
    cmm_total_kib: Optional[int]
    cmm_used_kib: Optional[int]
    cmm_remain_kib: Optional[int]
    cpu_percent: Optional[float]
    load_average: Optional[Tuple[float, float, float]]
    memory_kib: Dict[str, int]  # the card's /proc/meminfo
    npu_version: Optional[str]
    npu_percent: Dict[str, int]  # by core
    problems: Tuple[Problem, ...]
    not_understood: Tuple[str, ...]


class Block(NamedTuple):
    """One piece of the card's media memory."""

    name: str
    kib: int


class CmmInfo(NamedTuple):
    """The card's /proc/ax_proc/mem_cmm_info. ``firmware`` is that of the card, build stamp included."""

    firmware: Optional[Version]
    total_kib: Optional[int]
    used_kib: Optional[int]
    remain_kib: Optional[int]
    blocks: Tuple[Block, ...]
    problems: Tuple[Problem, ...]


class NpuCore(NamedTuple):
    """One core of the card's /proc/ax_proc/npu/top."""

    name: str
    utilization_percent: Optional[int]
    time: Optional[int]
    period: Optional[int]


class NpuTop(NamedTuple):
    """The NPU cores; ``enabled`` is False where the card does not account, and nothing is known then."""

    cores: Tuple[NpuCore, ...]
    enabled: Optional[bool]
    problems: Tuple[Problem, ...]


class Module(NamedTuple):
    """A loaded module of the driver. ``state`` is "Live", "Loading" or "Unloading"."""

    name: str
    state: str


class Node(NamedTuple):
    """A device node of the driver. ``mode`` is octal, "0666"; owner and group are names, or numbers without one.

    A bundle does not tell whose it was: owner and group are None.
    """

    path: str
    mode: str
    owner: Optional[str]
    group: Optional[str]


class Driver(NamedTuple):
    """The driver on the host: modules in the order in which they were loaded, device nodes."""

    modules: Tuple[Module, ...]
    nodes: Tuple[Node, ...]


class Event(NamedTuple):
    """One thing the kernel log tells of a card or its driver.

    ``severity`` is one of info, warning and critical. ``time_s`` counts from boot; ``when`` is the date, as printed,
    where the log has dates instead.
    """

    id: str
    severity: str
    summary: str
    cure: Optional[str]
    device: Optional[int]
    time_s: Optional[float]
    when: Optional[str]
    line: str


# ---- cleaning -------------------------------------------------------------------------------------------------------

# Colours also without their escape character, which copying from a terminal loses.
_ANSI = _lazy(r"(?:\x1b|\^\[)?\[\d{1,2}(?:;\d{1,2}){0,4}m|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)")
_RUNTIME_LINE = _lazy(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\]\[\d+\]\[[A-Z]\]\[[^\]\n]*\]\[[^\]\n]*\]\[ *\d+\]: ?[^\n]*(?:\n|$)"
)
_TOOL_LINE = _lazy(r"\[\d\d-\d\d \d\d:\d\d:\d\d:\d{3}\]\[[A-Z]\]\[smi\]\[[^\]\n]*\]\[ *\d+\]: ?[^\n]*(?:\n|$)")


def clean(text: str) -> Tuple[str, Tuple[str, ...]]:
    """Return TEXT without colours and log lines, and the log lines.

    The library logs from another thread, so one of its lines may begin anywhere in a line of the tool, whose rest then
    follows after it: taken out with its end of line, it leaves the tool's line whole again.
    """
    text = _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    logged: List[str] = []
    for pattern in (_RUNTIME_LINE, _TOOL_LINE):
        logged += [line.strip() for line in pattern.findall(text)]
        text = pattern.sub("", text)
    return text, tuple(logged)


# ---- problems -------------------------------------------------------------------------------------------------------

_DEAD = (
    "the card does not answer the driver's requests",
    (
        "Look for the card in the kernel log; then reboot the card, reload the driver in order, or switch the host's "
        "power off and on: a reboot of the host leaves the card powered."
    ),
)
# id -> (what it means, what to do)
_MEANING: Dict[str, Tuple[str, str]] = {
    "no_driver": (
        "the card's driver is not loaded",
        "Install the driver, or load its modules; after a kernel upgrade they have to be built again.",
    ),
    "driver_loading": (
        "the driver is still loading: it hands every card its firmware, which takes up to four minutes a card",
        "Wait until /dev/axcl_host exists; the kernel log tells how far it is.",
    ),
    "node_missing": (
        "the driver's modules are loaded, but /dev/axcl_host does not exist",
        "See the kernel log for what the driver says; start udev, or hand the nodes to the container.",
    ),
    "no_permission": (
        "this user may not open /dev/axcl_host",
        "Run it as root, or as a member of the group that the device nodes belong to.",
    ),
    "no_card": (
        "the driver is loaded, but has no card",
        (
            "Seat the card and see that its power supply is strong enough; if the PCI bus has it, see the kernel log "
            "for MSI or BAR failures, then reload the driver."
        ),
    ),
    "dead_card": _DEAD,
    "already_running": (
        "another axcl-smi is running, and there can be only one",
        "Try again when it is through; stop what calls it all the time.",
    ),
    "lock_busy": (
        "another run of ours has been asking the cards for too long",
        "Try again; if it stays so, look for an axcl-smi that hangs: its card is dead.",
    ),
    "timed_out": (
        "axcl-smi gave no answer within its time limit and was stopped",
        _DEAD[1],
    ),
    "tool_missing": (
        "axcl-smi is not installed where its packages put it, in /usr/bin/axcl",
        "Install the driver's package.",
    ),
    "tool_failed": (
        "axcl-smi could not be run, or broke off",
        "Install the package that fits this host's architecture; see the text that it printed.",
    ),
    "no_such_index": (
        "there is no card of that index",
        "Count from 0; up to V2.25.0 the number was that of the PCI bus.",
    ),
    "reboot_failed": ("the card could not be rebooted", _DEAD[1]),
    "communication_lost": (
        "the transfer of data to the card broke off",
        "The card or its link is dead: look for it in the kernel log. Keep the host from sleeping, see to the cooling.",
    ),
    "unknown_command": (
        "this axcl-smi does not know the command",
        "See what its help lists; commands differ by version.",
    ),
    "bad_option": ("this axcl-smi does not know the option", "See what its help lists; options differ by version."),
    "incomplete_command": (
        "axcl-smi wants exactly one topic",
        "Give one of --temp, --mem, --cmm, --cpu and --npu.",
    ),
    "bad_frequency": (
        "the card's CPU cannot have that frequency",
        "Give 1200000, 1400000 or 1700000 (kHz).",
    ),
    "next_generation": (
        "this is the tool of the AX8860 generation, which has another layout",
        "Nothing is read from it; it serves cards of another driver.",
    ),
    "no_table": ("axcl-smi printed no table", "Run it by hand and see what it says; it may be of an unknown version."),
    "axcl_error": ("the AXCL library reports an error", "See the kernel log and /tmp/axcl/axcl_logs.txt."),
}
_SAID: Tuple[Tuple[str, re.Pattern[str]], ...] = tuple(
    (name, _lazy(pattern))
    for name, pattern in (
        ("already_running", r"axcl-smi is already running"),
        ("no_permission", r"open \S+ fail, errno: 13\b"),
        ("no_driver", r"open /dev/axcl_host fail, errno: (?!13\b)\d+"),
        ("no_card", r"no device connected"),
        ("dead_card", r"request ports from device (?P<device>\d+) fail"),
        ("dead_card", r"active device (?P<device>\d+) fail"),
        ("reboot_failed", r"reboot device (?P<device>\d+) fail"),
        ("communication_lost", r"send \d+ bytes, but \d+ bytes sent|recv dma size \d+ is not equal to \d+"),
        ("unknown_command", r"Unknown command: .*"),
        ("bad_option", r"Flag could not be matched: .*"),
        ("incomplete_command", r"Group validation failed somewhere"),
        ("bad_frequency", r"Could not find key '[^']*' in map for arg 'MHz'"),
    )
)
_INDEX = _lazy(
    r"device index \d+ is out of connected devices number (\d+)|"
    r"Specified device index\{\d+\} is out of range\{total (\d+)\}"
)
# The runtime's module is 0, its devices are sub-module 1; the low byte says what happened.
_CODE = _lazy(r"0x(8[0-9a-f]{7})\b", re.I)
_CODES = {
    0x8030010B: ("no_driver", ("no_driver", "no_permission")),
    0x80300181: ("no_card", ("no_card",)),
    0x80300186: ("dead_card", ("dead_card",)),
    0x80300187: ("reboot_failed", ("reboot_failed",)),
}
_SUB_CODES = {
    0x02: "null pointer",
    0x03: "bad parameter",
    0x04: "not supported",
    0x05: "timed out",
    0x06: "busy",
    0x07: "out of memory",
    0x0B: "cannot be opened",
    0x80: "query failed",
    0x81: "not connected",
    0x82: "probe failed",
    0x83: "not active",
    0x84: "invalid number",
    0x85: "none active",
    0x86: "ports refused",
    0x87: "reboot failed",
    0x88: "ports not given back",
}


def problem(name: str, evidence: str = "", device: Optional[int] = None, detail: str = "") -> Problem:
    """Return a problem by its id, with the card named where DEVICE (its bus number) is known."""
    summary, remedy = _MEANING[name]
    if device is not None:
        summary += " (the card on PCI bus %02x)" % device
    return Problem(name, summary + (": " + detail if detail else ""), remedy, evidence.strip()[:400], device)


def find_problems(text: str) -> Tuple[Problem, ...]:
    """Return what output of the vendor's tools complains of, each thing once, in order; () for none.

    Works on output of axcl-smi, of axcl_run_model and on /tmp/axcl/axcl_logs.txt, whole or in part.
    """
    rest, logged = clean(text)
    found: List[Problem] = []
    seen: Set[Tuple[str, Optional[int]]] = set()
    known: Set[str] = set()

    def add(name: str, line: str, device: Optional[int] = None, detail: str = "") -> None:
        if (name, device) not in seen:
            seen.add((name, device))
            known.add(name)
            found.append(problem(name, line, device, detail))

    lines = [*logged, *(line for line in rest.split("\n") if line.strip())]
    for line in lines:
        for name, pattern in _SAID:
            match = pattern.search(line)
            if match is not None:
                device = match.groupdict().get("device")
                add(name, line, None if device is None else int(device))
    for line in lines:
        for code in _CODE.findall(line):
            number = int(code, 16)
            name, same = _CODES.get(number, ("axcl_error", ()))
            if not known.intersection(same):
                words = _SUB_CODES.get(number & 0xFF)
                add(name, line, None, "" if same else "0x%08x%s" % (number, ", " + words if words else ""))
        match = _INDEX.search(line)
        # with no card at all this is only what follows from it
        if match is not None and (match.group(1) or match.group(2)) != "0":
            add("no_such_index", line)
    return tuple(found)


# ---- the table ------------------------------------------------------------------------------------------------------

_DATE = r"([A-Z][a-z]{2} [ \d]\d \d{4} [\d:]{8})"
_VERSION = _lazy(r"AXCL[-_]SMI\s+V(\d+\.\d+\.\d+)(?:_(\d{8,14}))?(?:\s+BUILD: %s)?" % _DATE)
# The unit belongs to it: a number that a call has been stopped in the middle of is none.
_MIB = r"(?:\d+\s*MiB|--(?:\s*MiB)?)"
_USAGE_CELL = r"\s*(%s\s*/\s*%s)[^\S\n]*(?:\||$)" % (_MIB, _MIB)
_ROW = _lazy(
    r"(?:^|\|)([^|]{3,200}?)\|\s*(--|[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])\s*\|" + _USAGE_CELL, re.M
)
_SECOND_ROW = _lazy(r"[\s|]*([^|]{5,200}?)\|([^|]{2,60})\|" + _USAGE_CELL, re.M)
_STATE = _lazy(r"(\S+)\s+(-?\d+\s*C|--)\s+(\S+(?:\s*W)?)\s*/\s*(\S+(?:\s*W)?)\s*")
_LOAD = _lazy(r"\s*(\d+\s*%|--)\s+(\d+\s*%|--)\s*")
_USAGE = _lazy(r"(\d+|--)[^/]*/\s*(\d+|--)")
_PROCESS = _lazy(r"^\s*\|?\s*(\d+)\s+(\d+)\s+(\S.*?)\s+(\d+)\s*KiB\s*\|?\s*$", re.M)
_FRAME = _lazy(
    r"[-+=|\s]*|\|?\s*AXCL[-_]SMI\s+V\S+\s+Driver\s.*|\|?\s*Card\s+Name\s+Firmware\b.*|\|?\s*Fan\s+Temp\b.*"
    r"|\|?\s*Processes:[\s|]*|\|?\s*Card\s+PID\s+Process Name\b.*"
)
_NAME_WIDTH = 66  # to which the tool cuts a process' name
_NEXT_GENERATION = _lazy(r"^Card\s+Chip\s+Pwr\(W\)|^\s*NPU0\s+: |^\s*Current Speed\(GT/s\)\s+: ", re.M)


def parse_version(text: str) -> Optional[Version]:
    """Return the tool's version, from -v or from the head of the table; None if it is not there."""
    match = _VERSION.search(clean(text)[0])
    return Version(match.group(1), match.group(2), match.group(3)) if match else None


def _number(text: str) -> Optional[int]:
    match = re.match(r"\s*(-?\d+)", text)
    return int(match.group(1)) if match else None


def _known(text: Optional[str]) -> Optional[str]:
    return None if text in (None, "", "--") else text


def _usage(cell: str) -> Usage:
    match = _USAGE.match(cell)
    return Usage(_number(match.group(1)), _number(match.group(2))) if match else Usage(None, None)


def _card(first: re.Match[str], second: Optional[re.Match[str]]) -> Optional[Card]:
    words = re.sub(r"[-+=]{3,}", " ", first.group(1)).split()
    if not words or not words[0].isdecimal():
        return None
    names = words[1:]
    firmware = names.pop() if len(names) > 1 or (names and re.match(r"V\d", names[-1])) else None
    bdf = _known(first.group(2))
    state = _STATE.fullmatch(second.group(1).strip()) if second else None
    load = _LOAD.fullmatch(second.group(2)) if second else None
    return Card(
        number=int(words[0]),
        bdf=None if bdf is None else bdf.lower(),
        name=_known(" ".join(names)),
        firmware=_known(firmware),
        temperature_c=_number(state.group(2)) if state else None,
        cpu_percent=_number(load.group(1)) if load else None,
        npu_percent=_number(load.group(2)) if load else None,
        memory_mib=_usage(first.group(3)),
        cmm_mib=_usage(second.group(3)) if second else Usage(None, None),
    )


def _is_second(match: Optional[re.Match[str]]) -> bool:
    if match is None or _STATE.fullmatch(match.group(1).strip()) is None:
        return False
    return _LOAD.fullmatch(match.group(2)) is not None


def _take_cards(text: str) -> Tuple[List[Card], str]:
    """Return the cards and TEXT without their rows."""
    cards: List[Card] = []
    left: List[str] = []
    at = 0
    while True:
        first = _ROW.search(text, at)
        if first is None:
            break
        second = _SECOND_ROW.match(text, first.end())
        if not _is_second(second):
            second = None
        card = _card(first, second)
        if card is None:
            left.append(text[at : first.start() + 1])
            at = first.start() + 1
            continue
        left.append(text[at : first.start()])
        cards.append(card)
        at = (second or first).end()
    left.append(text[at:])
    return cards, "\n".join(left)


def _leftovers(text: str) -> Tuple[str, ...]:
    lines = [line.strip() for line in text.split("\n") if _FRAME.fullmatch(line) is None]
    return tuple(line[:200] for line in lines[:MOST_LEFTOVERS])


def parse_table(text: str) -> Table:
    """Return what a call of axcl-smi without arguments printed; never raises.

    No row for a card that the PCI bus has means that this card does not work: compare ``bdf``.
    """
    rest, _logged = clean(text)
    problems = list(find_problems(text))
    version = parse_version(rest)
    frame = rest.find("+--")
    if _NEXT_GENERATION.search(rest):
        return Table(version, (), (), (*problems, problem("next_generation", rest.split("\n")[0])), ())
    if "usage: axcl-smi" in rest:
        rest = rest[: rest.find("usage: axcl-smi")] + (rest[frame:] if frame >= 0 else "")
    body, title, listing = rest.partition("Processes:")
    cards, left = _take_cards(body)
    processes = []
    for row in _PROCESS.finditer(listing):
        card, pid, name, kib = row.groups()
        processes.append(Process(int(card), int(pid), name, len(name) >= _NAME_WIDTH, int(kib)))
    left += title + _PROCESS.sub("", listing)
    unread = tuple(line for line in _leftovers(left) if not find_problems(line))
    if not problems and not cards and not title:
        problems.append(problem("no_table", rest))
    return Table(version, tuple(cards), tuple(processes), tuple(problems), unread)


# ---- one card in detail ---------------------------------------------------------------------------------------------

_PAIR = _lazy(r"\s*(\S.*?)\s*:\s*(.*?)\s*")
_KIB = _lazy(r"(\d+)\s*(?:kb|kib)?", re.I)
_INFO_LABELS = {
    "Device ID",
    "temperature",
    "CMM Total",
    "CMM Used",
    "CMM Remain",
    "CMM Usage",
    "Mem Usage",
    "NPU Usage (%)",
    "CPU Usage (%)",
    "CPU",
    "Load average",
    "engine version",
}


def parse_info(text: str) -> Info:
    """Return what `axcl-smi info` with one of --temp, --mem, --cmm, --cpu and --npu printed; never raises."""
    rest, _logged = clean(text)
    problems = find_problems(text)
    found: Dict[str, str] = {}
    unread: List[str] = []
    memory: Dict[str, int] = {}
    cores: Dict[str, int] = {}
    if _NEXT_GENERATION.search(rest):
        problems, rest = (*problems, problem("next_generation", rest.split("\n")[0])), ""
    for line in rest.split("\n"):
        pair = _PAIR.fullmatch(line)
        if pair is None:
            if line.strip() and not find_problems(line):
                unread.append(line.strip()[:200])
            continue
        label, value = pair.groups()
        amount = _KIB.fullmatch(value)
        if label in _INFO_LABELS:
            found[label] = value
        elif "npu" in label.lower() and re.fullmatch(r"\d+\s*%+", value):
            cores[label] = int(value.rstrip("% "))
        elif amount is not None:
            memory[label] = int(amount.group(1))
        elif not find_problems(line):
            unread.append(line.strip()[:200])

    def kib(label: str) -> Optional[int]:
        amount = _KIB.fullmatch(found.get(label, ""))
        return int(amount.group(1)) if amount else None

    millidegrees = _number(found.get("temperature", ""))
    percent = re.match(r"[\d.]+", found.get("CPU Usage (%)", ""))
    load = re.match(r"([\d.]+) ([\d.]+) ([\d.]+)\b", found.get("Load average", ""))
    return Info(
        device=_number(found.get("Device ID", "")),
        temperature_c=None if millidegrees is None else millidegrees / 1000.0,
        cmm_total_kib=kib("CMM Total"),
        cmm_used_kib=kib("CMM Used"),
        cmm_remain_kib=kib("CMM Remain"),
        cpu_percent=_float(percent.group()) if percent else None,
        load_average=(float(load.group(1)), float(load.group(2)), float(load.group(3))) if load else None,
        memory_kib=memory,
        npu_version=_known(found.get("engine version")),
        npu_percent=cores,
        problems=problems,
        not_understood=tuple(unread[:MOST_LEFTOVERS]),
    )


def _float(text: str) -> Optional[float]:
    try:
        return float(text)
    except ValueError:
        return None


_CARD_VERSION = _lazy(r"\[Axera version\]: \S+ V(\d+\.\d+\.\d+)(?:_(\d{8,14}))?(?: %s)?" % _DATE)
_CMM_BLOCK = _lazy(r'\|-Block: .*?length=(\d+)KB\(\d+MB\),\s*name="([^"\n]*)"')
_CMM_TOTAL = _lazy(r"total size=(\d+)KB\([^)]*\),\s*used=(\d+)KB\([^)]*\),\s*remain=(\d+)KB\(")


def parse_card_version(text: str) -> Optional[Version]:
    """Return the firmware's version from a file below the card's /proc/ax_proc; None if it is not there."""
    match = _CARD_VERSION.search(clean(text)[0])
    return Version(match.group(1), match.group(2), match.group(3)) if match else None


def parse_cmm_info(text: str) -> CmmInfo:
    """Return what `axcl-smi sh cat /proc/ax_proc/mem_cmm_info` printed; never raises."""
    rest, _logged = clean(text)
    total = _CMM_TOTAL.search(rest)
    sizes = [int(size) for size in total.groups()] if total else [None] * 3
    blocks = tuple(Block(name, int(kib)) for kib, name in _CMM_BLOCK.findall(rest))
    return CmmInfo(parse_card_version(rest), sizes[0], sizes[1], sizes[2], blocks, find_problems(text))


def parse_npu_top(text: str) -> NpuTop:
    """Return what `axcl-smi sh cat /proc/ax_proc/npu/top` printed; an idle NPU has no cores there. Never raises."""
    rest, _logged = clean(text)
    found: List[Tuple[str, Dict[str, Optional[int]]]] = []
    for line in rest.split("\n"):
        label, _colon, value = (part.strip() for part in line.partition(":"))
        if label == "core" and value:
            found.append((value, {}))
        elif found:
            found[-1][1][label] = _number(value)
    cores = [
        NpuCore(name, values.get("utilization"), values.get("time"), values.get("period")) for name, values in found
    ]
    if "nputop info is not enabled" in rest:
        enabled: Optional[bool] = False
    else:
        enabled = True if cores or "nputop info" in rest else None
    return NpuTop(tuple(cores), enabled, find_problems(text))


# ---- the host's side ------------------------------------------------------------------------------------------------


def parse_modules(text: str) -> Tuple[Module, ...]:
    """Return the driver's modules in /proc/modules, first loaded first (the kernel lists the last one first)."""
    loaded = []
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in MODULES + OLD_MODULES:
            loaded.append(Module(words[0], words[4] if len(words) > 4 else "Live"))
    return tuple(reversed(loaded))


def parse_open_count(text: str, module: str = LAST_MODULE) -> Optional[int]:
    """Return how often MODULE is in use in /proc/modules, other modules' use left out; None if it is not loaded."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[0] == module and words[2].isdigit():
            return int(words[2]) - len([name for name in words[3].split(",") if name not in ("", "-")])
    return None


def _owner(number: int, look_up: Callable[[int], Sequence[object]]) -> str:
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def read_node(root: Root, path: str) -> Optional[Node]:
    """Return a device node; None if it is not there, or is none."""
    real = root.real(path)
    bits = None if real is None else root.mode(path)
    if real is None or bits is None:
        return None
    try:
        found = os.stat(os.path.join(root.path, real.lstrip("/")))
    except OSError:
        return None if root.is_live else Node(path, "%04o" % bits, None, None)
    if not stat.S_ISCHR(found.st_mode) and root.is_live:
        return None
    mode = "%04o" % stat.S_IMODE(found.st_mode)
    if not root.is_live:
        return Node(path, mode, str(found.st_uid), str(found.st_gid))
    return Node(path, mode, _owner(found.st_uid, pwd.getpwuid), _owner(found.st_gid, grp.getgrgid))


def read_nodes(root: Root) -> Tuple[Node, ...]:
    """Return the driver's device nodes."""
    nodes = (read_node(root, path) for path in NODES)
    return tuple(node for node in nodes if node is not None)


def read_driver(root: Root) -> Driver:
    """Return the driver's modules and device nodes."""
    return Driver(parse_modules(root.text("/proc/modules") or ""), read_nodes(root))


def driver_problem(driver: Driver) -> Optional[Problem]:
    """Return why axcl-smi must not be asked for cards yet; None where it may be.

    Before the last module has ended its start the tool has nothing to say, and old drivers crash at its question.
    """
    states = {module.name: module.state for module in driver.modules}
    if LAST_MODULE not in states:
        return problem("no_driver", "/proc/modules has no %s" % LAST_MODULE)
    if states[LAST_MODULE] != "Live":
        return problem("driver_loading", "/proc/modules: %s %s" % (LAST_MODULE, states[LAST_MODULE]))
    if LAST_NODE not in {node.path for node in driver.nodes}:
        return problem("node_missing", "no %s" % LAST_NODE)
    return None


# ---- asking ---------------------------------------------------------------------------------------------------------

_REFUSED, _LOCKED = 76, 75
_ENDED = "edgenpu-tuning: exit status"
_WENT_WRONG = "edgenpu-tuning: went wrong:"
# Arguments: lock file, seconds to wait for it, seconds for one call, retries, seconds between them, what to answer
# where the tool asks back, command.
# Calls of ours stand in line; another's call is waited for, a few times. A refusal is one line, so only the first line
# is held back: whatever a call has printed before its time is over is not lost.
_ASK = (
    """\
exec 2>&1 </dev/null
umask 077
lock=$1 lock_wait=$2 limit=$3 retries=$4 pause=$5 answer=$6
shift 6
if command -v flock >/dev/null && (: >>"$lock") 2>/dev/null; then
    exec 9>>"$lock"
    flock -w "$lock_wait" 9 || exit $LOCKED
fi
ask() {
    {
        printf '%s' "$answer" 9>&- | timeout -k 2 "$limit" "$@" 2>&1 9>&-
        status=$?
        [ "$status" -eq 0 ] || printf '\\n$ENDED %s\\n' "$status"
    } | {
        first=
        IFS= read -r first
        case $first in *'axcl-smi is already running'*) exit $REFUSED ;; esac
        printf '%s\\n' "$first"
        exec cat
    }
}
until ask "$@"; do
    status=$?
    [ "$status" -eq $REFUSED ] && [ "$retries" -gt 0 ] || exit "$status"
    retries=$((retries - 1))
    sleep "$pause"
done
""".replace("$REFUSED", str(_REFUSED))
    .replace("$LOCKED", str(_LOCKED))
    .replace("$ENDED", _ENDED)
)


class Answer(NamedTuple):
    """What the tool printed, and what went wrong with the call itself."""

    text: str
    problems: Tuple[Problem, ...]


def find_tool(root: Root) -> Optional[str]:
    """Return the path of axcl-smi; None if no package has put it where they do."""
    return next((path for path in TOOLS if root.exists(path)), None)


def command(
    tool: str,
    arguments: Sequence[str],
    timeout_s: float = ASK_S,
    lock: str = LOCK,
    wait_s: int = LOCK_WAIT_S,
    answer: str = "",
) -> List[str]:
    """Return the command that asks TOOL when its turn has come, within a time limit of TIMEOUT_S."""
    numbers = [str(wait_s), "%g" % timeout_s, str(RETRIES), str(RETRY_S)]
    return ["sh", "-c", _ASK, "axcl-smi", lock, *numbers, answer, tool, *arguments]


def ask(
    runner: Runner,
    tool: str,
    arguments: Sequence[str] = (),
    timeout_s: float = ASK_S,
    lock: str = LOCK,
    wait_s: int = LOCK_WAIT_S,
    answer: str = "",
) -> Answer:
    """Ask the tool, one call at a time on this host, and return what it printed.

    WAIT_S: seconds to stand in line. ANSWER: what to say where the tool asks back, as it does before it reboots a card;
    no other call wakes or resets one. The runner's own limit is behind the tool's: it counts only where a call cannot
    even be killed.
    """
    most = wait_s + RETRIES * RETRY_S + timeout_s + 10
    ran = runner(command(tool, arguments, timeout_s, lock, wait_s, answer), most)
    text, marker, ended = ran.output.rpartition("\n%s " % _ENDED)
    if not marker:
        text = ran.output
    status = _number(ended) if marker else ran.status
    if status == _REFUSED:
        return Answer("", (problem("already_running", "axcl-smi is already running, please try later."),))
    if status == _LOCKED:
        return Answer("", (problem("lock_busy", "flock -w %d %s" % (wait_s, lock)),))
    if status in (124, 137) or (status and "timed out after" in text):
        return Answer(text, (problem("timed_out", "no answer within %g s" % timeout_s),))
    if status:
        return Answer(text, (problem("tool_failed", "exit status %d: %s" % (status, clean(text)[0].strip()[-200:])),))
    return Answer(text, ())


def read_version(
    runner: Runner, tool: str, timeout_s: float = ASK_S, lock: str = LOCK
) -> Tuple[Optional[Version], Tuple[Problem, ...]]:
    """Return the tool's version, which it tells without driver and card, and what went wrong."""
    answer = ask(runner, tool, ("-v",), timeout_s, lock)
    return parse_version(answer.text), answer.problems


def read_table(runner: Runner, tool: str, timeout_s: float = ASK_S, lock: str = LOCK) -> Table:
    """Return the table. Problems of the call come first: one that broke off may have printed half a table."""
    return table_of(ask(runner, tool, (), timeout_s, lock))


def to_text(answer: Answer) -> str:
    """Return an answer as a text that `from_text` understands: what the tool printed, and what went wrong."""
    return answer.text + "".join("\n%s %s" % (_WENT_WRONG, one.id) for one in answer.problems)


def from_text(text: str) -> Answer:
    """Return the answer that `to_text` made this text of."""
    said, *wrong = text.split("\n%s " % _WENT_WRONG)
    return Answer(said, tuple(problem(name.strip()) for name in wrong if name.strip() in _MEANING))


def table_of(answer: Answer) -> Table:
    """Return the table in an answer of the tool, what went wrong with the call included."""
    table = parse_table(answer.text)
    if answer.problems:
        told = tuple(one for one in table.problems if one.id != "no_table")
        return table._replace(problems=answer.problems + told)
    return table


def placed(table: Table, bdfs: Iterable[str]) -> Table:
    """Return the table with sysfs' addresses (BDFS): where the driver finds no PCI domain, its tool shows 0000."""
    known = set(bdfs)
    by_place = {bdf.partition(":")[2]: bdf for bdf in known}
    if len(by_place) < len(known):
        return table
    rows = (
        row
        if row.bdf is None or row.bdf in known
        else row._replace(bdf=by_place.get(row.bdf.partition(":")[2], row.bdf))
        for row in table.cards
    )
    return table._replace(cards=tuple(rows))


def compare(bdfs: Iterable[str], table: Table) -> Tuple[Tuple[str, ...], Tuple[Problem, ...]]:
    """Return the cards of the PCI bus (BDFS) that have no row, and what is wrong with the rows that there are."""
    expected = list(bdfs)
    rows = {card.bdf for card in table.cards}
    found = []
    for card in table.cards:
        where = "card %d at %s" % (card.number, card.bdf or "an unknown address")
        if card.bdf not in expected:
            found.append(
                Problem(
                    "not_on_bus",
                    "%s is in the tool's table, but the PCI bus has no such card" % where,
                    "Reload the driver: it knows the cards that were there when it was loaded.",
                    where,
                )
            )
        unknown = [
            name
            for name, value in (
                ("firmware", card.firmware),
                ("temperature", card.temperature_c),
                ("memory", card.memory_mib.total or None),
                ("CMM", card.cmm_mib.total or None),
            )
            if value is None
        ]
        if unknown:
            found.append(
                Problem(
                    "card_mute",
                    "%s has a row, but does not tell its %s" % (where, ", ".join(unknown)),
                    _DEAD[1],
                    where,
                )
            )
    return tuple(bdf for bdf in expected if bdf not in rows), tuple(found)


# ---- the kernel log -------------------------------------------------------------------------------------------------

_OWN = r"(?:^|\s)\[\w+, ?\d+\]: .*|ax_pcie|axcl|\bmmb\b"  # what makes a general sentence one of this driver's
_POWER = "Switch the host's power off and on: a reboot of the host leaves the card powered."
_EVENTS: Tuple[Tuple[str, str, str, str, Optional[str]], ...] = (
    # id, severity, pattern (device: hexadecimal bus number), summary, cure
    ("one_msi_vector", "info", r"only alloc 1 MSI interrupt", "the driver took one MSI vector, as it does", None),
    (
        "firmware_push_started",
        "info",
        r"#{3,} Dev (?P<device>[0-9a-f]+) Firmware loading",
        "the firmware is being handed to the card",
        None,
    ),
    ("firmware_pushed", "info", r"\[STATUS\]: SUCCESS", "the card has its firmware", None),
    (
        "handshake_waiting",
        "info",
        r"axcl wait dev (?P<device>[0-9a-f]+) handshake",
        "the driver waits for the firmware to come up",
        None,
    ),
    ("card_alive", "info", r"\bdevice (?P<device>[0-9a-f]+): alive!", "the card is alive again", None),
    ("card_reset", "info", r"start reset slave", "the driver resets a card", None),
    (
        "dma_buffer_smaller",
        "info",
        r"axcl.*page allocation failure: order:10",
        "no large DMA buffer was free and the driver took smaller ones, which is harmless",
        None,
    ),
    (
        "heartbeat_detail",
        "info",
        r"\bmaster: .*\bslave: .*\bruntime: .*\btimeout: ",
        "the counters behind a lost heartbeat",
        None,
    ),
    (
        "card_dead",
        "critical",
        r"\bdevice (?P<device>[0-9a-f]+): dead!",
        "the card's heartbeat was lost",
        "Stop what uses the card, then reboot the card or reload the driver. If that does not help: " + _POWER,
    ),
    (
        "handshake_timeout",
        "critical",
        r"\[step[01]\]: Handshake timeout|axcl pcie check remote device (?P<device>[0-9a-f]+) failed",
        "the firmware did not come up in its time",
        "Reload the driver. If that does not help: " + _POWER,
    ),
    (
        "firmware_missing",
        "critical",
        r"Patch file not found \S+",
        "the firmware file is missing",
        "Install the driver's package again; the file belongs into /lib/firmware/axcl.",
    ),
    (
        "firmware_push_failed",
        "critical",
        r"\[STATUS\]: FAILED|[Dd]evice (?P<device>[0-9a-f]+) firmware load failed",
        "the firmware could not be handed to the card",
        "Look for the line before it; reload the driver. If that does not help: " + _POWER,
    ),
    (
        "no_firmware_buffer",
        "critical",
        r"send buf alloc failed",
        "no 3 MiB of contiguous memory were free for the firmware",
        "Load the driver right after boot, or give the kernel contiguous memory (cma=).",
    ),
    (
        "no_shared_memory",
        "critical",
        r"failed to allocate mem space|alloc shmem space fail in master",
        "no 4 MiB of contiguous memory were free to be shared with the card",
        "Load the driver right after boot, or give the kernel contiguous memory (cma=).",
    ),
    (
        "host_memory_fragmented",
        "warning",
        r"(?:%s).*(?:dma_alloc_coherent failed|alloc pages failed|there are no free entries)" % _OWN,
        "no contiguous memory was free for a DMA buffer",
        "Free memory on the host; load the driver right after boot.",
    ),
    (
        "no_msi",
        "critical",
        r"Failed to get MSI interrupts",
        "the card got no MSI vector, so that it is bound but does not work",
        "On a Raspberry Pi 5 use dtoverlay=pciex1-compat-pi5,no-mip; elsewhere see that MSI is not switched off.",
    ),
    (
        "interrupt_refused",
        "critical",
        r"Host request msg irq failed",
        "the driver was refused its interrupt",
        "Reload the driver in order; see the kernel log for who has the interrupt.",
    ),
    (
        "bar_unmapped",
        "critical",
        r"Failed to read BAR",
        "the card's memory window could not be mapped, so that it is bound but does not work",
        "Remove the card from the PCI bus, rescan, and reload the driver.",
    ),
    (
        "bar_not_resized",
        "warning",
        r"Set pcie rebar size failed|Not enough PCI address space for a large BAR",
        "the memory window behind the bridge is too small for the card",
        "Take another slot, or let the kernel assign the windows anew (pci=realloc).",
    ),
    (
        "not_enabled",
        "critical",
        r"(?:%s).*(?:Enable pci device failed|Request pci region failed)" % _OWN,
        "the card could not be taken by its driver",
        "See that its memory windows are assigned and no other driver (vfio) has it.",
    ),
    (
        "too_many_cards",
        "critical",
        r"error: too many devices!",
        "there are more cards than the driver can serve",
        "Remove cards.",
    ),
    (
        "ports_refused",
        "critical",
        r"Recv port ack timeout|slave port create failed|axcl pcie (?:port create|req port) failed",
        "the software on the card does not answer requests",
        "Stop what uses the card, then reboot the card or reload the driver.",
    ),
    (
        "ports_used_up",
        "warning",
        r"not enough port, already used \d+ ports",
        "too many processes use the card",
        "Stop some of them.",
    ),
    (
        "link_lost",
        "critical",
        r"(?:%s).*(?:PCIe bus error|PCIe message head_check error)" % _OWN,
        "what the driver reads from the card is garbage: the link is down",
        "See to seat, cooling and power of the card. " + _POWER,
    ),
    (
        "no_peer_to_peer",
        "warning",
        r"bus number\[\d+\] illegal!|p2p is not support",
        "cards cannot copy directly from one to the other here",
        "Put them behind one switch, or do without.",
    ),
    (
        "iommu_fault",
        "warning",
        r"AMD-Vi: .*IO_PAGE_FAULT|DMAR: .*DMA Write",
        "the IOMMU refused a device's access to memory",
        "If the device is the card: use driver 3.4.0 or newer, or boot with iommu=pt.",
    ),
    (
        "host_slept",
        "warning",
        r"PM: suspend entry",
        "the host went to sleep, which the card does not survive",
        "Mask sleep.target; switch the host's power off and on if the card is dead.",
    ),
)
# Each pattern needs one of these. They are looked for first, which takes a hundredth of the time, and a pattern is
# compiled when one of them is there.
_MARKERS = (
    "only alloc 1 MSI",
    "Firmware loading",
    "[STATUS]: ",
    " handshake",
    "Handshake timeout",
    ": alive!",
    ": dead!",
    "start reset slave",
    "order:10",
    "timeout: ",
    "axcl pcie",
    "Patch file not found",
    "firmware load failed",
    "send buf alloc failed",
    "failed to allocate mem space",
    "alloc shmem space fail",
    "dma_alloc_coherent failed",
    "alloc pages failed",
    "there are no free entries",
    "Failed to get MSI",
    "Host request msg irq",
    "Failed to read BAR",
    "rebar size failed",
    "for a large BAR",
    "Enable pci device failed",
    "Request pci region failed",
    "too many devices!",
    "Recv port ack timeout",
    "slave port create failed",
    "not enough port",
    "PCIe bus error",
    "head_check error",
    "bus number[",
    "p2p is not support",
    "IO_PAGE_FAULT",
    "DMA Write",
    "PM: suspend entry",
    "base_addr: 0x",
)
_STAMPS = (
    _lazy(r"\d+,\d+,(?P<micro>\d+),[^;]*;(?P<text>.*)"),  # /dev/kmsg
    _lazy(r"(?:<\d+>)?\[ *(?P<seconds>\d+\.\d+)\](?:\[ *[TC]\d+\])?(?: \S+ kernel:)? ?(?P<text>.*)"),
    _lazy(r"\[(?P<when>[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d [\d:]{8} \d{4})\] ?(?P<text>.*)"),  # dmesg -T
    _lazy(r"(?P<when>\d{4}-\d\d-\d\dT[\d:.,]{8,15}(?:[+-][\d:]{4,6}|Z)?) (?:\S+ kernel: ?)?(?P<text>.*)"),
    _lazy(r"(?P<when>[A-Z][a-z]{2} [ \d]\d [\d:]{8}(?:\.\d+)?) \S+ kernel: ?(?P<text>.*)"),  # journal, syslog
)


def _stamped(line: str) -> Tuple[Optional[float], Optional[str], str]:
    """Return seconds since boot, date and text of a line of the kernel log."""
    when: Optional[str] = None
    for _layer in range(2):  # syslog may print the kernel's own stamp behind its own
        for pattern in _STAMPS:
            match = pattern.fullmatch(line)
            if match is None:
                continue
            found = match.groupdict()
            line = found["text"]
            if found.get("seconds") is not None:
                return float(found["seconds"]), when, line
            if found.get("micro") is not None:
                return int(found["micro"]) / 1e6, when, line
            when = when or found["when"]
            break
    return None, when, line


def may_tell(line: str) -> bool:
    """Return True for a line of the kernel log that may be one of those that `parse_kernel_log` knows."""
    return any(marker in line for marker in _MARKERS)


def _marked(text: str) -> List[str]:
    """Return the lines of TEXT that may tell something, in order."""
    starts: Set[int] = set()
    for marker in _MARKERS:
        at = text.find(marker)
        while at >= 0:
            starts.add(text.rfind("\n", 0, at) + 1)
            at = text.find(marker, at + len(marker))
    ends = ((start, text.find("\n", start)) for start in sorted(starts))
    return [text[start : end if end >= 0 else len(text)] for start, end in ends]


def parse_kernel_log(text: str) -> Tuple[Event, ...]:
    """Return what the kernel log (dmesg in any of its forms, or the journal's) tells of cards and driver, in order.

    The driver says nothing when a handshake has ended well; "handshake_done" is read from what it says next.
    """
    events: List[Event] = []
    pushing: Optional[int] = None
    waiting: List[int] = []
    for line in _marked(text.replace("\r\n", "\n")):
        time_s, when, said = _stamped(_ANSI.sub("", line))
        if "base_addr: 0x" in said and waiting:
            words = "the firmware has come up and the card answers"
            events += [Event("handshake_done", "info", words, None, at, time_s, when, said.strip()) for at in waiting]
            waiting = []
            continue
        for name, severity, pattern, words, cure in _EVENTS:
            match = re.search(pattern, said)
            if match is None:
                continue
            number = match.groupdict().get("device")
            device = None if number is None else int(number, 16)
            if name == "firmware_push_started":
                pushing = device
            elif name in ("firmware_pushed", "firmware_push_failed") and device is None:
                device = pushing
            elif name == "handshake_waiting" and device is not None:
                waiting.append(device)
            elif name == "handshake_timeout":
                device = device if device is not None else next(iter(waiting[-1:]), None)
                waiting = [at for at in waiting if at != device]
            events.append(Event(name, severity, words, cure, device, time_s, when, said.strip()[:400]))
            break
    return tuple(events)
