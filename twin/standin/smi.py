# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in for axcl-smi: the vendor's layouts, filled with what the stand-in's kernel modules know.

Like the vendor's it always ends with exit status 0, prints errors to standard output, in colour and in two styles, and
refuses to run twice. The builder puts the version and a first line in front; it runs on the board's own Python.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import socket
import sys
import time
from typing import Dict, List, NamedTuple, Tuple

VERSION = "V0.0.0_00000000000000"
BUILT = "Jan  1 1970 00:00:00"

ROOT = os.environ.get("AXCL_STANDIN_ROOT", "")  # where tests have put a tree
SETTINGS = ("/usr/share/axcl-standin/defaults.conf", "/etc/axcl-standin.conf")
NODE = "/dev/axcl_host"
CARDS = "/sys/module/axcl_host/parameters/cards"
DRIVER = "/sys/bus/pci/devices/%s/driver"

DEFAULTS = {
    "tool": "answers",
    "tool_ms": "0",
    "port_ms": "200",
    "name": "AX650N",
    "temperature_c": "54",
    "cpu_percent": "2",
    "npu_percent": "0",
    "memory_mib": "148/945",
    "cmm_kib": "18876/7208960",
    "log": "after",
}
LONG_RULE = "+%s+\n" % ("-" * 96)
RULE = "+%s+%s+%s+\n" % ("-" * 41, "-" * 14, "-" * 39)
HELP = """usage: axcl-smi [<command> [<args>]] [--device] [--version] [--help]

axcl-smi System Management Interface %s

Commands
    info                                    Show device information
        --temp                                  Show SoC temperature
        --mem                                   Show memory usage
        --cmm                                   Show CMM usage
        --cpu                                   Show CPU usage
        --npu                                   Show NPU usage
    sh                                      Execute a shell command
    reboot                                  reboot device
-d, --device                            Card index [0, connected cards number - 1]
-v, --version                           Show axcl-smi version
-h, --help                              Show this help menu

"""


class Card(NamedTuple):
    """One card that the driver has given its firmware."""

    bdf: str
    alive: bool
    firmware: str

    @property
    def device(self) -> int:
        """What the vendor calls its device: the number of its bus."""
        return int(self.bdf.split(":")[1], 16)


class Ended(Exception):
    """Nothing more is printed."""


def read(path: str) -> str:
    """Return a file's text, "" if it cannot be read."""
    try:
        with open(ROOT + path, encoding="utf-8") as stream:
            return stream.read()
    except OSError:
        return ""


def settings() -> Dict[str, str]:
    """Return the settings: the defaults, the package's, the tester's."""
    chosen = dict(DEFAULTS)
    for path in SETTINGS:
        for line in read(path).splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                chosen[name.strip()] = value.strip()
    return chosen


def say(text: str) -> None:
    """Print at once, as the tool does."""
    sys.stdout.write(text)
    sys.stdout.flush()


def runtime_line(module: str, function: str, line: int, text: str) -> str:
    """Return a line of the library's log."""
    now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return "[%s][%d][E][%s][%s][%d]: %s\n" % (now, os.getpid(), module, function, line, text)


def tool_line(function: str, line: int, text: str) -> str:
    """Return a line of the tool's own log."""
    now = datetime.datetime.now().strftime("%m-%d %H:%M:%S:%f")[:-3]
    return "\x1b[1;30;31m[%s][E][smi][%s][%04d]: %s\x1b[0m\n" % (now, function, line, text)


def only_one() -> socket.socket:
    """Refuse a second instance, of whichever user; the name is free again when this process ends."""
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind("\0axcl-standin-smi" + ROOT)
    except OSError:
        say("axcl-smi is already running, please try later.\n")
        raise Ended from None
    return mark


class Session:
    """What the library knows after its start: the cards, and the line that its log prints in its own time."""

    def __init__(self, chosen: Dict[str, str]) -> None:
        self.chosen = chosen
        self.cards: List[Card] = []
        self.late = ""
        self.handle = -1
        try:
            self.handle = os.open(ROOT + NODE, os.O_RDWR)
        except OSError as error:
            number = error.errno or 0
            self._fail("0x8030010b", "init", 60, "open %s fail, errno: %d %s" % (NODE, number, os.strerror(number)))
            return
        for line in read(CARDS).splitlines():
            bdf, state, firmware = line.split()
            if os.path.lexists(ROOT + DRIVER % bdf):
                release = chosen.get("firmware") or firmware.split("_")[0][:15]
                self.cards.append(Card(bdf, state == "alive", release))
        if not self.cards:
            self._fail("0x80300181", "probe", 131, "no device connected")

    def _fail(self, code: str, function: str, line: int, text: str) -> None:
        mine = tool_line("device_manager", 20, "axcl init fail, ret = " + code)
        logged = runtime_line("device manager", function, line, text)
        if self.chosen["log"] == "cuts":
            at = mine.index("axcl init")
            say(mine[:at] + logged + mine[at:])
        else:
            say(mine)
            self.late = logged

    def reach(self, card: Card) -> bool:
        """Ask a card for its ports; a dead one takes its time and gives none."""
        if card.alive:
            return True
        time.sleep(int(self.chosen["port_ms"]) / 1000)
        text = "request ports from device %d fail, errno: %d %s"
        text %= (card.device, errno.EPERM, os.strerror(errno.EPERM))
        say(runtime_line("device manager", "request_ports", 490, text))
        return False

    def chosen_card(self, index: int) -> Card:
        """Return the card of an index that is there and answers."""
        if index >= len(self.cards):
            text = "device index %d is out of connected devices number %d" % (index, len(self.cards))
            say(tool_line("set_devices", 41, text))
            raise Ended
        card = self.cards[index]
        if not self.reach(card):
            say(tool_line("active_device_guard", 58, "active device %d fail, ret = 0x80300186" % card.device))
            raise Ended
        return card


def users() -> List[Tuple[int, str]]:
    """Return the processes that have the driver's node open, this one excepted, with their programs."""
    found = []
    for name in os.listdir(ROOT + "/proc") if os.path.isdir(ROOT + "/proc") else []:
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            handles = os.listdir("%s/proc/%s/fd" % (ROOT, name))
            if any(os.readlink("%s/proc/%s/fd/%s" % (ROOT, name, handle)) == NODE for handle in handles):
                found.append((int(name), os.readlink("%s/proc/%s/exe" % (ROOT, name))))
        except OSError:
            continue
    return sorted(found)


def table(session: Session) -> str:
    """Return the table of all cards and processes."""
    chosen = session.chosen
    used, total = chosen["memory_mib"].split("/")
    cmm_used, cmm_total = (int(part) // 1024 for part in chosen["cmm_kib"].split("/"))
    lines = [
        LONG_RULE,
        "| %-32s%30s%32s |\n" % ("AXCL-SMI  " + VERSION, "", "Driver  " + VERSION),
        RULE,
        "| Card  Name                     Firmware | Bus-Id       |                          Memory-Usage |\n",
        "| Fan   Temp                Pwr:Usage/Cap | CPU      NPU |                             CMM-Usage |\n",
        "|%s+%s+%s|\n" % ("=" * 41, "=" * 14, "=" * 39),
    ]
    for index, card in enumerate(session.cards):
        if not card.alive:
            continue
        lines.append(
            "| %4d  %-16s %16s | %12s | %18s MiB / %8s MiB |\n"
            % (index, chosen["name"], card.firmware, card.bdf.upper(), used, total)
        )
        lines.append(
            "| %4s  %4s %28s | %-6s%6s | %18d MiB / %8d MiB |\n"
            % (
                "--",
                chosen["temperature_c"] + "C",
                "-- / --",
                chosen["cpu_percent"] + "%",
                chosen["npu_percent"] + "%",
                cmm_used,
                cmm_total,
            )
        )
        lines.append(RULE)
    lines += ["\n", LONG_RULE, "| %-94s |\n" % "Processes:"]
    lines.append("| Card      PID  Process Name                                                   NPU Memory Usage |\n")
    lines.append("|%s|\n" % ("=" * 96))
    running = users() if any(card.alive for card in session.cards) else []
    lines += ["| %4d %8d  %-66s %8d KiB |\n" % (0, pid, program[:66], 160) for pid, program in running]
    return "".join(lines) + (LONG_RULE if running else "")


def info(session: Session, index: int, topics: List[str]) -> str:
    """Return the details of one topic."""
    chosen = session.chosen
    card = session.chosen_card(index)
    used, total = (int(part) for part in chosen["cmm_kib"].split("/"))
    memory_used, memory_total = (int(part) * 1024 for part in chosen["memory_mib"].split("/"))
    pairs = {
        "--temp": [("temperature", "%d" % (int(chosen["temperature_c"]) * 1000))],
        "--mem": [("MemTotal", "%d kB" % memory_total), ("MemFree", "%d kB" % (memory_total - memory_used))],
        "--cmm": [
            ("CMM Total", "%8d KiB" % total),
            ("CMM Used", "%8d KiB" % used),
            ("CMM Remain", "%8d kiB" % (total - used)),
        ],
        "--cpu": [
            ("CPU Usage (%)", "%.2f%%" % float(chosen["cpu_percent"])),
            ("Load average", "0.10 0.05 0.01 1/99 7"),
        ],
        "--npu": [("engine version", "2.6.3sp"), ("vnpu-Non", chosen["npu_percent"] + "%%")],
    }[topics[0]]
    head = ("Device ID", "%d (0x%x)" % (card.device, card.device))
    return "".join("%-20s: %s\n" % pair for pair in [head, *pairs]) + "\n"


def shell(session: Session, index: int, words: List[str]) -> str:
    """Return what a command says on the card; two files are there."""
    card = session.chosen_card(index)
    path = " ".join(words).rpartition(" ")[2]
    used, total = (int(part) for part in session.chosen["cmm_kib"].split("/"))
    if path == "/proc/ax_proc/version":
        return "Ax_Version %s\n" % card.firmware
    if path == "/proc/ax_proc/mem_cmm_info":
        return (
            "--------------------SDK VERSION-------------------\n"
            "[Axera version]: ax_cmm %s %s JK\n---CMM_USE_INFO:\n total size=%dKB(%dMB),used=%dKB(%dMB + %dKB),"
            "remain=%dKB(%dMB + %dKB),partition_number=1,block_number=23\n"
            % (
                VERSION,
                BUILT,
                total,
                total // 1024,
                used,
                used // 1024,
                used % 1024,
                total - used,
                (total - used) // 1024,
                (total - used) % 1024,
            )
        )
    if path == "/proc/ax_proc/npu/top":
        return "nputop info is empty!\n"
    return "sh: %s: not found\n" % path


def reboot(session: Session, index: int) -> None:
    """Ask, and reboot a card: it gets its firmware again."""
    if index >= len(session.cards):
        session.chosen_card(index)
    card = session.cards[index]
    say("Do you want to reboot device %d ? (y/n): " % index)
    if sys.stdin.readline().strip().lower() != "y":
        return
    try:
        os.write(session.handle, ("reboot " + card.bdf).encode("ascii"))
    except OSError as error:
        text = "reboot device %d fail, errno: %d %s" % (card.device, error.errno or 0, os.strerror(error.errno or 0))
        say(runtime_line("device manager", "reboot", 398, text))
        return
    say("reboot device %d success\n" % index)


def options(words: List[str]) -> Tuple[int, List[str]]:
    """Return the index behind -d, and the other words."""
    others: List[str] = []
    index = 0
    pending = iter(words)
    for word in pending:
        if word in ("-d", "--device"):
            index = int(next(pending, "0"))
        else:
            others.append(word)
    return index, others


def run(words: List[str]) -> None:
    """Do what the vendor's tool does with these arguments."""
    chosen = settings()
    mark = only_one()
    if chosen["tool"] == "hangs":
        while True:
            time.sleep(3600)
    time.sleep(int(chosen["tool_ms"]) / 1000)
    index, others = options(words)
    verb = others[0] if others else ""
    if verb in ("-v", "--version"):
        say("AXCL-SMI %s BUILD: %s\n" % (VERSION, BUILT))
        return
    if verb in ("-h", "--help"):
        say(HELP % VERSION)
    elif verb and verb not in ("info", "sh", "reboot"):
        kind = "Flag could not be matched: " if verb.startswith("-") else "Unknown command: "
        sys.stderr.write(kind + verb.lstrip("-") + "\n")
        verb = ""
    elif verb == "info" and others[1:] not in [[one] for one in ("--temp", "--mem", "--cmm", "--cpu", "--npu")]:
        sys.stderr.write("Group validation failed somewhere!\n")
        verb = ""
    session = Session(chosen)
    try:
        if verb == "info":
            say(info(session, index, others[1:]))
        elif verb == "sh":
            say(shell(session, index, others[1:]))
        elif verb == "reboot":
            reboot(session, index)
        else:
            for card in session.cards:
                if not session.reach(card):
                    say(runtime_line("context", "axclrtDestroyContext", 46, "nil pointer"))
            say(table(session))
    finally:
        say(session.late)
        mark.close()


def main() -> None:
    """End well, whatever happened."""
    with contextlib.suppress(Ended):
        run(sys.argv[1:])


if __name__ == "__main__":
    main()
