# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import interrupts
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import (
    InterruptLine,
    MsiSource,
    ProcInterrupts,
    Thread,
    bdf_of_line,
    counts_by_cpu,
    delta,
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
            ("x86-eight-ax650n-no-header", 8, 0, None),
            ("rock5itx-before", 3, 0, 8),
            ("graviton", 51, 8, 8),
            ("nanopi-r4s", 38, 8, 6),
            ("rpi4", 15, 8, 4),
            ("rpi4-eth0-before", 3, 0, 4),
            ("rpi4-eth0-after", 2, 0, None),
            ("x86-laptop", 19, 19, 8),
            ("x86-cpu6-offline", 21, 22, 7),
            ("coreos", 2, 22, 2),
            ("opi5plus-head", 8, 0, 8),
        ],
    )
    def test_every_line_is_understood(self, name: str, lines: int, named: int, columns: int | None) -> None:
        table = parsed(name)
        assert table.unparsed == ()
        assert (len(table.lines), len(table.per_cpu)) == (lines, named)
        assert (None if table.cpus is None else len(table.cpus)) == columns
        for line in table.lines.values():
            assert len(line.counts) == (columns or len(line.counts))
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

    def test_nanopi_r4s(self) -> None:
        table = parsed("nanopi-r4s")
        assert (home(table, 35), home(table, 87)) == (4, 5)
        assert bdf_of_line(table.lines[35]) is None
        assert bdf_of_line(table.lines[87]) == "0000:01:00.0"
        assert table.lines[26].chip == "GICv3-23"
        assert table.lines[78][2:] == ("rk808", 5, "edge", ("RTC alarm",))
        assert table.lines[84].actions == ("PCIe PME", "aerdrv")

    def test_rpi4(self) -> None:
        table = parsed("rpi4")
        assert table.lines[46][2:] == ("BRCM STB PCIe MSI", 524288, "edge", ("xhci_hcd",))
        assert bdf_of_line(table.lines[46]) == "0000:01:00.0"
        assert home(table, 46) == 0
        assert table.lines[32].actions == ("mmc1", "mmc0")
        assert table.lines[12].actions == ("kvm guest vtimer",)

    def test_rpi4_old_counts_stay_where_they_were(self) -> None:
        moved = delta(parsed("rpi4-eth0-before"), parsed("rpi4-eth0-after"))
        assert moved == {38: {0: 0, 1: 107186, 2: 0, 3: 0}, 39: {0: 0, 1: 0, 2: 398379, 3: 0}}

    def test_laptop(self) -> None:
        table = parsed("x86-laptop")
        counts = counts_by_cpu(table, 29)
        assert counts[0] / sum(counts.values()) == pytest.approx(0.686, abs=0.002)
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
        assert {bdf_of_line(table.lines[irq]) for irq in range(25, 33)} == {"0000:07:00.0"}
        assert table.per_cpu["NMI"][-1] == 137
        assert bdf_of_line(table.lines[24]) == "0000:00:1f.2"

    def test_opi5plus(self) -> None:
        table = parsed("opi5plus-head")
        assert home(table, 19) == 2
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
            ("- something", ("-", None, None, ("something",))),
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
        assert counts_by_cpu(table, 24) == {0: 1, 1: 2, 2: 3, 3: 4}

    @pytest.mark.parametrize("header", ["CPU0 CPU2", "CPU0 CPU1 CPU2 CPU3"])
    def test_columns_of_another_number_than_the_header(self, header: str) -> None:
        table = parse_proc_interrupts(header + "\n 24:  1   2  3  GICv3  3 Edge   x\n")
        assert table.lines[24].counts == (1, 2, 3)
        assert counts_by_cpu(table, 24) == {}

    def test_more_than_999_cpus(self) -> None:
        header = "".join("CPU%-8d" % cpu for cpu in range(1152))
        body = " ".join("%10d" % cpu for cpu in range(1152))
        table = parse_proc_interrupts("%s\n9999: %s   ITS-MSI 1 Edge x\n" % (header, body))
        assert counts_by_cpu(table, 9999) == {cpu: cpu for cpu in range(1152)}

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

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(st.text(alphabet="CPU0123456789:.-, \n\tEdgeLevlNMI\0\u0663", max_size=300))
    def test_any_text(self, text: str) -> None:
        table = parse_proc_interrupts(text)
        for irq in table.lines:
            assert irq >= 0
            assert len(counts_by_cpu(table, irq)) in (0, len(table.lines[irq].counts))
        lines = [line for line in text.splitlines() if line.strip("\0 \t")]
        assert len(table.lines) + len(table.per_cpu) + len(table.unparsed) <= len(lines)

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(st.data())
    def test_what_the_kernel_would_print_is_read_back(self, data: st.DataObject) -> None:
        cpus = sorted(data.draw(st.sets(st.integers(0, 2000), min_size=1, max_size=20)))
        wanted = {}
        text = "           " + "".join("CPU%-8d" % cpu for cpu in cpus) + "\n"
        for irq in sorted(data.draw(st.sets(st.integers(0, 9999), max_size=6))):
            counts = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=len(cpus), max_size=len(cpus)))
            chip = data.draw(st.sampled_from(["GICv3", "ITS-MSI", "BRCM STB PCIe MSI", "GICv3-23", "-"]))
            hwirq = data.draw(st.integers(0, 2**40))
            actions = data.draw(st.lists(st.sampled_from(["eth0", "PCIe PME", "0000:01:00.0"]), max_size=3))
            row = "%3d: " % irq + "".join("%10u " % count for count in counts)
            row += " %8s %3d %-8s" % (chip, hwirq, "Edge")
            text += row + ("  " + ", ".join(actions) if actions else "") + "\n"
            wanted[irq] = InterruptLine(irq, tuple(counts), chip, hwirq, "edge", tuple(actions))
        table = parse_proc_interrupts(text)
        assert table == ProcInterrupts(tuple(cpus), wanted, {}, ())


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

    def test_count_that_started_again(self) -> None:
        assert delta(self.table((0,), i5=(500,)), self.table((0,), i5=(3,))) == {5: {0: 3}}

    def test_count_that_wrapped(self) -> None:
        assert delta(self.table((0,), i5=(2**32 - 5,)), self.table((0,), i5=(10,))) == {5: {0: 15}}


class TestMsi:
    def test_hwirq(self) -> None:
        assert interrupts.decode_hwirq(570949650) == MsiSource("0004:41:00.0", 18)
        assert interrupts.bdf_of_hwirq(512000) == "0000:00:1f.2"
        assert interrupts.bdf_of_hwirq((0x10000 << 27) | (0xE0 << 19) | (6 << 14)) == "10000:e0:06.0"
        assert interrupts.decode_hwirq(-1) is None
        assert interrupts.decode_hwirq(1 << 60) is None

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
        assert interrupts.parse_per_cpu_count(text[:4095], None) is None
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
