# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import tracemalloc

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import interrupts
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import (
    InterruptLine,
    MsiSource,
    ProcInterrupts,
    Thread,
    bdf_of_line,
    counts_by_cpu,
    delta,
    landing,
    parse_proc_interrupts,
)
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree, captured


def parsed(name: str) -> ProcInterrupts:
    return parse_proc_interrupts(captured("interrupts/%s.txt" % name))


def home(table: ProcInterrupts, irq: int) -> int:
    """Return the CPU with the most counts."""
    counts = counts_by_cpu(table, irq)
    return max(counts, key=lambda cpu: counts[cpu])


class TestCaptures:
    @pytest.mark.parametrize(
        ("name", "lines", "named", "columns"),
        [
            ("x86-eight-ax650n-no-header", 8, 0, 6),
            ("rock5itx-before", 3, 0, 8),
            ("graviton", 51, 8, 8),
            ("nanopi-r4s", 38, 8, 6),
            ("rpi4", 15, 8, 4),
            ("rpi4-eth0-before", 3, 0, 4),
            ("rpi4-eth0-after", 2, 0, 4),
            ("x86-laptop", 19, 19, 8),
            ("x86-cpu6-offline", 21, 22, 7),
            ("coreos", 2, 22, 2),
            ("opi5plus-head", 8, 0, 8),
        ],
    )
    def test_every_line_is_understood(self, name: str, lines: int, named: int, columns: int) -> None:
        table = parsed(name)
        assert table.unparsed == ()
        assert (len(table.lines), len(table.per_cpu)) == (lines, named)
        assert table.cpus is not None
        assert len(table.cpus) == columns
        assert table.cpus_assumed is (name in ("x86-eight-ax650n-no-header", "rpi4-eth0-after"))
        assert all(len(counts) in (columns, 1) for counts in table.per_cpu.values())
        for line in table.lines.values():
            assert len(line.counts) == columns
            assert line.chip
            assert line.hwirq is not None
            assert line.trigger in ("edge", "level", "fasteoi")
            assert line.actions

    def test_eight_cards_without_header(self) -> None:
        table = parsed("x86-eight-ax650n-no-header")
        homes = {bdf_of_line(line): home(table, irq) for irq, line in table.lines.items()}
        assert homes == {
            "0000:03:00.0": 1,
            "0000:04:00.0": 2,
            "0000:05:00.0": 5,
            "0000:09:00.0": 0,
            "0000:0a:00.0": 1,
            "0000:0b:00.0": 2,
            "0000:0d:00.0": 3,
            "0000:0e:00.0": 4,
        }
        assert sorted(table.lines) == [143, 147, 151, 155, 159, 163, 167, 171]
        assert table.lines[147] == InterruptLine(
            147, (0, 0, 70, 0, 0, 0), "IR-PCI-MSI-0000:04:00.0", 0, "edge", ("0000:04:00.0",)
        )

    def test_rock5itx_network_test(self) -> None:
        before, after = parsed("rock5itx-before"), parsed("rock5itx-after")
        moved = delta(before, after)
        assert {irq: {cpu: count for cpu, count in counts.items() if count} for irq, counts in moved.items()} == {
            224: {6: 85308},
            240: {6: 51807},
            242: {0: 112225},
        }
        sources = [interrupts.msi_source(line.chip, line.hwirq) for line in after.lines.values()]
        assert sources == [MsiSource("0004:41:00.0", entry) for entry in (0, 16, 18)]
        assert [landing(moved[irq]) for irq in (224, 240, 242)] == [{6: 1.0}, {6: 1.0}, {0: 1.0}]

    def test_graviton(self) -> None:
        table = parsed("graviton")
        assert {irq: home(table, irq) for irq in (53, 57, 58, 59, 60, 61, 62, 63, 64, 65)} == {
            53: 0,
            57: 5,
            58: 2,
            59: 3,
            60: 1,
            61: 0,
            62: 6,
            63: 7,
            64: 4,
            65: 7,
        }
        assert table.per_cpu["IPI0"][:2] == (2768808080, 2844211768)  # no blank after the colon
        assert table.per_cpu["Err"] == (0,)
        assert table.lines[50].chip == "ARMH0061:00"
        assert bdf_of_line(table.lines[57]) == "0000:00:05.0"
        assert table.cpus == tuple(range(8))  # though the header stands one place to the left of its columns
        sources = [interrupts.msi_source(line.chip, line.hwirq) for line in table.lines.values()]
        assert sum(source is not None for source in sources) == 15  # 6 of the disks, 9 of the network card
        assert set(counts_by_cpu(table, 53).values()) == {0, 129969327}

    def test_graviton_first_count_is_not_where_they_land(self) -> None:
        """Stray counts from before a move stand to the left of the queue's own CPU."""
        table = parsed("graviton")
        first = {irq: next(cpu for cpu, count in counts_by_cpu(table, irq).items() if count) for irq in range(58, 66)}
        assert {irq for irq, cpu in first.items() if cpu != home(table, irq)} == {63, 64, 65}
        assert [first[irq] for irq in (63, 64, 65)] == [0, 1, 2]
        for irq in range(58, 66):
            counts = counts_by_cpu(table, irq)
            assert counts[home(table, irq)] / sum(counts.values()) > 0.999

    def test_nanopi_r4s(self) -> None:
        table = parsed("nanopi-r4s")
        assert (home(table, 35), home(table, 87)) == (4, 5)
        for irq in (35, 87):
            assert sum(1 for count in counts_by_cpu(table, irq).values() if count) == 1
        assert table.lines[35].actions == ("eth0",)
        assert table.lines[87].actions == ("eth1",)
        assert bdf_of_line(table.lines[35]) is None
        assert bdf_of_line(table.lines[87]) == "0000:01:00.0"
        assert table.lines[26].chip == "GICv3-23"
        assert table.lines[78][2:] == ("rk808", 5, "edge", ("RTC alarm",))
        assert table.lines[84].actions == ("PCIe PME", "aerdrv")

    def test_rpi4(self) -> None:
        table = parsed("rpi4")
        assert table.lines[46][2:] == ("BRCM STB PCIe MSI", 524288, "edge", ("xhci_hcd",))
        assert bdf_of_line(table.lines[46]) == "0000:01:00.0"
        assert counts_by_cpu(table, 46) == {0: 668625, 1: 0, 2: 0, 3: 0}
        assert table.lines[32].actions == ("mmc1", "mmc0")
        assert table.lines[12].actions == ("kvm guest vtimer",)

    def test_rpi4_old_counts_stay_where_they_were(self) -> None:
        moved = delta(parsed("rpi4-eth0-before"), parsed("rpi4-eth0-after"))
        assert moved == {38: {0: 0, 1: 107186, 2: 0, 3: 0}, 39: {0: 0, 1: 0, 2: 398379, 3: 0}}
        assert [landing(moved[irq]) for irq in (38, 39)] == [{1: 1.0}, {2: 1.0}]
        after = parsed("rpi4-eth0-after")
        assert (home(after, 38), after.cpus_assumed) == (0, True)  # what the totals say is history

    def test_laptop(self) -> None:
        table = parsed("x86-laptop")
        counts = counts_by_cpu(table, 29)
        assert counts[0] / sum(counts.values()) == pytest.approx(0.686, abs=0.002)
        assert all(all(counts_by_cpu(table, irq).values()) for irq in (27, 28, 29, 31, 33)), "they have no home"
        assert bdf_of_line(table.lines[29]) == "0000:00:19.0"
        assert bdf_of_line(table.lines[27]) == "0000:00:1f.2"
        assert bdf_of_line(table.lines[24]) is None  # the IOMMU's own
        assert table.lines[16].trigger == "fasteoi"

    def test_offline_cpu_has_no_column(self) -> None:
        table = parsed("x86-cpu6-offline")
        assert table.cpus == (0, 1, 2, 3, 4, 5, 7)
        assert (home(table, 24), home(table, 19)) == (2, 4)
        assert counts_by_cpu(table, 24)[7] == 0
        assert 6 not in counts_by_cpu(table, 24)
        sources = [interrupts.msi_source(table.lines[irq].chip, table.lines[irq].hwirq) for irq in range(25, 33)]
        assert sources == [MsiSource("0000:07:00.0", entry) for entry in range(8)]
        assert {count for irq in range(25, 33) for count in table.lines[irq].counts} == {0}
        assert table.per_cpu["NMI"][-1] == 137
        assert bdf_of_line(table.lines[24]) == "0000:00:1f.2"

    def test_coreos(self) -> None:
        table = parsed("coreos")
        assert sorted(table.lines) == [8, 9]
        assert counts_by_cpu(table, 8) == {0: 0, 1: 1}
        assert set(table.per_cpu) >= {"ERR", "MIS", "PIN", "NPI", "PIW", "HVS"}

    def test_opi5plus(self) -> None:
        table = parsed("opi5plus-head")
        assert home(table, 19) == 2
        assert table.lines[25].actions == ("rk_timer",)
        assert all(counts_by_cpu(table, 25).values())


HEADER = "           CPU0       CPU1       \n"


class TestLayouts:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("ITS-PCI-MSI-0000:01:00.0   0 Edge      nvme0q0", ("ITS-PCI-MSI-0000:01:00.0", 0, "edge", ("nvme0q0",))),
            ("GICv3  30 Level     -name     arch_timer", ("GICv3", 30, "level", ("arch_timer",))),
            ("IO-APIC-edge      timer", ("IO-APIC", None, "edge", ("timer",))),
            ("IO-APIC   2-edge    ", ("IO-APIC", 2, "edge", ())),
            ("xen-dyn    -event     xenbus", ("xen-dyn", None, "event", ("xenbus",))),
            ("XEN-PIRQ   4-ioapic-edge  eth 0, b", ("XEN-PIRQ", 4, "ioapic-edge", ("eth 0", "b"))),
            ("None       Level     nobody", ("None", None, "level", ("nobody",))),
            ("MIPS   7  timer", ("MIPS", 7, None, ("timer",))),
            ("MIPS   7  timer -x", ("MIPS", 7, None, ("timer -x",))),
            ("IO-APIC-edge      timer 5 x", ("IO-APIC", None, "edge", ("timer 5 x",))),
            ("None       Level     nobody 5 x", ("None", None, "level", ("nobody 5 x",))),
            ("IR-PCI-MSI 5-edge      2 Edge", ("IR-PCI-MSI", 5, "edge", ("2 Edge",))),
            ("MIPS   7", ("MIPS", None, None, ())),  # the number may go on
            ("ITS-MSI 5709", ("ITS-MSI", None, None, ())),
            ("- something", ("-", None, None, ("something",))),
            ("xen-percpu-virq      timer0", ("xen-percpu", None, "virq", ("timer0",))),
            ("xen-percpu    -virq      timer0", ("xen-percpu", None, "virq", ("timer0",))),
            ("xen-dyn-lateeoi    -event     eth0-q0-tx", ("xen-dyn-lateeoi", None, "event", ("eth0-q0-tx",))),
            ("xen-pirq   9-ioapic-level  acpi", ("xen-pirq", 9, "ioapic-level", ("acpi",))),
            ("PCI-MSI-edge      eth0", ("PCI-MSI", None, "edge", ("eth0",))),
            ("SiFive PLIC  10  ttyS0", ("SiFive PLIC", 10, None, ("ttyS0",))),
            ("RISC-V INTC   5 Edge      riscv-timer", ("RISC-V INTC", 5, "edge", ("riscv-timer",))),
            ("APLIC-MSI-d000000.aplic  10 Level     ttyS0", ("APLIC-MSI-d000000.aplic", 10, "level", ("ttyS0",))),
            ("XIVE-IRQ 4609 Level     virtio3, virtio0", ("XIVE-IRQ", 4609, "level", ("virtio3", "virtio0"))),
            ("XIVE-IRQ 1048563 Level     opal-psi#0:lpchc", ("XIVE-IRQ", 1048563, "level", ("opal-psi#0:lpchc",))),
            ("    XICS   2 Edge      IPI", ("XICS", 2, "edge", ("IPI",))),
            ("sun4v   -IVEC      ttyHV0", ("sun4v", None, "ivec", ("ttyHV0",))),
            ("rp1_irq_chip   6 Level     eth0", ("rp1_irq_chip", 6, "level", ("eth0",))),
            ("fd8a0000.gpio  11 Level     bt_default_wake", ("fd8a0000.gpio", 11, "level", ("bt_default_wake",))),
            ("0-0020   3 Edge      PMIC key, x", ("0-0020", 3, "edge", ("PMIC key", "x"))),
            ("bcm2835-gpio  5 Edge      button 1", ("bcm2835-gpio", 5, "edge", ("button 1",))),
            ("GICv3 426 Level     3 Edge", ("GICv3", 426, "level", ("3 Edge",))),
            ("PCI-MSI 524288-edge      0000:01:00.0, 5-edge", ("PCI-MSI", 524288, "edge", ("0000:01:00.0", "5-edge"))),
            ("GICv3 9 Edge      a,b, c", ("GICv3", 9, "edge", ("a,b", "c"))),
            ("", (None, None, None, ())),
        ],
    )
    def test_descriptions(
        self, text: str, expected: tuple[str | None, int | None, str | None, tuple[str, ...]]
    ) -> None:
        assert interrupts.parse_description(text) == expected

    def test_action_with_numbers_is_no_column(self) -> None:
        table = parse_proc_interrupts(HEADER + " 24:  1   2   GICv3  3 Edge   7 8\n")
        assert table.lines[24] == InterruptLine(24, (1, 2), "GICv3", 3, "edge", ("7 8",))

    def test_header_that_was_cut(self) -> None:
        table = parse_proc_interrupts(HEADER + " 24:  1   2  3  4  GICv3  3 Edge   x\n")
        assert table.lines[24].chip == "GICv3"
        assert (table.cpus, table.cpus_assumed) == ((0, 1, 2, 3), True)
        assert counts_by_cpu(table, 24) == {0: 1, 1: 2, 2: 3, 3: 4}

    def test_header_that_was_cut_in_a_word(self) -> None:
        table = parse_proc_interrupts("   CPU0       CPU1       CP\n 24:  1   2  3  GICv3  3 Edge   x\n")
        assert (table.unparsed, table.cpus_assumed) == (("   CPU0       CPU1       CP",), True)
        assert counts_by_cpu(table, 24) == {0: 1, 1: 2, 2: 3}

    def test_header_of_which_one_piece_is_whole(self) -> None:
        """Wrapped within its words, but for the last row."""
        header = "CPU0 CPU1 CP\nU2 CPU3 CPU4\nCPU5 CPU6\n"
        table = parse_proc_interrupts(header + " 24: 1 2 GICv3 3 Edge x\n")
        assert (table.cpus, table.cpus_assumed, len(table.unparsed)) == ((0, 1), True, 3)

    def test_counts_behind_a_damaged_one(self) -> None:
        text = "CPU0 CPU1 CPU2\n 24: 1 x2 3 GICv3 3 Edge x\n 25: 1 2 3 GICv3 4 Edge x\n"
        assert list(parse_proc_interrupts(text).lines) == [25]
        assert list(parse_proc_interrupts(text.partition("\n")[2]).lines) == [25]

    def test_header_whose_last_number_was_cut(self) -> None:
        header = " ".join("CPU%d" % cpu for cpu in (8, 9, 1))
        table = parse_proc_interrupts(header + "\n 24:  1   2  3  4  GICv3  3 Edge   x\n")
        assert (table.unparsed, table.cpus_assumed) == ((header,), True)

    def test_without_header_the_online_cpus_count(self) -> None:
        text = " 24:  1   2  3  GICv3  3 Edge   x\n"
        known = parse_proc_interrupts(text, online=(0, 2, 5))
        assert (known.cpus_assumed, counts_by_cpu(known, 24)) == (False, {0: 1, 2: 2, 5: 3})
        other = parse_proc_interrupts(text, online=(0, 1))  # of another moment: nothing can be said
        assert (other.cpus, other.cpus_assumed, counts_by_cpu(other, 24)) == (None, False, {})
        assert parse_proc_interrupts(HEADER + "24: 1 2 GICv3 3 Edge x", online=(4, 5)).cpus == (0, 1)

    def test_without_header_a_line_of_another_width_breaks_no_other(self) -> None:
        lines = " 24: 1 2 3 GICv3 3 Edge x\n 25: 4 5 GICv3 4 Edge y\n 26: 7 8 9 GICv3 5 Edge z\n"
        table = parse_proc_interrupts(lines)
        assert [counts_by_cpu(table, irq) for irq in (24, 25, 26)] == [{0: 1, 1: 2, 2: 3}, {}, {0: 7, 1: 8, 2: 9}]
        table = parse_proc_interrupts(lines + " 27: 1 2 GICv3 6 Edge x\n 28: 3 4 GICv3 7 Edge y\n")
        assert [len(counts_by_cpu(table, irq)) for irq in (24, 25, 26, 27, 28)] == [0, 2, 0, 2, 2]

    @pytest.mark.parametrize("header", ["CPU0 CPU2", "CPU0 CPU1 CPU2 CPU3"])
    def test_columns_of_another_number_than_the_header(self, header: str) -> None:
        table = parse_proc_interrupts(header + "\n 24:  1   2  3  GICv3  3 Edge   x\n")
        assert table.lines[24].counts == (1, 2, 3)
        assert counts_by_cpu(table, 24) == {}

    def test_cpu_that_came_online_meanwhile(self) -> None:
        table = parse_proc_interrupts(HEADER + " 24: 1 2 GICv3 3 Edge x\n 25: 1 2 3 GICv3 4 Edge y\nNMI: 4 5 6  text\n")
        assert (table.cpus, table.cpus_assumed) == ((0, 1), False)
        assert (counts_by_cpu(table, 24), counts_by_cpu(table, 25)) == ({0: 1, 1: 2}, {})
        assert (table.lines[25].chip, table.per_cpu["NMI"]) == ("GICv3", (4, 5, 6))

    def test_table_that_a_terminal_has_wrapped(self) -> None:
        """What is left of a line tells nothing that is wrong."""
        whole = captured("interrupts/graviton.txt")
        for width in range(20, 130):
            wrapped = [row[at : at + width] for row in whole.splitlines() for at in range(0, len(row), width)]
            table = parse_proc_interrupts("\n".join(wrapped))
            truth = parse_proc_interrupts(whole)
            for irq, line in table.lines.items():
                assert line.counts == truth.lines[irq].counts, (width, irq)
                assert line.hwirq in (None, truth.lines[irq].hwirq), (width, irq)
            for name, counts in table.per_cpu.items():
                assert counts == truth.per_cpu[name], (width, name)
            assert len(table.unparsed) >= len(truth.lines) - len(table.lines)

    def test_dump_that_was_cut(self) -> None:
        """At every place: no line is made up, no count is a part of one."""
        whole = captured("interrupts/rock5itx-after.txt") + captured("interrupts/rock5itx-before.txt")
        truth = parse_proc_interrupts(whole)
        for end in range(len(whole)):
            table = parse_proc_interrupts(whole[:end])
            for irq, line in table.lines.items():
                assert line.counts == truth.lines[irq].counts
                assert interrupts.msi_source(line.chip, line.hwirq) in (
                    None,
                    interrupts.msi_source(truth.lines[irq].chip, truth.lines[irq].hwirq),
                )

    def test_second_reading_is_not_mixed_with_the_first(self) -> None:
        text = "CPU0 CPU1\n 24: 1 2 GICv3 3 Edge x\nCPU0 CPU5\n 24: 3 4 GICv3 3 Edge x\n 25: 5 6 GICv3 4 Edge y\n"
        table = parse_proc_interrupts(text)
        assert (list(table.lines), counts_by_cpu(table, 24)) == ([24], {0: 1, 1: 2})
        assert len(table.unparsed) == 3

    def test_text_around_the_table(self) -> None:
        """A prompt, remarks, garbage: nothing else suffers."""
        table = parse_proc_interrupts(
            "root@nas:~# cat /proc/interrupts\nCPU1 is the fast one\n\n"
            + HEADER
            + "24: 1 2 A 3 Edge x\nCPU0 again\n25: 1 2 A 4 Edge x\nNMI: 1 2\nnonsense\n26: 1 2 A 5 Edge x\n$"
        )
        assert (table.cpus, table.cpus_assumed, list(table.lines)) == ((0, 1), False, [24, 25, 26])
        assert table.per_cpu == {}, "what follows a line without text may be its rest"
        assert len(table.unparsed) == 6

    def test_first_of_a_number_counts(self) -> None:
        table = parse_proc_interrupts(HEADER + "24: 1 2 A 3 Edge x\n24: 3 4 B 3 Edge y\nNMI: 1 2\nNMI: 3 4\n")
        assert (table.lines[24].chip, table.per_cpu) == ("A", {"NMI": (1, 2)})
        assert table.unparsed == ("24: 3 4 B 3 Edge y", "NMI: 3 4")

    @pytest.mark.parametrize(
        "line",
        [
            "12: 24:          1          2  GICv3  3 Edge  x",  # grep -n
            "12:124:          1          2  GICv3  3 Edge  x",
            "/proc/interrupts: 24:    1          2  GICv3  3 Edge  x",  # grep in several files
            "12:00:01 24:          1          2  GICv3  3 Edge  x",
            "12:00 24:          1          2  GICv3  3 Edge  x",
            "[  12.345] 24:          1          2  GICv3  3 Edge  x",
            "2024-01-01T12:00:01 24:  1          2  GICv3  3 Edge  x",
            "> 24:          1          2  GICv3  3 Edge  x",
            "Every 1.0s: cat /proc/interrupts        nas: Thu Jan  1 12:00:00 2024",
            " 24:          1          2",  # no chip: cut
            " 24:          1x         2  GICv3  3 Edge  x",
            " 24:          x1         2  GICv3  3 Edge  x",
            " 24:          1\0         2  GICv3  3 Edge  x",
            " 24:          1          2  GI\0Cv3  3 Edge  x",
            " 24:          -1         2  GICv3  3 Edge  x",
            "NMI:          1          2x  text",
            "NMI:          1x         2  text",
            "NMI:          1          text",
            "N M:          1          2  text",
            " 24:          1          2x  GICv3  3 Edge  x",
            " 024:         1          2  GICv3  3 Edge  x",
            "61:00   3 Edge      ACPI:Event",  # the rest of a line
            "FIQ:",
            "CPU0 CPU1 24: 1 2 GICv3 3 Edge x",
        ],
    )
    def test_no_line_of_the_kernel(self, line: str) -> None:
        good = " 25:          3          4  GICv3  4 Edge  y\n"
        table = parse_proc_interrupts(HEADER + line + "\n" + good)
        assert (table.unparsed, list(table.lines), table.per_cpu) == ((line,), [25], {})
        assert counts_by_cpu(table, 25) == {0: 3, 1: 4}
        bare = parse_proc_interrupts(line + "\n" + good)
        assert counts_by_cpu(bare, 25) == {0: 3, 1: 4}
        assert counts_by_cpu(bare, 24) == counts_by_cpu(bare, 12) == {}

    def test_line_ends_tabs_and_padding(self) -> None:
        text = "\tCPU0\tCPU1\r\n 24:\t1\t2\tGICv3\t3\tEdge\tx\r\nErr:\t7\r\n\0\0\0"
        table = parse_proc_interrupts(text)
        assert table.lines == {24: InterruptLine(24, (1, 2), "GICv3", 3, "edge", ("x",))}
        assert (table.per_cpu, table.unparsed) == ({"Err": (7,)}, ())

    def test_counts_of_any_length_and_glued_to_the_colon(self) -> None:
        text = HEADER + "1000:4294967295 12345678901  GICv3 3 Edge x\nIPI0:2768808080 2844211768  Rescheduling\n"
        table = parse_proc_interrupts(text)
        assert counts_by_cpu(table, 1000) == {0: 4294967295, 1: 12345678901}
        assert table.per_cpu["IPI0"] == (2768808080, 2844211768)

    def test_names_are_any_text(self) -> None:
        name = "a\x0bb\x1c\u2028 \x85c:d - \u00fc"
        table = parse_proc_interrupts(HEADER + " 24: 1 2 GICv3 3 Edge      %s, 7: 8\n" % name)
        assert table.lines[24].actions == (name, "7: 8")

    def test_s390(self) -> None:
        """No chip's number, names without any text, and a name with a slash."""
        table = parse_proc_interrupts(
            HEADER
            + "EXT:       8501       3711 \n"
            + "I/O:        721        204 \n"
            + "AIO:          9          0 \n"
            + "  3:         12          0   PCI-MSI  mlx5_async@pci:0001:00:00.0\n"
            + "  4:       2000          0   PCI-MSI  mlx5_comp0@pci:0001:00:00.0\n"
            + "CLK:       5000       2000   [EXT] Clock Comparator\n"
            + "C70:          0          0   [I/O] 3270\n"
            + "MSI:          9          0   [AIO] MSI Interrupt\n"
            + "CPU:          1          2   [CPU] CPU Restart\n"
        )
        assert table.unparsed == ()
        assert (table.per_cpu["I/O"], table.per_cpu["C70"], table.per_cpu["CPU"]) == ((721, 204), (0, 0), (1, 2))
        assert table.lines[3][2:] == ("PCI-MSI", None, None, ("mlx5_async@pci:0001:00:00.0",))
        assert bdf_of_line(table.lines[4]) == "0001:00:00.0"

    def test_32_bit_arm(self) -> None:
        """The fast interrupt has an owner and no counts."""
        table = parse_proc_interrupts(HEADER + "FIQ:              usb_fiq\nErr:          0\n")
        assert (table.per_cpu, table.unparsed) == ({"FIQ": (), "Err": (0,)}, ())

    def test_more_than_999_cpus(self) -> None:
        header = "".join("CPU%-8d" % cpu for cpu in range(1152))
        body = " ".join("%10d" % cpu for cpu in range(1152))
        table = parse_proc_interrupts("%s\n9999: %s   ITS-MSI 1 Edge x\n" % (header, body))
        assert counts_by_cpu(table, 9999) == {cpu: cpu for cpu in range(1152)}

    def test_memory_of_a_large_host(self) -> None:
        """A host of 1,152 CPUs has ten times these lines, hence ten times the memory."""
        header = "".join("CPU%-8d" % cpu for cpu in range(1152))
        rows = ["%4d: %s  ITS-MSI 1 Edge x" % (irq, "%10d " % (10**9 + irq) * 1152) for irq in range(100)]
        text = "\n".join([header, *rows])
        tracemalloc.start()
        try:
            table = parse_proc_interrupts(text)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(table.lines) == 100
        assert peak < 10 * 1000 * 1000

    @pytest.mark.parametrize("rest", [" " * 4000, "1 " * 2000, "x 1" + " " * 4000, "- " * 2000, "Edge " * 800])
    def test_text_that_could_match_in_many_ways(self, rest: str) -> None:
        """Each of a thousand such lines costs milliseconds at most, or the test would seem to hang."""
        text = "\n".join("%d: 1 2 x%s!" % (irq, rest) for irq in range(1000))
        table = parse_proc_interrupts(HEADER + text)
        assert len(table.lines) + len(table.unparsed) == 1000

    def test_without_header_and_many_columns(self) -> None:
        body = " ".join("%10d" % cpu for cpu in range(1152))
        table = parse_proc_interrupts("9999: %s   ITS-MSI 1 Edge x\n" % body)
        assert counts_by_cpu(table, 9999)[1151] == 1151
        assert table.lines[9999].hwirq == 1

    def test_what_is_no_line_is_listed(self) -> None:
        text = HEADER + "garbage\n 12 13: 5\nNMI: none\n: 5\n 24:\n\n\0\0\n25: 1 2 X 1 Edge y\n"
        table = parse_proc_interrupts(text)
        assert table.unparsed == ("garbage", " 12 13: 5", "NMI: none", ": 5", " 24:")
        assert list(table.lines) == [25]

    def test_unknown_interrupt_has_no_counts(self) -> None:
        assert counts_by_cpu(parsed("coreos"), 4711) == {}


class TestDelta:
    @staticmethod
    def table(cpus: tuple[int, ...], **counts: tuple[int, ...]) -> ProcInterrupts:
        lines = {int(irq[1:]): InterruptLine(int(irq[1:]), row, "X", 1, "edge", ("x",)) for irq, row in counts.items()}
        return ProcInterrupts(cpus, lines, {}, ())

    def test_cpu_that_went_or_came_is_left_out(self) -> None:
        before = self.table((0, 1, 2), i5=(10, 20, 30))
        after = self.table((0, 2, 3), i5=(10, 35, 1000))
        assert delta(before, after) == {5: {0: 0, 2: 5}}

    def test_interrupt_that_was_set_up_in_between(self) -> None:
        before, after = self.table((0, 1), i5=(1, 1)), self.table((0, 1), i6=(7, 0))
        assert delta(before, after) == {6: {0: 7, 1: 0}}

    @pytest.mark.parametrize(
        ("new", "is_new"),
        [
            (("ITS-MSI", 7, "edge", ("npu",)), False),
            (("ITS-MSI", 7, "edge", ("npu", "second")), False),
            (("ITS-MSI", 7, "edge", ()), False),
            (("ITS-MSI", None, "edge", ("npu",)), False),  # cut
            ((None, 7, "edge", ("npu",)), False),
            (("ITS-MSI", 8, "edge", ("npu",)), True),
            (("GICv3", 7, "edge", ("npu",)), True),
            (("ITS-MSI", 7, "edge", ("eth0",)), True),
        ],
    )
    def test_number_that_another_device_got(
        self, new: tuple[str | None, int | None, str, tuple[str, ...]], is_new: bool
    ) -> None:
        """Its counts are higher than the former owner's, so that they do not tell."""
        before = ProcInterrupts((0, 1), {29: InterruptLine(29, (10, 20), "ITS-MSI", 7, "edge", ("npu",))}, {}, ())
        after = before._replace(lines={29: InterruptLine(29, (100, 25), *new)})
        assert delta(before, after) == {29: {0: 100, 1: 25} if is_new else {0: 90, 1: 5}}

    def test_columns_without_a_header_are_those_of_the_other(self) -> None:
        known = self.table((0, 1, 3), i5=(1, 2, 3))
        bare = self.table((0, 1, 2), i5=(1, 2, 30))._replace(cpus_assumed=True)
        assert delta(known, bare) == {5: {0: 0, 1: 0, 3: 27}}
        assert delta(bare._replace(lines=known.lines), known._replace(lines=bare.lines)) == {5: {0: 0, 1: 0, 3: 27}}
        wider = self.table((0, 1, 2, 3), i5=(1, 2, 30, 4))._replace(cpus_assumed=True)
        assert delta(known, wider) == {5: {0: 0, 1: 0, 3: 1}}

    def test_count_that_started_again(self) -> None:
        assert delta(self.table((0,), i5=(500,)), self.table((0,), i5=(3,))) == {5: {0: 3}}

    def test_if_one_started_again_all_did(self) -> None:
        """CPU 1 has passed its old count since; CPU 2 was offline before."""
        before, after = self.table((0, 1), i5=(500, 7)), self.table((0, 1, 2), i5=(3, 9, 4))
        assert delta(before, after) == {5: {0: 3, 1: 9, 2: 4}}

    def test_count_that_wrapped(self) -> None:
        assert delta(self.table((0, 1), i5=(2**32 - 5, 7)), self.table((0, 1), i5=(10, 9))) == {5: {0: 15, 1: 2}}
        assert delta(self.table((0,), i5=(2**31,)), self.table((0,), i5=(0,))) == {5: {0: 2**31}}
        assert delta(self.table((0,), i5=(2**31 - 1,)), self.table((0,), i5=(0,))) == {5: {0: 0}}
        assert delta(self.table((0,), i5=(2**40,)), self.table((0,), i5=(9,))) == {5: {0: 9}}  # no counter of 32 bits

    def test_where_it_lands(self) -> None:
        assert landing({0: 0, 4: 3, 6: 1}) == {4: 0.75, 6: 0.25}
        assert landing({0: 0, 4: 0}) is None
        assert landing({}) is None


class TestMsi:
    def test_hwirq(self) -> None:
        assert interrupts.decode_hwirq(570949650) == MsiSource("0004:41:00.0", 18)
        assert interrupts.bdf_of_hwirq(512000) == "0000:00:1f.2"
        assert interrupts.bdf_of_hwirq((0x10000 << 27) | (0xE0 << 19) | (6 << 14)) == "10000:e0:06.0"
        assert interrupts.decode_hwirq(-1) is None
        assert interrupts.decode_hwirq(1 << 60) is None

    @pytest.mark.parametrize(
        ("actions", "expected"),
        [
            (("ahci[0000:00:1f.2]",), "0000:00:1f.2"),
            (("mlx5_async0@pci:5ee1:00:02.0",), "5ee1:00:02.0"),
            (("0000:03:00.0", "second@0000:03:00.0"), "0000:03:00.0"),
            (("0000:03:00.0", "0000:04:00.0"), None),  # devices that share a line
            (("00:1b:21:aa:0000:03:00.0",), None),  # a row of bytes
            (("10000:e0:06.0",), "10000:e0:06.0"),
            (("0000:03:00.01",), None),
            (("0000:03:00.8",), None),
            ((), None),
        ],
    )
    def test_names_that_tell(self, actions: tuple[str, ...], expected: str | None) -> None:
        assert bdf_of_line(InterruptLine(5, (1,), "IO-APIC", 16, "fasteoi", actions)) == expected

    @pytest.mark.parametrize(
        ("chip", "hwirq", "expected"),
        [
            ("ITS-MSI", 0, MsiSource("0000:00:00.0", 0)),
            ("ITS-PCI-MSI-0003:31:00.0", 2, MsiSource("0003:31:00.0", 2)),
            ("PCI-MSIX-0000:00:04.0", 1, MsiSource("0000:00:04.0", 1)),
            ("PCI-MSI", 524289, MsiSource("0000:01:00.0", 1)),
            ("ITS-pMSI", 524288, None),
            ("DMAR-MSI", 0, None),
            ("HPET-MSI", 2, None),
            ("GICv3", 524288, None),
            ("ITS-MSI", None, None),
            (None, 5, None),
            ("ITS-fMSI", 524288, None),
            ("MSI", 16384, MsiSource("0000:00:01.0", 0)),  # GICv2m, MBI
            ("pMSI", 16384, None),
            ("MIP-MSI", 524288, MsiSource("0000:01:00.0", 0)),
            ("MIP-MSI-0001:01:00.0", 3, MsiSource("0001:01:00.0", 3)),
            (
                "Hyper-V PCIe MSI",
                4138200989697,
                MsiSource("7870:00:00.0", 1),
            ),  # published with mana_q0@pci:7870:00:00.0
            ("HV-PCI-MSIX-7870:00:00.0", 1, MsiSource("7870:00:00.0", 1)),
            ("VMD-MSI", 126, None),  # the number of the interrupt that it shares
            ("VMD-MSI-10000:e1:00.0", 2, MsiSource("10000:e1:00.0", 2)),
            ("PNV-PCI-MSI", 134217728, MsiSource("0001:00:00.0", 0)),
            ("rp1_irq_chip", 6, None),
        ],
    )
    def test_source(self, chip: str | None, hwirq: int | None, expected: MsiSource | None) -> None:
        assert interrupts.msi_source(chip, hwirq) == expected


def small_box(tree: Tree) -> None:
    """Make a machine of 8 CPUs with three interrupts: 29 in use, 30 never requested, 5 old."""
    tree.cpus(8, "0-7")
    tree.files("/sys/devices/system/cpu", {"possible": "0-7"})
    tree.files(
        "/sys/kernel/irq/29",
        {
            "actions": "0003:31:00.0,second",
            "chip_name": "ITS-MSI",
            "hwirq": "428343296",
            "type": "edge",
            "per_cpu_count": "1,0,0,0,70,0,0,0",
            "name": "",
        },
    )
    tree.files(
        "/sys/kernel/irq/30",
        {
            "actions": "",
            "chip_name": "ITS-MSI",
            "hwirq": "428343297",
            "type": "edge",
            "per_cpu_count": "0,0,0,0,0,0,0,0",
        },
    )
    tree.files("/proc/irq/29", {"smp_affinity_list": "4-7", "effective_affinity_list": "4", "smp_affinity": "f0"})
    tree.files("/proc/irq/5", {"smp_affinity": "03"})
    tree.files("/proc/irq", {"default_smp_affinity": "ff"})
    for irq in (29, 30):
        tree.file("/sys/bus/pci/devices/0003:31:00.0/msi_irqs/%d" % irq, "msi\n")
    tree.file(
        "/proc/interrupts",
        "           " + "".join("CPU%-8d" % cpu for cpu in range(8)) + "\n"
        " 29: 1 0 0 0 80 0 0 0   ITS-MSI 428343296 Edge      0003:31:00.0, second\n"
        "  5: 3 0 0 0 0 0 0 0   GICv3 11 Level     timer\n",
    )


class TestRead:
    def test_few_come_from_single_files(self, tree: Tree) -> None:
        small_box(tree)
        found = interrupts.read_interrupts(tree.root, [29])
        assert found == {
            29: interrupts.Interrupt(
                29,
                "ITS-MSI",
                "428343296",
                "edge",
                ("0003:31:00.0", "second"),
                (4, 5, 6, 7),
                (4,),
                {0: 1, 1: 0, 2: 0, 3: 0, 4: 70, 5: 0, 6: 0, 7: 0},
                True,
                True,
            )
        }

    def test_one_that_can_never_be_moved(self, tree: Tree) -> None:
        """Since 6.12 its file is read-only. A captured tree may have lost all modes: then nothing is told."""
        small_box(tree)
        (tree.path / "proc/irq/29/smp_affinity_list").chmod(0o444)
        found = interrupts.read_interrupts(tree.root, [29, 30])
        assert [one.settable for one in found.values()] == [False, None]
        (tree.path / "proc/irq/default_smp_affinity").chmod(0o444)
        assert interrupts.read_interrupts(tree.root, [29])[29].settable is None

    def test_many_come_from_the_table(self, tree: Tree) -> None:
        small_box(tree)
        found = interrupts.read_interrupts(tree.root, range(40))
        assert sorted(found) == [5, 29, 30]
        assert found[29].counts[4] == 80
        assert found[29].actions == ("0003:31:00.0", "second")

    def test_all(self, tree: Tree) -> None:
        small_box(tree)
        found = interrupts.read_interrupts(tree.root)
        assert list(found) == [5, 29, 30]
        assert found[29].counts[4] == 80
        assert (found[29].effective, found[29].has_proc_irq) == ((4,), True)

    def test_table_alone(self, tree: Tree) -> None:
        """All that is left of a host in many a bug report."""
        tree.file("/proc/interrupts", captured("interrupts/x86-eight-ax650n-no-header.txt"))
        found = interrupts.read_interrupts(tree.root)
        assert list(found) == [143, 147, 151, 155, 159, 163, 167, 171]
        assert (found[147].has_proc_irq, found[147].affinity, found[147].counts[2]) == (False, None, 70)

    def test_table_without_header_and_with_an_offline_cpu(self, tree: Tree) -> None:
        rows = captured("interrupts/x86-cpu6-offline.txt").splitlines()
        tree.file("/proc/interrupts", "\n".join(rows[1:]))
        tree.cpus(8, "0-5,7")
        assert interrupts.read_interrupts(tree.root)[33].counts == {0: 0, 1: 0, 2: 0, 3: 54232, 4: 0, 5: 0, 7: 0}

    def test_vector_that_no_driver_requested(self, tree: Tree) -> None:
        small_box(tree)
        vector = interrupts.read_interrupts(tree.root)[30]
        assert (vector.has_proc_irq, vector.affinity, vector.effective, vector.actions) == (False, None, None, ())
        assert vector.hwirq == "428343297"
        assert sum(vector.counts.values()) == 0

    def test_kernel_without_sys_kernel_irq(self, tree: Tree) -> None:
        small_box(tree)
        old = interrupts.read_interrupts(tree.root, [5])[5]
        assert (old.chip, old.hwirq, old.trigger, old.actions) == ("GICv3", "11", "level", ("timer",))
        assert old.counts[0] == 3
        assert (old.affinity, old.effective) == ((0, 1), None)  # from the mask: there is no list file

    def test_unknown_interrupt_is_left_out(self, tree: Tree) -> None:
        small_box(tree)
        assert interrupts.read_interrupts(tree.root, [77]) == {}

    def test_counts_are_read_on_demand_only(self, tree: Tree) -> None:
        small_box(tree)
        assert interrupts.read_interrupts(tree.root, [29], counts=False)[29].counts == {}

    def test_count_file_cut_at_a_page_is_not_trusted(self, tree: Tree) -> None:
        small_box(tree)
        tree.file("/sys/kernel/irq/29/per_cpu_count", "1,0,0,0,70,0,0\n")
        assert interrupts.read_interrupts(tree.root, [29])[29].counts[4] == 80
        text = ",".join(["4294967295"] * 500)
        for page in (4096, 16384, 65536):
            assert interrupts.parse_per_cpu_count((text * 20)[: page - 1], None) is None
        assert interrupts.parse_per_cpu_count("1,2,3", (0, 2, 5)) == {0: 1, 2: 2, 5: 3}
        assert interrupts.parse_per_cpu_count("1,,3", None) is None

    def test_effective_affinity_that_the_kernel_prints_empty(self, tree: Tree) -> None:
        small_box(tree)
        tree.file("/proc/irq/29/effective_affinity_list", "\n")
        assert interrupts.read_interrupts(tree.root, [29])[29].effective == ()

    def test_effective_affinity_that_is_not_there(self, tree: Tree) -> None:
        small_box(tree)
        (tree.path / "proc/irq/29/effective_affinity_list").unlink()
        assert interrupts.read_interrupts(tree.root, [29])[29].effective is None

    def test_coreos_proc_irq(self, tree: Tree) -> None:
        tree.listing(captured("sysfs/coreos-proc-irq.txt"))
        tree.file("/proc/interrupts", captured("interrupts/coreos.txt"))
        found = interrupts.read_interrupts(tree.root)
        assert list(found) == list(range(16))
        assert {irq: entry.effective for irq, entry in found.items() if entry.effective != (0,)} == {8: (1,)}
        assert all(entry.affinity == (0, 1) for entry in found.values())
        assert found[8].counts == {0: 0, 1: 1}
        assert (found[3].chip, found[3].counts, found[3].has_proc_irq) == (None, {}, True)
        assert interrupts.default_affinity(tree.root) == (0, 1)

    def test_empty_tree(self, tree: Tree) -> None:
        assert interrupts.read_interrupts(tree.root) == {}
        assert interrupts.default_affinity(tree.root) is None
        assert interrupts.read_thread(tree.root, 29) is None


def process(tree: Tree, pid: int, comm: str, flags: int = 0x208040, policy: int = 1) -> None:
    fields = ["0"] * 50
    fields[0], fields[6], fields[37], fields[38] = "S", str(flags), "50", str(policy)
    tree.files(
        "/proc/%d" % pid,
        {
            "comm": comm,
            "stat": "%d (%s) %s" % (pid, comm, " ".join(fields)),
            "status": "Name:\t%s\nCpus_allowed:\tf0\nCpus_allowed_list:\t4-7\nMems_allowed:\t1" % comm,
        },
    )


class TestThread:
    def test_found_by_number(self, tree: Tree) -> None:
        process(tree, 1, "systemd", flags=0x400100, policy=0)
        process(tree, 88, "irq/290-0003:31")
        process(tree, 120, "irq/29-0003:31:")
        assert interrupts.read_thread(tree.root, 29) == Thread(120, "irq/29-0003:31:", (4, 5, 6, 7), "fifo", 50)
        assert interrupts.read_thread(tree.root, 2) is None

    def test_first_thread_before_the_forced_second(self, tree: Tree) -> None:
        process(tree, 90, "irq/29-s-eth0")
        process(tree, 120, "irq/29-eth0")
        thread = interrupts.read_thread(tree.root, 29)
        assert thread is not None
        assert thread.pid == 120

    def test_program_of_that_name_is_none(self, tree: Tree) -> None:
        process(tree, 120, "irq/29-fake", flags=0x400000)
        assert interrupts.read_thread(tree.root, 29) is None

    def test_stat_with_brackets_in_the_name(self) -> None:
        fields = ["S"] + ["7"] * 40
        assert interrupts.parse_stat("5 (a) (b) %s" % " ".join(fields)) == ("a) (b", 7, 7, 7)
        assert interrupts.parse_stat("") is None
        assert interrupts.parse_stat("5 (short) S 1 2") is None
