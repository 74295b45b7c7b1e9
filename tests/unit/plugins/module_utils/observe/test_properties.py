# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for every mask, list, /proc/interrupts and configuration space, also for broken ones.

A few hundred inputs for each test, always the same. EDGENPU_EXAMPLES=1000000 makes it a million in all, others each
time (see CONTRIBUTING.md).
"""

from __future__ import annotations

import os
import struct
from typing import Any, Callable, Dict, List, Tuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import cpumask, interrupts, pci
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import (
    InterruptLine,
    ProcInterrupts,
    parse_proc_interrupts,
)
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import (
    FIXTURES,
    captured,
    config_space,
    hex_dump,
    pcie,
)

ASKED = os.environ.get("EDGENPU_EXAMPLES")
TESTS = 17  # in this file, each with its part of what is asked for
EXAMPLES = settings(
    max_examples=-(-int(ASKED) // TESTS) if ASKED else 100,
    deadline=None,
    database=None,
    derandomize=not ASKED,
    suppress_health_check=list(HealthCheck) if ASKED else [HealthCheck.too_slow],
)


def holds(strategy: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test on what STRATEGY makes."""
    return lambda test: EXAMPLES(given(strategy)(test))


def bits_of(case: Tuple[bytes, int]) -> set[int]:
    """Return the CPUs whose bit is set, the first of them somewhere up to 8191."""
    raw, first = case
    value = int.from_bytes(raw, "little")
    return {first + bit for bit in range(value.bit_length()) if value >> bit & 1}


CPU_SETS = st.tuples(st.binary(max_size=24), st.sampled_from([0, 0, 1, 31, 32, 33, 64, 1000, 8000])).map(bits_of)
LISTED = st.lists(
    st.tuples(st.integers(0, 9000), st.integers(0, 200), st.integers(0, 9), st.integers(0, 9)), max_size=6
)
MASK_TEXT = st.text(alphabet="0123456789abcdefABCDEF,", max_size=80)
NEAR_TEXT = st.text(alphabet="0123456789abcdefxX,-:/ _+\n\t\0\u0663", max_size=60)


class TestMasks:
    @holds(CPU_SETS)
    def test_printed_and_read_again(self, cpus: set[int]) -> None:
        assert cpumask.parse_mask(cpumask.format_mask(cpus)) == tuple(sorted(cpus))

    @holds(st.tuples(CPU_SETS, st.integers(1, 300), st.booleans()))
    def test_as_kernels_print_them(self, case: Tuple[set[int], int, bool]) -> None:
        """With the leading zeros of a kernel for so many CPUs, in either case."""
        cpus, words, upper = case
        values = [0] * max(words, max(cpus, default=0) // 32 + 1)
        for cpu in cpus:
            values[-1 - cpu // 32] |= 1 << cpu % 32
        text = ",".join("%08x" % value for value in values)
        assert cpumask.parse_mask((text.upper() if upper else text) + "\n") == tuple(sorted(cpus))

    @holds(MASK_TEXT)
    def test_as_read_digit_by_digit(self, text: str) -> None:
        words = text.split(",")
        expected = None
        if all(words) and (len(words) == 1 or all(len(word) <= 8 for word in words)):
            digits = "".join(words[:1] + [word.rjust(8, "0") for word in words[1:]])
            expected = []
            for place, digit in enumerate(reversed(digits)):
                expected += [place * 4 + bit for bit in range(4) if int(digit, 16) & 1 << bit]
        assert cpumask.parse_mask(text) == (None if expected is None else tuple(expected))

    @holds(st.one_of(st.text(max_size=60), NEAR_TEXT))
    def test_any_text(self, text: str) -> None:
        cpus = cpumask.parse_mask(text)
        if cpus is not None:
            assert cpumask.parse_mask(cpumask.format_mask(cpus)) == cpus
            assert text.strip().isascii()
            assert not set(text.strip()) - set("0123456789abcdefABCDEF,")


class TestLists:
    @holds(CPU_SETS)
    def test_printed_and_read_again(self, cpus: set[int]) -> None:
        text = cpumask.format_list(cpus)
        assert cpumask.parse_list(text) == tuple(sorted(cpus))
        assert cpumask.parse_blank_list(" ".join(map(str, cpus))) == tuple(sorted(cpus))

    @holds(LISTED)
    def test_as_counted_one_by_one(self, parts: List[Tuple[int, int, int, int]]) -> None:
        texts, wanted, valid = [], set(), True
        for low, more, used, group in parts:
            if used:
                texts.append("%d-%d:%d/%d" % (low, low + more, used, group))
                valid = valid and used <= group
                wanted.update(low + at for at in range(more + 1) if valid and at % group < used)
            else:
                texts.append(str(low) if not more else "%d-%d" % (low, low + more))
                wanted.update(range(low, low + more + 1))
        assert cpumask.parse_list(", ".join(texts)) == (tuple(sorted(wanted)) if valid else None)

    @holds(st.one_of(st.text(max_size=60), NEAR_TEXT))
    def test_any_text(self, text: str) -> None:
        for cpus in (cpumask.parse_list(text), cpumask.parse_blank_list(text)):
            if cpus is not None:
                assert cpumask.parse_list(cpumask.format_list(cpus)) == cpus
                assert all(0 <= cpu < cpumask.MAX_CPUS for cpu in cpus)


CHIPS = ["GICv3", "ITS-MSI", "ITS-PCI-MSI-0003:31:00.0", "BRCM STB PCIe MSI", "GICv3-23", "SiFive PLIC", "0-0020"]
NAMES = st.sampled_from(["eth0", "PCIe PME", "0000:01:00.0", "mmc1", "a:b", "7", "2 Edge", "npu-edge", "\u00fc", "x,y"])


def counts_of(draw: Callable[[st.SearchStrategy[Any]], Any], number: int, bits: int = 32) -> Tuple[int, ...]:
    """Draw counters, at one go since there are many."""
    raw, shift = draw(st.binary(min_size=4 * number, max_size=4 * number)), draw(st.sampled_from([32 - bits, 20, 31]))
    return tuple(value >> shift for (value,) in struct.iter_unpack("<I", raw))


@st.composite
def tables(draw: st.DrawFn) -> Tuple[str, ProcInterrupts]:
    """Make a /proc/interrupts as kernel/irq/proc.c prints it, with what is in it."""
    cpus = tuple(sorted(draw(st.sets(st.integers(0, 2000), min_size=1, max_size=12))))
    x86, blank_before = draw(st.booleans()), draw(st.booleans())
    text = "           " + "".join("CPU%-8d" % cpu for cpu in cpus) + "\n"
    lines = {}
    for irq in sorted(draw(st.sets(st.integers(0, 9999), max_size=5))):
        counts = counts_of(draw, len(cpus))
        chip, hwirq = draw(st.sampled_from(CHIPS)), draw(st.integers(0, 2**40))
        actions = tuple(draw(st.lists(NAMES, max_size=3)))
        text += "%3d:" % irq + "".join((" %10u" if blank_before else "%11u ") % count for count in counts)
        text += " %8s" % chip + (" %3d-%-8s" % (hwirq, "edge") if x86 else " %3d %-8s" % (hwirq, "Edge"))
        text += ("  " + ", ".join(actions) if actions else "") + "\n"
        lines[irq] = InterruptLine(irq, counts, chip, hwirq, "edge", actions)
    per_cpu: Dict[str, Tuple[int, ...]] = {}
    for name in draw(st.lists(st.sampled_from(["NMI", "LOC", "IPI0", "I/O", "ERR"]), unique=True)):
        per_cpu[name] = counts_of(draw, 1 if name == "ERR" else len(cpus))
        glue = ":" if name == "IPI0" else ": "
        text += "%4s" % name + glue + "".join("%10u " % count for count in per_cpu[name])
        text += "\n" if name in ("ERR", "I/O") else "  Some interrupts\n"
    return text, ProcInterrupts(cpus, lines, per_cpu, ())


CAPTURES = sorted(path.name for path in (FIXTURES / "interrupts").glob("*.txt"))


class TestInterrupts:
    @holds(tables())
    def test_printed_and_read_again(self, case: Tuple[str, ProcInterrupts]) -> None:
        text, table = case
        assert parse_proc_interrupts(text) == table
        assert parse_proc_interrupts(text.replace("\n", "\r\n")) == table

    @holds(tables())
    def test_without_header(self, case: Tuple[str, ProcInterrupts]) -> None:
        text, table = case
        body = "".join(row for row in text.splitlines(True)[1:] if not row.startswith((" I/O", " ERR")))
        read = parse_proc_interrupts(body, online=table.cpus)
        assert (read.lines, read.cpus) == (table.lines, table.cpus if table.lines else None)
        assert all(read.per_cpu[name] == table.per_cpu[name] for name in read.per_cpu)
        assumed = parse_proc_interrupts(body)
        assert assumed.cpus_assumed == bool(table.lines)
        assert assumed.lines == table.lines

    @holds(st.tuples(tables(), st.data()))
    def test_two_readings(self, case: Tuple[Tuple[str, ProcInterrupts], st.DataObject]) -> None:
        """What comes in between is what the delta says, through any wrap of a counter."""
        (_text, before), data = case
        more = {irq: counts_of(data.draw, len(line.counts), bits=31) for irq, line in before.lines.items()}
        after = before._replace(
            lines={
                irq: line._replace(counts=tuple((old + new) % 2**32 for old, new in zip(line.counts, more[irq])))
                for irq, line in before.lines.items()
            }
        )
        moved = interrupts.delta(before, after)
        assert before.cpus is not None
        assert moved == {irq: dict(zip(before.cpus, new)) for irq, new in more.items()}
        for new in moved.values():
            shares = interrupts.landing(new)
            assert (shares is None) == (sum(new.values()) == 0)
            assert shares is None or sum(shares.values()) == pytest.approx(1)

    @holds(st.tuples(st.sampled_from(CAPTURES), st.data()))
    def test_damaged_row_breaks_no_other(self, case: Tuple[str, st.DataObject]) -> None:
        name, data = case
        rows = captured("interrupts/" + name).splitlines()
        whole = parse_proc_interrupts("\n".join(rows))
        at = data.draw(st.integers(0 if whole.cpus_assumed else 1, len(rows) - 1))
        row = rows[at]
        start = data.draw(st.integers(0, len(row)))
        end = data.draw(st.integers(start, min(len(row), start + 12)))
        junk = data.draw(st.text(alphabet="0123456789 :-.,CPUxE\0\t\u00e9", max_size=12))
        rows[at] = row[:start] + junk + row[end:]
        table = parse_proc_interrupts("\n".join(rows))
        alone = parse_proc_interrupts("CPU0\n" + row)
        intact = {irq: line for irq, line in whole.lines.items() if irq not in alone.lines}
        now = parse_proc_interrupts("CPU0\n" + rows[at])
        assert {irq: line for irq, line in table.lines.items() if irq in intact and irq not in now.lines} == {
            irq: line for irq, line in intact.items() if irq not in now.lines
        }
        assert len(table.lines) + len(table.per_cpu) + len(table.unparsed) >= len(whole.lines) + len(whole.per_cpu) - 1

    @holds(st.tuples(st.sampled_from(CAPTURES), st.data()))
    def test_mutated_capture(self, case: Tuple[str, st.DataObject]) -> None:
        name, data = case
        text = captured("interrupts/" + name)[: data.draw(st.integers(0, 3000))]
        for _round in range(data.draw(st.integers(0, 4))):
            start = data.draw(st.integers(0, len(text)))
            end = data.draw(st.integers(start, min(len(text), start + 40)))
            text = text[:start] + data.draw(st.text(max_size=20)) + text[end:]
        self.sound(text)

    @holds(
        st.one_of(st.text(max_size=200), st.text(alphabet="CPU0123456789:.-, \n\tEdgeLevlNMI\0\u0663", max_size=300))
    )
    @example("CPU1 CPU0\n1: 2 3 x\n")
    @example("CPU0\n1: " + " " * 5000 + "x")
    def test_any_text(self, text: str) -> None:
        self.sound(text)

    @staticmethod
    def sound(text: str) -> None:
        table = parse_proc_interrupts(text)
        rows = [row for row in text.split("\n") if row.strip("\0 \t\r")]
        assert len(table.lines) + len(table.per_cpu) + len(table.unparsed) <= len(rows)
        assert set(table.unparsed) <= set(rows)
        for irq, line in table.lines.items():
            assert line.irq == irq >= 0
            assert line.chip
            assert line.counts
            assert len(interrupts.counts_by_cpu(table, irq)) in (0, len(line.counts))
            source = interrupts.msi_source(line.chip, line.hwirq)
            assert source is None or interrupts.bdf_of_line(line) == source.bdf
            assert str(irq) in text
        moved = interrupts.delta(table, table)
        assert all(not any(new.values()) for new in moved.values())


class TestConfigurationSpace:
    @holds(
        st.fixed_dictionaries(
            {
                "ids": st.tuples(st.integers(0, 0xFFFE), st.integers(0, 0xFFFF)),
                "class_code": st.integers(0, 0xFFFFFF),
                "revision": st.integers(0, 255),
                "port": st.sampled_from([0, 1, 4, 5, 6]),
                "capable": st.tuples(st.integers(1, 6), st.sampled_from([1, 2, 4, 8, 16])),
                "negotiated": st.tuples(st.integers(1, 6), st.sampled_from([0, 1, 2, 4, 8, 16])),
                "payload": st.tuples(st.integers(0, 5), st.integers(0, 5)),
                "request": st.integers(0, 5),
                "aspm": st.tuples(st.integers(0, 3), st.integers(0, 3)),
                "msi": st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()),
                "before": st.integers(0, 3),
            }
        )
    )
    def test_put_together_and_read_again(self, case: Dict[str, Any]) -> None:
        capable, granted, enabled = case["msi"]
        fill = [(0x01, bytes(6))] * case["before"]
        data = config_space(
            case["ids"],
            case["class_code"],
            [
                *fill,
                (0x05, struct.pack("<H", enabled | capable << 1 | granted << 4) + bytes(8)),
                pcie(
                    case["port"],
                    case["capable"],
                    case["negotiated"],
                    case["payload"],
                    case["request"],
                    case["aspm"],
                ),
            ],
            subsystem=case["ids"],
            revision=case["revision"],
        )
        config = pci.decode_config(data)
        assert (config.vendor, config.device) == case["ids"] == (config.subsystem_vendor, config.subsystem_device)
        assert (config.class_code, config.revision) == (case["class_code"], case["revision"])
        speed, width = case["negotiated"]
        gt_s = {1: 2.5, 2: 5.0, 3: 8.0, 4: 16.0, 5: 32.0, 6: 64.0}
        assert config.link == pci.Link(
            gt_s[case["capable"][0]], case["capable"][1], gt_s[speed] if width else None, width
        )
        assert config.port_type == pci.PORT_TYPES[case["port"]]
        assert (config.mps_capable_bytes, config.mps_bytes) == tuple(128 << code for code in case["payload"])
        assert config.mrrs_bytes == 128 << case["request"]
        assert config.msi == pci.Msi(enabled, 1 << capable, 1 << granted if enabled else 0)
        names = ((), ("L0s",), ("L1",), ("L0s", "L1"))
        assert config.aspm == pci.Aspm(*(names[bits] for bits in case["aspm"]))

    @holds(st.binary(max_size=256))
    def test_capabilities_as_followed_by_hand(self, data: bytes) -> None:
        data = bytes(data[:6]) + b"\x10\0" + bytes(data[8:14]) + b"\0" + bytes(data[15:])
        expected: List[Tuple[int, int]] = []
        at = data[0x34] // 4 * 4 if len(data) > 0x34 else 0
        while at >= 0x40 and at + 1 < len(data) and data[at] != 0xFF and at not in [place for _id, place in expected]:
            expected.append((data[at], at))
            at = data[at + 1] // 4 * 4
        assert pci.decode_config(data).capabilities == tuple(expected)

    @holds(st.tuples(st.binary(max_size=300), st.sampled_from([0, 64, 256, 4096])))
    def test_any_bytes(self, case: Tuple[bytes, int]) -> None:
        head, size = case
        self.sound((head + bytes(size))[:size])
        self.sound(head)

    @holds(st.tuples(st.booleans(), st.data()))
    def test_damaged_dump(self, case: Tuple[bool, st.DataObject]) -> None:
        published, data = case
        damaged = bytearray(hex_dump("config/ax650n.txt") if published else PORT)
        for _round in range(data.draw(st.integers(1, 6))):
            damaged[data.draw(st.integers(0, min(len(damaged), 0x180) - 1))] = data.draw(st.integers(0, 255))
        self.sound(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))

    @staticmethod
    def sound(data: bytes) -> None:
        config = pci.decode_config(data)
        assert config.length == len(data)
        assert all(0x40 <= offset < min(256, len(data)) for _number, offset in config.capabilities)
        assert all(0x100 <= offset < len(data) for _number, offset in config.extended)
        for found in (config.capabilities, config.extended):
            assert len(set(found)) == len(found)
        for size in (config.mps_bytes, config.mps_capable_bytes, config.mrrs_bytes):
            assert size in (None, 128, 256, 512, 1024, 2048, 4096)
        assert config.msi is None or config.msi.capable_vectors in (1, 2, 4, 8, 16, 32)
        assert config.link is None or config.link.negotiated_width in range(64)
        assert config.link is None or config.link.negotiated_width or config.link.negotiated_gt_s is None


PORT = config_space(
    (0x1D87, 0x3588),
    0x060400,
    [(0x01, bytes(6)), pcie(4, (3, 2), (3, 2), payload=(1, 0), aspm=(2, 0), speeds=0b111), (0x11, bytes(10))],
    [(0x0001, bytes(40)), (0x0019, bytes(12)), (0x001E, bytes(12))],
    header_type=1,
)


def test_every_test_has_its_part() -> None:
    classes = (TestMasks, TestLists, TestInterrupts, TestConfigurationSpace)
    assert sum(1 for group in classes for name in vars(group) if name.startswith("test_")) == TESTS
