# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import subprocess
import time
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import axcl
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import (
    Card,
    Driver,
    Event,
    Module,
    Node,
    Process,
    Usage,
    Version,
    ask,
    compare,
    driver_problem,
    find_problems,
    find_tool,
    parse_cmm_info,
    parse_info,
    parse_kernel_log,
    parse_modules,
    parse_npu_top,
    parse_table,
    parse_version,
    read_driver,
    read_table,
    read_version,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.captured import CapturedRoot, Recorder
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.hosts import STEADY
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import FIXTURES, Tree, captured

BUSY = "/home/baiwen/ax8850-multistream-demo-check-20260918/prebuilt/linux"
RULE = "+-----------------------------------------+--------------+---------------------------------------+\n"
LONG_RULE = "+%s+\n" % ("-" * 96)
RUNTIME = "[2026-11-21 05:46:39.132][4488][E][context][axclrtDestroyContext][46]: nil pointer\n"


def sample(name: str) -> str:
    """Return a capture, with the ends of lines that it has."""
    return (FIXTURES / "axcl" / name).read_bytes().decode("utf-8")


def ids(found: Sequence[Any]) -> List[str]:
    """Return the ids of problems or events."""
    return [one.id for one in found]


def card(
    firmware: str,
    bdf: str,
    temperature: int,
    cpu: int,
    npu: int,
    memory: Tuple[int, int],
    cmm: Tuple[int, int],
    name: str = "AX650N",
) -> Card:
    """Return the first card of a table."""
    return Card(0, bdf, name, firmware, temperature, cpu, npu, Usage(*memory), Usage(*cmm))


TABLES = [
    (
        "v2.18.0-one-process",
        Version("2.18.0"),
        card("V2.18.0", "0001:81:00.0", 52, 3, 0, (181, 954), (22, 3072)),
        (Process(0, 763, "/opt/bin/axcl/axcl_run_model", False, 160),),
    ),
    (
        "v2.25.0-4gb-card",
        Version("2.25.0", "20250117163029"),
        card("V2.25.0", "0000:01:00.0", 67, 1, 0, (150, 945), (18, 2944)),
        (),
    ),
    (
        "v3.4.0-idle",
        Version("3.4.0", "20250418095028"),
        card("V3.4.0", "0000:03:00.0", 38, 1, 0, (153, 945), (18, 7040)),
        (),
    ),
    (
        "v3.6.4-pi5-idle",
        Version("3.6.4", "20250805020145"),
        card("V3.6.4", "0001:01:00.0", 41, 1, 0, (149, 945), (18, 7040)),
        (),
    ),
    (
        "v3.6.5-rk3588-54c",
        Version("3.6.5", "20250908154509"),
        card("V3.6.5", "0001:11:00.0", 54, 2, 0, (148, 945), (18, 7040)),
        (),
    ),
    (
        "v3.6.5-rk3588-81c",
        Version("3.6.5", "20250908154509"),
        card("V3.6.5", "0001:11:00.0", 81, 1, 0, (152, 945), (18, 7040)),
        (),
    ),
    (
        "v3.10.2-name-ax8850",
        Version("3.10.2", "20251111020143"),
        card("V3.10.2", "0001:01:00.0", 41, 2, 0, (148, 945), (18, 7040), "AX8850"),
        (),
    ),
    (
        "v3.16.0-16gb-busy",
        Version("3.16.0", "20260729180218"),
        card("V3.16.0", "0000:01:00.0", 60, 16, 15, (220, 945), (1094, 15232), "AX8850"),
        (Process(0, 106912, BUSY, True, 37996),),
    ),
]
each_table = pytest.mark.parametrize(("name", "version", "row", "processes"), TABLES, ids=[row[0] for row in TABLES])


def painted(cards: Sequence[Card], processes: Sequence[Process] = (), version: str = "V3.6.5_20250908154509") -> str:
    """Return the table as the tool's own format strings would print it."""

    def number(value: Optional[int], unit: str) -> str:
        return "--" if value is None else "%d%s" % (value, unit)

    lines = [
        LONG_RULE,
        "| %-32s%30s%32s |\n" % ("AXCL-SMI  " + version, "", "Driver  " + version),
        RULE,
        "| Card  Name                     Firmware | Bus-Id       |                          Memory-Usage |\n",
        "| Fan   Temp                Pwr:Usage/Cap | CPU      NPU |                             CMM-Usage |\n",
        "|=========================================+==============+=======================================|\n",
    ]
    for one in cards:
        bdf = "--" if one.bdf is None else one.bdf.upper()
        memory, cmm = one.memory_mib, one.cmm_mib
        lines += [
            "| %4d  %-16s %16s | %12s | %18d MiB / %8d MiB |\n"
            % (one.number, one.name or "--", one.firmware or "--", bdf, memory.used or 0, memory.total or 0),
            "| %4s  %4s %28s | %-6s%6s | %18d MiB / %8d MiB |\n"
            % (
                "--",
                number(one.temperature_c, "C"),
                "-- / --",
                number(one.cpu_percent, "%"),
                number(one.npu_percent, "%"),
                cmm.used or 0,
                cmm.total or 0,
            ),
            RULE,
        ]
    lines += ["\n", LONG_RULE, "| Processes:%85s|\n" % ""]
    lines.append("| Card      PID  Process Name                                                   NPU Memory Usage |\n")
    lines.append("|%s|\n" % ("=" * 96))
    for process in processes:
        row = (process.card, process.pid, process.name[:66], process.npu_memory_kib)
        lines.append("| %4d %8d  %-66s %8d KiB |\n" % row)
    return "".join(lines + ([LONG_RULE] if processes else []))


@each_table
class TestPublishedTables:
    """Every published layout, and what documentation tools and terminals do to it."""

    def test_as_published(self, name: str, version: Version, row: Card, processes: Tuple[Process, ...]) -> None:
        assert parse_table(sample("smi-table-%s.txt" % name)) == (version, (row,), processes, (), ())

    @pytest.mark.parametrize("end", ["\r\n", "\r", "\r\r\n"])
    def test_other_ends_of_lines(
        self, name: str, version: Version, row: Card, processes: Tuple[Process, ...], end: str
    ) -> None:
        text = sample("smi-table-%s.txt" % name).replace("\n", end)
        assert parse_table(text)[:3] == (version, (row,), processes)

    @pytest.mark.parametrize(
        ("what", "instead"),
        [
            (r"(?<=[^ -+=]) {2,}(?=[^ ])", "  "),  # a documentation tool has taken most blanks away
            (r"  +", "   "),
            (r"(\|\s+0  )", r"\1 "),  # one column off
            (r" \|$", "  |"),
            (r"^", "    "),  # indented
            (r"^", "> "),
            (r" \|$", ""),  # no bar at the end of a line
            (r"^\+.*\n", ""),  # no rules
        ],
    )
    def test_columns_out_of_place(
        self, name: str, version: Version, row: Card, processes: Tuple[Process, ...], what: str, instead: str
    ) -> None:
        text = re.sub(what, instead, sample("smi-table-%s.txt" % name), flags=re.M)
        if instead == "> ":
            text = text.replace("> |", "|").replace("> +", "+")
        table = parse_table(text)
        assert (table.version, table.cards, table.problems) == (version, (row,), ())
        assert [(one.pid, one.npu_memory_kib) for one in table.processes] == [
            (one.pid, one.npu_memory_kib) for one in processes
        ]

    def test_colours_anywhere(self, name: str, version: Version, row: Card, processes: Tuple[Process, ...]) -> None:
        text = sample("smi-table-%s.txt" % name)
        coloured = "\x1b[1;30;31m" + "\x1b[0m\x1b[K".join(re.split(r"(?=[ |])", text)) + "\x1b[0m"
        assert parse_table(coloured) == (version, (row,), processes, (), ())


@pytest.mark.parametrize(("name", "version", "row", "processes"), [TABLES[0], TABLES[-1]], ids=["old", "new"])
class TestEveryPlace:
    """What may happen at every character, with the two tables that have processes."""

    def test_a_log_line_may_begin_anywhere(
        self, name: str, version: Version, row: Card, processes: Tuple[Process, ...]
    ) -> None:
        text = sample("smi-table-%s.txt" % name)
        for at in range(len(text) + 1):
            table = parse_table(text[:at] + RUNTIME + text[at:])
            assert table == (version, (row,), processes, (), ()), (at, text[at - 10 : at + 10])

    def test_cut_off(self, name: str, version: Version, row: Card, processes: Tuple[Process, ...]) -> None:
        """What a call has printed that was stopped: whatever is there is right."""
        text = sample("smi-table-%s.txt" % name)
        for at in range(len(text)):
            table = parse_table(text[:at])
            for found in table.cards:
                for field, value in zip(found, row):
                    assert field in (value, None, Usage(None, None)), (at, found)
            assert set(table.processes) <= set(processes)


class TestTable:
    def test_eight_cards(self) -> None:
        cards = [
            Card(
                n, "0000:%02x:00.0" % (0x83 + n), "AX650N", "V3.6.5", 40 + n, n, 10 * n, Usage(148, 945), Usage(n, 7040)
            )
            for n in range(8)
        ]
        processes = [Process(n, 1000 + n, "/usr/bin/axllm serve | %d" % n, False, n) for n in range(8)]
        assert parse_table(painted(cards, processes))[1:] == (tuple(cards), tuple(processes), (), ())

    def test_a_card_in_the_middle_that_says_nothing(self) -> None:
        mute = Card(1, "0003:31:00.0", None, None, None, None, None, Usage(0, 0), Usage(0, 0))
        well = card("V3.6.5", "0002:21:00.0", 50, 1, 2, (1, 2), (3, 4))
        assert parse_table(painted([well, mute, well._replace(number=2)])).cards == (
            well,
            mute,
            well._replace(number=2),
        )

    def test_address_unknown(self) -> None:
        odd = card("V3.6.5", "x", 50, 1, 2, (1, 2), (3, 4))._replace(bdf=None)
        assert parse_table(painted([odd])).cards == (odd,)

    def test_second_row_is_missing(self) -> None:
        text = re.sub(r"^\|   --.*\n", "", sample("smi-table-v3.4.0-idle.txt"), flags=re.M)
        (found,) = parse_table(text).cards
        assert found == Card(
            0, "0000:03:00.0", "AX650N", "V3.4.0", None, None, None, Usage(153, 945), Usage(None, None)
        )

    @pytest.mark.parametrize("rules", [True, False])
    def test_second_row_of_one_card_is_not_given_to_the_next(self, rules: bool) -> None:
        one = card("V3.6.5", "0002:21:00.0", 50, 1, 2, (1, 2), (3, 4))
        lines = painted([one, one._replace(number=1, bdf="0003:31:00.0", temperature_c=70)]).splitlines(keepends=True)
        del lines[7 : 8 if rules else 9]
        first, second = parse_table("".join(lines)).cards
        assert (first.temperature_c, second.temperature_c) == (None, 70)

    def test_lines_that_nobody_knows(self) -> None:
        text = sample("smi-table-v3.4.0-idle.txt").replace("\n\n", "\nSomething new: 42\n| Fuse | blown |\n", 1)
        table = parse_table(text)
        assert len(table.cards) == 1
        assert table.not_understood == ("Something new: 42", "| Fuse | blown |")

    @given(
        st.lists(
            st.builds(
                Card,
                st.integers(0, 31),
                st.builds(
                    "{:04x}:{:02x}:{:02x}.{}".format,
                    st.integers(0, 0xFFFF),
                    st.integers(0, 255),
                    st.integers(0, 31),
                    st.integers(0, 7),
                ),
                st.sampled_from(["AX650N", "AX8850", None]),
                st.sampled_from(["V3.6.5", "V3.10.2", None]),
                st.none() | st.integers(-40, 125),
                st.none() | st.integers(0, 100),
                st.none() | st.integers(0, 100),
                st.builds(Usage, st.integers(0, 99999999), st.integers(0, 99999999)),
                st.builds(Usage, st.integers(0, 99999999), st.integers(0, 99999999)),
            ),
            max_size=8,
        ),
        st.lists(
            st.builds(
                Process,
                st.integers(0, 31),
                st.integers(1, 4194304),
                st.from_regex(r"/[a-z0-9/ |.:-]{0,58}[a-z]", fullmatch=True),
                st.just(False),
                st.integers(0, 16777216),
            ),
            max_size=4,
        ),
    )
    @STEADY
    def test_what_is_printed_is_read(self, cards: List[Card], processes: List[Process]) -> None:
        table = parse_table(painted(cards, processes))
        assert table[1:] == (tuple(cards), tuple(processes), (), ())

    @given(st.text(alphabet="| -+=/0:.C%MiBKV\n\x1b[m\raX", max_size=400))
    @STEADY
    def test_never_raises(self, text: str) -> None:
        parse_table(text)
        parse_info(text)
        parse_cmm_info(text)
        parse_npu_top(text)
        parse_kernel_log(text)

    def test_long_rubbish_takes_no_time(self) -> None:
        start = time.process_time()
        for text in ("|" * 20000, "| 0 " * 5000, "a|0000:01:00.0|" * 2000, "-- / " * 4000, " " * 20000, "1 1 " * 5000):
            parse_table(text)
            parse_kernel_log(text)
        assert time.process_time() - start < 10


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("smi-error-no-driver.txt", [("no_driver", None)]),
            ("smi-error-no-driver-v3.6.4.txt", [("no_driver", None)]),
            ("smi-error-no-device.txt", [("no_card", None)]),
            ("smi-error-no-device-interleaved.txt", [("no_card", None)]),
            ("smi-error-v2.25-no-device-pi5.txt", [("no_card", None)]),
            ("smi-error-dead-card-table.txt", [("dead_card", 49)]),
            ("smi-error-dead-card-info.txt", [("dead_card", 49)]),
            ("smi-error-already-running.txt", [("already_running", None)]),
            ("smi-error-bad-frequency.stderr.txt", [("bad_frequency", None)]),
            ("smi-reboot-fail.txt", [("reboot_failed", 49)]),
            ("smi-reboot-prompt-declined.txt", []),
            ("smi-help-v3.10.2.txt", [("no_driver", None)]),
            ("run-model-error-no-driver.stdout.txt", [("no_driver", None)]),
            ("run-model-error-no-driver.stderr.txt", []),
            ("run-model-error-dead-card.stdout.txt", [("dead_card", 49)]),
            ("runtime-log-comm-error.txt", [("communication_lost", None)]),
            ("smi-set-freq-dev1.txt", []),
            ("smi-set-freq-dev129.txt", []),
            ("smi-log-dump-dev129.txt", []),
            ("smi-proc-venc.txt", []),
        ],
    )
    def test_as_printed(self, name: str, found: List[Tuple[str, Optional[int]]]) -> None:
        text = sample(name)
        assert [(one.id, one.device) for one in find_problems(text)] == found
        assert [(one.id, one.device) for one in find_problems(text.replace("\n", "\r\n"))] == found

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            (
                "open /dev/axcl_host fail, errno: 13 Permission denied\naxcl init fail, ret = 0x8030010b",
                ["no_permission"],
            ),
            ("axcl init fail, ret = 0x8030010b", ["no_driver"]),
            ("[ERROR] Init axcl failed{0x8030010B}.", ["no_driver"]),
            ("axcl init fail, ret = 0x80300181", ["no_card"]),
            ("active device 49 fail, ret = 0x80300186", ["dead_card"]),
            ("device index 3 is out of connected devices number 1", ["no_such_index"]),
            ("device index 0 is out of connected devices number 0", []),
            ("[ERROR] Specified device index{5} is out of range{total 1}.", ["no_such_index"]),
            ("Unknown command: bogus", ["unknown_command"]),
            ("Flag could not be matched: --bogus", ["bad_option"]),
            ("Group validation failed somewhere!", ["incomplete_command"]),
            ("something, ret = 0x80300105", ["axcl_error"]),
            ("all is well", []),
            ("", []),
        ],
    )
    def test_sentences(self, text: str, found: List[str]) -> None:
        assert ids(find_problems(text)) == found

    def test_a_code_is_explained(self) -> None:
        (found,) = find_problems("ret = 0x80300105")
        assert found.summary == "the AXCL library reports an error: 0x80300105, timed out"

    def test_two_dead_cards_are_two_problems_and_each_is_told_once(self) -> None:
        text = sample("smi-error-dead-card-table.txt")
        found = find_problems(text + text + text.replace("device 49", "device 65"))
        assert [(one.id, one.device) for one in found] == [("dead_card", 49), ("dead_card", 65)]
        assert found[0].summary.endswith("(the card on PCI bus 31)")
        assert "request ports from device 49" in found[0].evidence
        assert all(one.remedy.endswith(".") for one in found)

    @pytest.mark.parametrize("name", ["no-driver", "no-device", "dead-card-table"])
    def test_table_without_rows(self, name: str) -> None:
        table = parse_table(sample("smi-error-%s.txt" % name))
        assert table.version == Version("3.10.2", "20251215140224")
        assert (table.cards, table.processes, table.not_understood) == ((), (), ())
        assert len(table.problems) == 1

    def test_help_and_table(self) -> None:
        table = parse_table(sample("smi-help-v3.10.2.txt"))
        assert (table.version, table.cards, table.not_understood) == (Version("3.10.2", "20251215140224"), (), ())

    @pytest.mark.parametrize("name", ["info", "watch"])
    def test_next_generation_is_named_and_not_misread(self, name: str) -> None:
        text = sample("smi-ax8860-%s.txt" % name)
        table, info = parse_table(text), parse_info(text)
        assert (ids(table.problems), table.cards) == (["next_generation"], ())
        assert ids(info.problems) == ["next_generation"]
        assert (info.cmm_total_kib, info.memory_kib, info.npu_percent) == (None, {}, {})

    def test_no_table_at_all(self) -> None:
        assert ids(parse_table("Segmentation fault\n").problems) == ["no_table"]
        assert ids(parse_table("").problems) == ["no_table"]

    def test_every_problem_has_its_words(self) -> None:
        for name, _pattern in axcl._SAID:
            assert axcl.problem(name).summary


class TestDetails:
    @pytest.mark.parametrize(
        ("name", "version"),
        [
            ("smi-version-v2.26.1.txt", Version("2.26.1", None, "Feb 13 2025 11:08:47")),
            ("smi-version-v3.6.5.txt", Version("3.6.5", "20250908154509", "Sep  8 2025 16:14:02")),
            ("smi-version-v3.10.2.txt", Version("3.10.2", "20251215140224", "Dec 15 2025 14:29:02")),
            ("smi-error-already-running.txt", None),
        ],
    )
    def test_version(self, name: str, version: Optional[Version]) -> None:
        assert parse_version(sample(name)) == version

    @pytest.mark.parametrize(
        ("name", "device", "sizes"),
        [
            ("smi-info-cmm-dev129.txt", 129, (3145728, 18876, 3126852)),
            ("smi-info-cmm-dev17.txt", 17, (7208960, 18876, 7190084)),
        ],
    )
    def test_cmm(self, name: str, device: int, sizes: Tuple[int, int, int]) -> None:
        info = parse_info(sample(name))
        assert (info.device, info[2:5]) == (device, sizes)
        assert (info.problems, info.not_understood, info.memory_kib, info.npu_percent) == ((), (), {}, {})

    def test_other_topics(self) -> None:
        """Their lines are those of the tool's format strings."""
        head = "Device ID           : 49 (0x31)\n"
        assert parse_info(head + "temperature         : 41000\n\n").temperature_c == 41.0
        assert parse_info(head + "temperature         : --\n\n").temperature_c is None
        cpu = parse_info(
            head + "CPU Usage (%)       : 2.40%\nCPU                 :   1.2% usr  1.2% sys 97.6% idle\n"
            "Load average        : 0.10 0.05 0.01 1/120 345\n\n"
        )
        assert (cpu.cpu_percent, cpu.load_average, cpu.not_understood) == (2.4, (0.1, 0.05, 0.01), ())
        memory = parse_info(head + "MemTotal            : 968000 kB\nHugePages_Total     : 0\n\n")
        assert (memory.memory_kib, memory.device) == ({"MemTotal": 968000, "HugePages_Total": 0}, 49)
        npu = parse_info(head + "engine version      : 2.6.3sp\nvnpu-Non            : 81%%\n\n")
        assert (npu.npu_version, npu.npu_percent, npu.not_understood) == ("2.6.3sp", {"vnpu-Non": 81}, ())

    def test_dead_card_and_rubbish(self) -> None:
        info = parse_info(sample("smi-error-dead-card-info.txt") + "nonsense\nCMM Total : lots\n")
        assert (ids(info.problems), info.cmm_total_kib, info.not_understood) == (["dead_card"], None, ("nonsense",))

    def test_cmm_info(self) -> None:
        info = parse_cmm_info(sample("smi-sh-mem-cmm-info-4gb.txt"))
        assert info.firmware == Version("2.26.0", "20250211193319", "Feb 11 2025 19:52:13")
        assert info[1:4] == (3145728, 18876, 3126852)
        assert (len(info.blocks), info.blocks[0], sum(block.kib for block in info.blocks)) == (
            23,
            ("TDP_DEV", 80),
            18876,
        )
        assert info.problems == ()

    def test_no_cmm_info(self) -> None:
        assert parse_cmm_info(sample("smi-error-dead-card-info.txt"))[:5] == (None, None, None, None, ())

    def test_version_on_the_card(self) -> None:
        assert axcl.parse_card_version(sample("smi-proc-venc.txt")) == Version(
            "3.6.3", "20250722020142", "Jul 22 2025 02:22:04"
        )

    def test_npu_top(self) -> None:
        top = parse_npu_top(sample("card-npu-top-98.txt"))
        assert top == ((axcl.NpuCore("vnpu-Non", 98, 2237, 1000000),), True, ())

    @pytest.mark.parametrize(
        ("text", "enabled"),
        [
            ("nputop info is empty!\n", True),
            ("nputop info not updated over 3000 ms!\n", True),
            ("nputop info is not enabled!\n", False),
            ("cat: no such file\n", None),
        ],
    )
    def test_npu_top_without_cores(self, text: str, enabled: Optional[bool]) -> None:
        assert parse_npu_top(text)[:2] == ((), enabled)


class TestDriver:
    LOADED = (
        "ax_pcie_p2p_rc 16384 0 - Live 0x0000000000000000 (OE)\n"
        "axcl_host 24576 0 - Live 0x0000000000000000 (OE)\n"
        "nvme 49152 1 - Live 0x0000000000000000\n"
        "ax_pcie_mmb 16384 0 - Live 0x0000000000000000 (OE)\n"
        "ax_pcie_msg 16384 1 axcl_host, Live 0x0000000000000000 (OE)\n"
        "ax_pcie_host_dev 20480 4 ax_pcie_p2p_rc,axcl_host,ax_pcie_mmb,ax_pcie_msg, Live 0x0000000000000000 (OE)\n"
    )

    def test_modules_in_the_order_of_their_loading(self) -> None:
        assert [module.name for module in parse_modules(self.LOADED)] == list(axcl.MODULES[:5])
        assert {module.state for module in parse_modules(self.LOADED)} == {"Live"}

    def test_none(self, tree: Tree) -> None:
        assert read_driver(tree.root) == Driver((), ())
        found = driver_problem(read_driver(tree.root))
        assert found is not None and found.id == "no_driver"

    def test_still_loading(self, tree: Tree) -> None:
        tree.file("/proc/modules", self.LOADED.replace("0 - Live", "1 - Loading", 2))
        found = driver_problem(read_driver(tree.root))
        assert found is not None
        assert (found.id, found.evidence) == ("driver_loading", "/proc/modules: axcl_host Loading")

    def test_no_node(self, tree: Tree) -> None:
        tree.file("/proc/modules", self.LOADED)
        found = driver_problem(read_driver(tree.root))
        assert found is not None and found.id == "node_missing"

    def test_all_there(self, tree: Tree) -> None:
        tree.file("/proc/modules", self.LOADED)
        tree.file("/dev/axcl_host")
        tree.file("/dev/p2p")
        os.chmod(tree.path / "dev/axcl_host", 0o666)
        os.chmod(tree.path / "dev/p2p", 0o640)
        driver = read_driver(tree.root)
        assert driver_problem(driver) is None
        me = (str(os.geteuid()), str(os.stat(tree.path / "dev/p2p").st_gid))
        assert driver.nodes == (Node("/dev/axcl_host", "0666", *me), Node("/dev/p2p", "0640", *me))

    def test_node_of_the_live_system(self) -> None:
        node = axcl.read_node(axcl.Root("/"), "/dev/null")
        assert node == Node("/dev/null", "0666", "root", "root")
        assert axcl.read_node(axcl.Root("/"), "/etc/passwd") is None

    def test_node_of_a_bundle(self, tree: Tree) -> None:
        """Its mode is told, and not whose it was."""
        tree.file("/dev/p2p")
        os.chmod(tree.path / "dev/p2p", 0o666)
        recorder = Recorder(str(tree.path))
        assert read_driver(recorder) == read_driver(tree.root)
        assert read_driver(CapturedRoot(recorder.captured)).nodes == (Node("/dev/p2p", "0666", None, None),)

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("axcl_host 24576 3 ax_a,ax_b, Live 0x0 (OE)\n", 1),
            ("axcl_host 24576 0 - Live 0x0\n", 0),
            ("axcl_host 24576 2 - Live 0x0\n", 2),
            ("axcl_host 24576 2 ax_a,ax_b, Live 0x0\n", 0),
            ("axcl_host 24576 - - Live 0x0\n", None),
            ("axcl_hosts 24576 2 - Live 0x0\n", None),
            ("", None),
        ],
    )
    def test_how_often_it_is_open(self, line: str, expected: Optional[int]) -> None:
        assert axcl.parse_open_count("nvme 49152 1 - Live 0x0\n" + line) == expected

    def test_owner_without_a_name(self) -> None:
        assert axcl._owner(4000000000, axcl.pwd.getpwuid) == "4000000000"

    @pytest.mark.parametrize("path", axcl.TOOLS)
    def test_tool(self, tree: Tree, path: str) -> None:
        assert find_tool(tree.root) is None
        tree.file(path)
        assert find_tool(tree.root) == path

    def test_rows_and_the_bus(self) -> None:
        table = parse_table(sample("smi-table-v3.6.5-rk3588-54c.txt"))
        assert compare(["0001:11:00.0"], table) == ((), ())
        missing, odd = compare(["0003:31:00.0"], table)
        assert (missing, ids(odd)) == (("0003:31:00.0",), ["not_on_bus"])
        assert odd[0].summary.startswith("card 0 at 0001:11:00.0 is in the tool's table, but")

    def test_row_that_tells_nothing(self) -> None:
        mute = Card(1, "0003:31:00.0", "AX650N", None, None, None, None, Usage(0, 0), Usage(0, 0))
        missing, odd = compare(["0003:31:00.0"], parse_table(painted([mute])))
        assert (missing, ids(odd)) == ((), ["card_mute"])
        assert "does not tell its firmware, temperature, memory, CMM" in odd[0].summary

    def test_card_at_no_degrees_tells_its_temperature(self) -> None:
        cold = card("V3.6.5", "0003:31:00.0", 0, 1, 0, (1, 945), (18, 7040))
        assert compare(["0003:31:00.0"], parse_table(painted([cold]))) == ((), ())


class Done(NamedTuple):
    """What a runner returns."""

    status: int
    output: str


def really(argv: Sequence[str], timeout_s: float) -> Done:
    """Run a command as the agent does."""
    done = subprocess.run(argv, timeout=timeout_s, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return Done(done.returncode, done.stdout.decode("utf-8", "replace"))


@pytest.fixture
def lock(tmp_path: pathlib.Path) -> str:
    """A lock file that nobody has."""
    return str(tmp_path / "lock")


class TestAsking:
    """With the real shell, timeout and flock."""

    def tool(self, tmp_path: pathlib.Path, body: str) -> str:
        path = tmp_path / "axcl-smi"
        path.write_text("#!/bin/sh\n" + body, encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    def test_both_streams_and_the_arguments(self, tmp_path: pathlib.Path, lock: str) -> None:
        tool = self.tool(tmp_path, "printf '%s\\n' \"$@\"; echo wrong >&2; cat\n")
        assert ask(really, tool, ("sh", "cat /a b"), 10, lock) == ("sh\ncat /a b\nwrong\n", ())

    @pytest.mark.parametrize("text", ["", "one", "one\n", "\n\n", "a\\tb\n  c \n"])
    def test_output_comes_through_unchanged(self, tmp_path: pathlib.Path, lock: str, text: str) -> None:
        (tmp_path / "said").write_text(text, encoding="utf-8")
        tool = self.tool(tmp_path, "cat %s/said\n" % tmp_path)
        answer = ask(really, tool, (), 10, lock)
        assert (answer.text.rstrip("\n"), answer.problems) == (text.rstrip("\n"), ())

    def test_refused_once(self, tmp_path: pathlib.Path, lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(axcl, "RETRY_S", 0.1)
        here = str(tmp_path)
        tool = self.tool(
            tmp_path,
            "if [ -e %s/second ]; then cat %s; else : >%s/second; cat %s; fi\n"
            % (
                here,
                FIXTURES / "axcl" / "smi-table-v3.4.0-idle.txt",
                here,
                FIXTURES / "axcl" / "smi-error-already-running.txt",
            ),
        )
        table = read_table(really, tool, 10, lock)
        assert ([one.bdf for one in table.cards], table.problems) == (["0000:03:00.0"], ())

    def test_refused_for_ever(self, tmp_path: pathlib.Path, lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(axcl, "RETRY_S", 0.01)
        count = tmp_path / "count"
        tool = self.tool(tmp_path, "echo x >>%s; echo 'axcl-smi is already running, please try later.'\n" % count)
        table = read_table(really, tool, 10, lock)
        assert ids(table.problems) == ["already_running"]
        assert len(count.read_text("utf-8").split()) == 1 + axcl.RETRIES

    def test_hangs(self, tmp_path: pathlib.Path, lock: str) -> None:
        tool = self.tool(tmp_path, "cat %s; sleep 60\n" % (FIXTURES / "axcl" / "smi-error-dead-card-table.txt"))
        start = time.monotonic()
        table = read_table(really, tool, 0.3, lock)
        assert time.monotonic() - start < 20
        assert [(one.id, one.device) for one in table.problems] == [("timed_out", None), ("dead_card", 49)]

    def test_hangs_and_will_not_end(self, tmp_path: pathlib.Path, lock: str) -> None:
        tool = self.tool(tmp_path, "trap '' TERM\nwhile :; do sleep 0.1; done\n")
        assert ids(ask(really, tool, (), 0.2, lock).problems) == ["timed_out"]

    def test_outer_limit(self, lock: str) -> None:
        def stuck(argv: Sequence[str], timeout_s: float) -> Done:
            assert timeout_s > axcl.LOCK_WAIT_S + 60
            return Done(127, "Command '['sh']' timed out after %s seconds" % timeout_s)

        assert ids(ask(stuck, "/usr/bin/axcl/axcl-smi", (), 60, lock).problems) == ["timed_out"]
        assert ids(ask(lambda argv, limit: Done(124, ""), "x").problems) == ["timed_out"]

    def test_cannot_be_run(self, tmp_path: pathlib.Path, lock: str) -> None:
        (found,) = ask(really, str(tmp_path / "nothing"), (), 5, lock).problems
        assert found.id == "tool_failed"
        assert found.evidence.startswith("exit status 127: ")

    def test_broke_off(self, tmp_path: pathlib.Path, lock: str) -> None:
        table = read_table(really, self.tool(tmp_path, "echo half; exit 3\n"), 5, lock)
        assert (ids(table.problems), table.problems[0].evidence) == (["tool_failed"], "exit status 3: half")

    def test_one_after_the_other(self, tmp_path: pathlib.Path, lock: str) -> None:
        running = tmp_path / "running"
        tool = self.tool(
            tmp_path,
            "if ! mkdir %s 2>/dev/null; then echo 'axcl-smi is already running, please try later.'; exit; fi\n"
            "sleep 0.3; rmdir %s; echo 'AXCL-SMI V3.6.5 BUILD: Sep  8 2025 16:14:02'\n" % (running, running),
        )
        calls = [
            subprocess.Popen(axcl.command(tool, ("-v",), 10, lock), stdout=subprocess.PIPE) for _number in range(4)
        ]
        start = time.monotonic()
        said = [call.communicate()[0].decode("ascii") for call in calls]
        assert [parse_version(text) for text in said] == [Version("3.6.5", None, "Sep  8 2025 16:14:02")] * 4
        assert time.monotonic() - start < 4 * axcl.RETRY_S, "they waited for each other, and not for a refusal"

    def test_lock_is_held(self, tmp_path: pathlib.Path, lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(axcl, "LOCK_WAIT_S", 0)
        tool = self.tool(tmp_path, "touch %s/called\n" % tmp_path)
        with open(lock, "w", encoding="ascii") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            assert ids(ask(really, tool, (), 5, lock).problems) == ["lock_busy"]
        assert not (tmp_path / "called").exists()

    def test_lock_ends_with_the_call_even_if_the_tool_leaves_something_behind(
        self, tmp_path: pathlib.Path, lock: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(axcl, "LOCK_WAIT_S", 0)
        tool = self.tool(tmp_path, "sleep 3 >/dev/null 2>&1 &\necho done\n")
        assert ask(really, tool, (), 5, lock) == ("done\n", ())
        assert ask(really, tool, (), 5, lock) == ("done\n", ())

    def test_lock_that_may_not_be_had(self, tmp_path: pathlib.Path) -> None:
        tool = self.tool(tmp_path, "echo done\n")
        assert ask(really, tool, (), 5, str(tmp_path / "no" / "lock")) == ("done\n", ())

    def test_lock_is_nobody_else_s(self, tmp_path: pathlib.Path, lock: str) -> None:
        ask(really, self.tool(tmp_path, ":\n"), (), 5, lock)
        assert os.stat(lock).st_mode & 0o777 == 0o600

    def test_version(self, tmp_path: pathlib.Path, lock: str) -> None:
        tool = self.tool(tmp_path, '[ "$*" = -v ] && cat %s\n' % (FIXTURES / "axcl" / "smi-version-v3.6.5.txt"))
        found = Version("3.6.5", "20250908154509", "Sep  8 2025 16:14:02")
        assert read_version(really, tool, 5, lock) == (found, ())


GOOD_START = """\
[    9.100000] only alloc 1 MSI interrupt, cannot support pci-net
[    9.200000] [ax_get_slot_index, 88]: busnr:49,devfn:0,slot:49.
[   10.000000] ax pcie msg init
[   11.000000] ############### Dev 31 Firmware loading ##############
[   11.000100] =====================PAC Header=====================
[   11.000200] nMagic: 0x1, nPacVer: 1
[   21.500000] [STATUS]: SUCCESS
[   21.600000] [axcl_pcie_host_init, 702]: axcl wait dev 31 handshake...
[   41.000000] base_addr: 0x900000000, size: 0x400000
"""


class TestKernelLog:
    def test_sleep(self) -> None:
        events = parse_kernel_log(sample("dmesg-suspend-dead.txt"))
        assert [(event.id, event.severity, event.device, event.time_s) for event in events] == [
            ("card_dead", "critical", 4, 2065.530453),
            ("card_dead", "critical", 4, 2086.012066),
            ("host_slept", "warning", None, 2103.682752),
            ("card_dead", "critical", 4, 2106.493464),
        ]
        assert events[0].line == "[heartbeat_recv_thread, 578]: device 4: dead!"

    @pytest.mark.parametrize("name", ["dmesg-cma-reserved.txt", "dmesg-cma-reserved-kylin.txt"])
    def test_nothing_of_ours(self, name: str) -> None:
        assert parse_kernel_log(sample(name)) == ()

    def test_good_start(self) -> None:
        assert [(event.id, event.device, event.time_s) for event in parse_kernel_log(GOOD_START)] == [
            ("one_msi_vector", None, 9.1),
            ("firmware_push_started", 0x31, 11.0),
            ("firmware_pushed", 0x31, 21.5),
            ("handshake_waiting", 0x31, 21.6),
            ("handshake_done", 0x31, 41.0),
        ]
        assert {event.severity for event in parse_kernel_log(GOOD_START)} == {"info"}

    def test_a_handshake_is_done_once(self) -> None:
        last = GOOD_START.splitlines(keepends=True)[-1]
        assert len(parse_kernel_log(GOOD_START + last)) == len(parse_kernel_log(GOOD_START))

    def test_handshake_timeout_is_no_success(self) -> None:
        text = GOOD_START.replace(
            "[   41.000000]",
            "[  141.000000] [step0]: Handshake timeout!\n"
            "[  142.000000] axcl pcie check remote device 31 failed\n[  143.000000]",
        )
        events = parse_kernel_log(text)
        assert [(event.id, event.device) for event in events[4:]] == [
            ("handshake_timeout", 0x31),
            ("handshake_timeout", 0x31),
        ]

    def test_two_cards_one_fails(self) -> None:
        text = (
            "############### Dev 31 Firmware loading ##############\n[STATUS]: SUCCESS\n"
            "############### Dev 41 Firmware loading ##############\n[STATUS]: FAILED[-5]\n"
            "Device 41 firmware load failed.\n[f, 1]: axcl wait dev 31 handshake...\nbase_addr: 0x1, size: 0x2\n"
        )
        assert [(event.id, event.device) for event in parse_kernel_log(text)] == [
            ("firmware_push_started", 0x31),
            ("firmware_pushed", 0x31),
            ("firmware_push_started", 0x41),
            ("firmware_push_failed", 0x41),
            ("firmware_push_failed", 0x41),
            ("handshake_waiting", 0x31),
            ("handshake_done", 0x31),
        ]

    @pytest.mark.parametrize(
        ("stamp", "time_s", "when"),
        [
            ("[    5.140900] ", 5.1409, None),
            ("<4>[    5.140900] ", 5.1409, None),
            ("[    5.140900][  T123] ", 5.1409, None),
            ("[    5.140900] nas kernel: ", 5.1409, None),
            ("4,812,5140900,-;", 5.1409, None),
            ("[Fri Nov 20 05:00:01 2026] ", None, "Fri Nov 20 05:00:01 2026"),
            ("Nov 20 05:00:01 nas kernel: ", None, "Nov 20 05:00:01"),
            ("Nov  2 05:00:01 nas kernel: [    5.140900] ", 5.1409, "Nov  2 05:00:01"),
            ("2026-11-20T05:00:01.123456+00:00 nas kernel: ", None, "2026-11-20T05:00:01.123456+00:00"),
            ("2026-11-20T05:00:01,123456+00:00 ", None, "2026-11-20T05:00:01,123456+00:00"),
            ("", None, None),
        ],
    )
    def test_stamps(self, stamp: str, time_s: Optional[float], when: Optional[str]) -> None:
        line = "[heartbeat_recv_thread, 578]: device 1f: dead!"
        (event,) = parse_kernel_log(stamp + line + "\n")
        assert (event.id, event.device, event.time_s, event.when, event.line) == ("card_dead", 0x1F, time_s, when, line)

    @pytest.mark.parametrize(
        ("line", "name"),
        [
            ("[probe, 1]: Enable pci device failed", "not_enabled"),
            ("[probe, 1]: Request pci region failed", "not_enabled"),
            ("[x, 1]: Set pcie rebar size failed", "bar_not_resized"),
            ("[x, 1]: Not enough PCI address space for a large BAR", "bar_not_resized"),
            ("[x, 1]: Failed to get MSI interrupts. err: -28", "no_msi"),
            ("[x, 1]: Failed to read BAR", "bar_unmapped"),
            ("failed to allocate mem space", "no_shared_memory"),
            ("alloc shmem space fail in master", "no_shared_memory"),
            ("error: too many devices!", "too_many_cards"),
            ("Host request msg irq failed!", "interrupt_refused"),
            ("send buf alloc failed, -12", "no_firmware_buffer"),
            ("Patch file not found axcl/ax650_card.pac.", "firmware_missing"),
            ("[STATUS]: FAILED[3]", "firmware_push_failed"),
            ("[step1]: Handshake timeout!", "handshake_timeout"),
            ("master: 1, slave: 2, runtime: 3, timeout: 9000", "heartbeat_detail"),
            ("Recv port ack timeout.", "ports_refused"),
            ("slave port create failed.", "ports_refused"),
            ("axcl pcie port create failed.", "ports_refused"),
            ("axcl pcie req port failed.", "ports_refused"),
            ("not enough port, already used 128 ports", "ports_used_up"),
            ("[x, 1]: PCIe bus error", "link_lost"),
            ("[x, 1]: PCIe message head_check error", "link_lost"),
            ("[x, 1]: dma_alloc_coherent failed", "host_memory_fragmented"),
            ("ax_pcie_mmb: there are no free entries", "host_memory_fragmented"),
            ("bus number[300] illegal!", "no_peer_to_peer"),
            ("p2p is not support", "no_peer_to_peer"),
            ("axcl-smi: page allocation failure: order:10, mode:0xcc4", "dma_buffer_smaller"),
            ("DMAR: [DMA Write] Request device [03:00.0] fault addr 0x0", "iommu_fault"),
            ("AMD-Vi: Event logged [IO_PAGE_FAULT device=03:00.0]", "iommu_fault"),
            ("device 31: alive!", "card_alive"),
            ("start reset slave", "card_reset"),
        ],
    )
    def test_what_the_driver_says(self, line: str, name: str) -> None:
        (event,) = parse_kernel_log("[    1.000000] " + line)
        assert (event.id, event.line) == (name, line)
        assert (event.cure is None) == (event.severity == "info")

    @pytest.mark.parametrize(
        "line",
        [
            "pcieport 0003:30:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer",
            "rockchip-drm: dma_alloc_coherent failed",
            "nvme 0000:01:00.0: Enable pci device failed",
            "kworker: page allocation failure: order:10, mode:0x0",
            "usb 1-1: device 31 alive",
            "base_addr: 0x1, size: 0x2",
        ],
    )
    def test_what_others_say(self, line: str) -> None:
        assert parse_kernel_log("[    1.000000] " + line) == ()

    def test_found_in_the_midst_of_others(self) -> None:
        """Lines are looked for by their marks: first, last, and next to each other."""
        lines = ["[1.0] device 31: dead!", "[2.0] x", "[3.0] device 31: dead!", "[4.0] device 31: alive!", "[5.0] y"]
        for more in ([], ["[6.0] [STATUS]: SUCCESS"]):
            events = parse_kernel_log("\n".join(lines + more))
            assert [event.time_s for event in events] == [1.0, 3.0, 4.0, 6.0][: 3 + len(more)]

    def test_a_long_log_is_read_in_no_time(self) -> None:
        log = "".join("[%d.0] systemd[1]: Started Service Number %d.\n" % (at, at) for at in range(40000))
        started = time.process_time()
        assert [event.id for event in parse_kernel_log(log + "[9.0] device 31: dead!\n" + log)] == ["card_dead"]
        assert time.process_time() - started < 2, "by patterns it takes ten times as long"

    def test_every_grave_event_has_a_cure(self) -> None:
        for name, severity, _pattern, words, cure in axcl._EVENTS:
            assert severity in ("info", "warning", "critical")
            assert words and (severity == "info" or cure), name

    def test_event_is_plain(self) -> None:
        (event,) = parse_kernel_log("Patch file not found axcl/ax650_card.pac.\r\n")
        assert event == Event(
            "firmware_missing",
            "critical",
            "the firmware file is missing",
            "Install the driver's package again; the file belongs into /lib/firmware/axcl.",
            None,
            None,
            None,
            "Patch file not found axcl/ax650_card.pac.",
        )


@pytest.mark.parametrize("wrong", [(), ("timed_out",), ("timed_out", "lock_busy")])
def test_answer_as_text(wrong: Sequence[str]) -> None:
    said = axcl.Answer("| a |\n| b |\n", tuple(axcl.problem(name) for name in wrong))
    assert axcl.from_text(axcl.to_text(said)) == said
    assert axcl.from_text("x\nedgenpu-tuning: went wrong: by a stranger").problems == ()


def test_every_capture_is_used() -> None:
    text = pathlib.Path(__file__).read_text(encoding="utf-8")
    for path in (FIXTURES / "axcl").glob("*.txt"):
        short = path.stem[len("smi-table-") :] if path.name.startswith("smi-table-") else path.stem
        parts = (path.name, '"%s"' % short, short.replace("smi-error-", ""), short.rpartition("-")[2])
        assert any(part in text for part in parts), path.name


def test_captured_modules_are_named_tuples() -> None:
    assert Module("axcl_host", "Live")._asdict() == {"name": "axcl_host", "state": "Live"}
    assert captured("axcl/card-npu-top-98.txt").startswith("core:")
