# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics as Prometheus' own parser reads them, and the wishes for them."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.agent import keep_in_force
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import Snapshot
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.metrics import (
    MetricsWishes,
    Run,
    agent_page,
    host_page,
    span_s,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import COLLECTION_VERSION, WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import Aer
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.decide.test_axcl_findings import answer, box
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe import pcie_trees
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

NOW_S = 1790000000.25
RUN = Run(NOW_S, 0.4375, 3, 1, 0)
Samples = Dict[Tuple[str, Tuple[Tuple[str, str], ...]], float]


def parsed(page: str) -> Samples:
    """Return the samples of a page by name and labels; none of them is there twice."""
    samples: Samples = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples
            samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> Optional[float]:
    return samples.get(("edgenpu_" + name, tuple(sorted(labels.items()))))


def labels_of(samples: Samples, name: str) -> List[Dict[str, str]]:
    return [dict(labels) for found, labels in samples if found == "edgenpu_" + name]


@pytest.fixture(name="board")
def fixture_board(tree: Tree) -> hosts.Board:
    board = hosts.Board(tree)
    board.wishes("irq_affinity", AffinityWishes(BUILT_IN).to_data())
    board.wishes("governor", ClockWishes().to_data())
    return board


def of(tree: Tree, agent: Optional[str] = None) -> Samples:
    return parsed(host_page(look(tree.root, BUILT_IN), NOW_S, agent))


class TestHost:
    def test_card(self, board: hosts.Board) -> None:
        samples = of(board.tree, "agent-0123456789abcdef")
        version = {"version": COLLECTION_VERSION, "agent": "agent-0123456789abcdef"}
        assert value(samples, "build_info", **version) == 1
        assert value(samples, "host_info", model="FriendlyElec CM3588 NAS", kernel="6.1.57") == 1
        assert value(samples, "diagnosis_timestamp_seconds") == NOW_S
        assert value(samples, "cards") == 1
        card = {"bdf": hosts.BDF}
        assert value(samples, "card_present", npu="Axera AX650N", **card) == 1
        assert value(samples, "card_alive", **card) == 1
        assert value(samples, "card_bound", **card) == 1
        assert labels_of(samples, "card_info") == [
            {"driver": "ax_pcie_dev_host", "npu": "Axera AX650N", "slot": "fe180000.pcie", **card}
        ]
        assert value(samples, "link_speed_transfers_per_second", **card) == 5e9
        assert value(samples, "link_width_lanes", **card) == 1
        assert value(samples, "link_possible_speed_transfers_per_second", **card) == 5e9
        assert value(samples, "link_possible_width_lanes", **card) == 1
        assert value(samples, "card_max_payload_bytes", **card) == 128
        assert value(samples, "card_max_read_request_bytes", **card) == 512
        for name in ("card_bandwidth_bytes_per_second", "card_shared_bandwidth_bytes_per_second"):
            assert value(samples, name, direction="read", **card) == pytest.approx(410.3e6, rel=1e-3)
            assert value(samples, name, direction="write", **card) == pytest.approx(453.7e6, rel=1e-3)

    def test_what_a_card_tells_of_itself(self) -> None:
        """The table of a published card: 54 C, 0 and 0 %, 144 of 945 and 18 of 7040 MiB."""
        card = {"bdf": hosts.BDF}
        samples = parsed(host_page(box(), NOW_S))
        row = box().axcl.table.cards[0]
        assert value(samples, "card_temperature_celsius", **card) == row.temperature_c == 54
        assert value(samples, "card_cpu_usage_ratio", **card) == row.cpu_percent / 100
        assert value(samples, "card_npu_usage_ratio", **card) == row.npu_percent / 100
        assert value(samples, "card_memory_used_bytes", **card) == row.memory_mib.used * 1048576
        assert value(samples, "card_memory_size_bytes", **card) == row.memory_mib.total * 1048576
        assert value(samples, "card_cmm_used_bytes", **card) == row.cmm_mib.used * 1048576
        assert value(samples, "card_cmm_size_bytes", **card) == row.cmm_mib.total * 1048576

    def test_card_that_was_not_asked(self) -> None:
        names = {name for name, _labels in parsed(host_page(box(table=None), NOW_S))}
        assert not {name for name in names if name.endswith(("_celsius", "_ratio", "_used_bytes"))}

    def test_card_whose_tool_shows_no_domain(self) -> None:
        """Its samples have the address that all others have."""
        table = answer()
        short = table._replace(cards=(table.cards[0]._replace(bdf="0000:31:00.0"),))
        samples = parsed(host_page(box(table=short), NOW_S))
        assert labels_of(samples, "card_temperature_celsius") == [{"bdf": hosts.BDF}]

    def test_wishes_before_and_after_a_run(self, board: hosts.Board) -> None:
        before = of(board.tree)
        place = {"bdf": hosts.BDF, "vector": "0"}
        assert value(before, "interrupt_on_wished_cpu", **place) == 0
        assert value(before, "cpufreq_policy_governor_as_wished", policy="policy4") == 0
        assert value(before, "cpufreq_policy_governor_as_wished", policy="policy0") == 1
        assert value(before, "drift_values", role="irq_affinity") == 1
        assert value(before, "drift_values", role="governor") == 2
        assert labels_of(before, "wishes_kept") == [{"role": "governor"}, {"role": "irq_affinity"}]
        keep_in_force(board.kernel)
        after = of(board.tree)
        assert value(after, "interrupt_on_wished_cpu", **place) == 1
        assert value(after, "cpufreq_policy_governor_as_wished", policy="policy4") == 1
        assert value(after, "drift_values", role="irq_affinity") == 0
        assert value(after, "drift_values", role="governor") == 0

    def test_findings(self, board: hosts.Board) -> None:
        samples = of(board.tree)
        assert value(samples, "findings", severity="critical") == 0
        assert value(samples, "findings", severity="warning") == 6
        assert value(samples, "finding", id="clock_drops", severity="warning") == 2
        assert value(samples, "finding", id="drift", severity="warning") == 2
        assert value(samples, "finding", id="interrupt_on_slow_core", severity="warning") == 1
        total = sum(one for (name, _labels), one in samples.items() if name == "edgenpu_finding")
        assert total == sum(one for (name, _labels), one in samples.items() if name == "edgenpu_findings")

    def test_clocks(self, board: hosts.Board) -> None:
        samples = of(board.tree)
        fast = {"policy": "policy4", "cpus": "4-5"}
        assert value(samples, "cpufreq_policy_frequency_hertz", **fast) == 408e6
        assert value(samples, "cpufreq_policy_limit_hertz", **fast) == 2400e6
        assert value(samples, "cpufreq_policy_hardware_limit_hertz", **fast) == 2400e6
        assert value(samples, "cpufreq_policy_governor_info", policy="policy4", governor="schedutil") == 1

    def test_counts(self, board: hosts.Board) -> None:
        snapshot = look(board.root, BUILT_IN)
        served = snapshot.interrupts[38]._replace(counts={0: 7, 1: 0, 4: 123456789012})
        errors = Aer({"RxErr": 2, "BadTLP": 3}, {"DLP": 0}, {"DLP": 1})
        devices = tuple(device._replace(aer=errors) for device in snapshot.devices)
        samples = parsed(host_page(snapshot._replace(interrupts={38: served}, devices=devices), NOW_S))
        card = {"bdf": hosts.BDF, "vector": "0"}
        assert value(samples, "interrupts_total", cpu="4", **card) == 123456789012
        assert {labels["cpu"] for labels in labels_of(samples, "interrupts_total")} == {"0", "4"}
        for bdf in (hosts.BDF, "0003:30:00.0"):
            found = [value(samples, "pcie_errors_total", bdf=bdf, severity=one) for one in ("correctable", "nonfatal")]
            assert found == [5, 0]
            assert value(samples, "pcie_errors_total", bdf=bdf, severity="fatal") == 1

    def test_eight_cards(self, tree: Tree) -> None:
        hosts.Board(tree, card=False)
        pcie_trees.eight_cards(tree, (3, 1))
        samples = of(tree)
        assert value(samples, "cards") == 8
        assert len(labels_of(samples, "card_present")) == 8
        one = labels_of(samples, "card_present")[0]["bdf"]
        alone = value(samples, "card_bandwidth_bytes_per_second", bdf=one, direction="read")
        shared = value(samples, "card_shared_bandwidth_bytes_per_second", bdf=one, direction="read")
        assert alone is not None and shared is not None and shared < alone

    def test_dead_card(self, board: hosts.Board) -> None:
        config = board.tree.path / "sys/devices" / hosts.SLOT / hosts.BDF / "config"
        config.write_bytes(b"\xff" * 256)
        samples = of(board.tree)
        assert value(samples, "card_alive", bdf=hosts.BDF) == 0
        assert value(samples, "findings", severity="critical") == 1
        assert labels_of(samples, "link_speed_transfers_per_second") == []

    def test_no_card(self, tree: Tree) -> None:
        hosts.Board(tree, card=False)
        samples = of(tree)
        assert value(samples, "cards") == 0
        assert labels_of(samples, "card_present") == []

    def test_nothing_is_known(self, tree: Tree) -> None:
        tree.file("/sys/.keep")
        samples = of(tree)
        assert value(samples, "host_info", model="", kernel="") == 1
        assert value(samples, "cards") == 0


def test_agent() -> None:
    samples = parsed(agent_page(RUN))
    assert {name: one for (name, _labels), one in samples.items()} == {
        "edgenpu_agent_last_run_timestamp_seconds": NOW_S,
        "edgenpu_agent_last_run_duration_seconds": 0.438,
        "edgenpu_agent_last_run_changes": 3,
        "edgenpu_agent_last_run_refused": 1,
        "edgenpu_agent_last_run_problems": 0,
    }


class TestFormat:
    """What Prometheus' naming guide asks for, and promtool checks."""

    @pytest.fixture(name="pages")
    def fixture_pages(self, board: hosts.Board) -> List[str]:
        snapshot = look(board.root, BUILT_IN)
        served = snapshot.interrupts[38]._replace(counts={0: 7})
        devices = tuple(device._replace(aer=Aer({}, {}, {})) for device in snapshot.devices)
        return [
            host_page(snapshot._replace(interrupts={38: served}, devices=devices), NOW_S, "agent-x"),
            agent_page(RUN),
        ]

    def test_every_metric_has_help_and_type(self, pages: List[str]) -> None:
        for page in pages:
            heads = re.findall(r"^# (HELP|TYPE) (\S+)", page, re.MULTILINE)
            names = [name for word, name in heads if word == "TYPE"]
            assert heads == [pair for name in names for pair in (("HELP", name), ("TYPE", name))]
            assert len(set(names)) == len(names) > 4
            assert page.endswith("\n") and "\n\n" not in page
            for family in text_string_to_metric_families(page):
                assert family.documentation.endswith(".") and family.samples, family.name

    def test_names(self, pages: List[str]) -> None:
        units = ("_seconds", "_bytes", "_hertz", "_per_second", "_lanes", "_info", "_total")
        plain = {
            "cards", "card_present", "card_alive", "card_bound", "finding", "findings", "drift_values", "wishes_kept",
            "interrupt_on_wished_cpu", "cpufreq_policy_governor_as_wished", "agent_last_run_changes",
            "agent_last_run_refused", "agent_last_run_problems",
        }  # fmt: skip
        kinds = dict(re.findall(r"^# TYPE edgenpu_([a-z_]+) (\w+)$", "".join(pages), re.MULTILINE))
        assert len(kinds) == "".join(pages).count("# TYPE ")
        for name, kind in kinds.items():
            assert (kind == "counter") == name.endswith("_total"), name
            assert name.endswith(units) != (name in plain), name
            assert not re.search(r"mhz|khz|mb_|_gt_|milli|micro|kilo|mega|giga", name), name

    def test_the_two_files_have_no_metric_in_common(self, pages: List[str]) -> None:
        first, second = ({family.name for family in text_string_to_metric_families(page)} for page in pages)
        assert not first & second

    @hosts.STEADY
    @given(st.text(), st.text())
    def test_labels_are_escaped(self, model: str, kernel: str) -> None:
        """Names come from firmware and from users: whatever they hold, the page stays readable, and says it."""
        host = SNAPSHOT.host._replace(model=model, kernel=kernel)
        page = host_page(SNAPSHOT._replace(host=host), NOW_S).encode("utf-8", "replace").decode("utf-8")
        [found] = labels_of(parsed(page), "host_info")
        given = {"model": model, "kernel": kernel}
        assert found == {name: text.encode("utf-8", "replace").decode("utf-8") for name, text in given.items()}


class TestWishes:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("5min", 300),
            ("90", 90),
            ("1h 30min", 5400),
            ("1h30m", 5400),
            ("1.5h", 5400),
            ("2 days", 172800),
            ("1w", 604800),
            ("1M", 2629800),
            ("1m", 60),
            ("1y", 31557600),
            ("30000 ms", 30),
            ("60000000us", 60),
            ("60000000\u00b5s", 60),
        ],
    )
    def test_spans(self, text: str, seconds: float) -> None:
        assert span_s(text) == pytest.approx(seconds)

    @pytest.mark.parametrize(
        "text",
        ["", " ", "infinity", "5 mins", "-5min", "min", "5min\nExec=x", "5%h", "*:0/5", "1e3", "5;6", "5min #", "."],
    )
    def test_no_spans(self, text: str) -> None:
        assert span_s(text) is None
        with pytest.raises(WishError, match=r"^interval: .* is no time span of systemd; write one such as 5min"):
            MetricsWishes.from_data({"directory": "/var/lib/x", "interval": text})

    @pytest.mark.parametrize("text", ["0", "9s", "9999ms"])
    def test_too_often(self, text: str) -> None:
        with pytest.raises(WishError, match=r"^interval: .* is less than 10 s"):
            MetricsWishes.from_data({"directory": "/var/lib/x", "interval": text})
        assert MetricsWishes.from_data({"directory": "/var/lib/x", "interval": "10s"}).interval == "10s"
        with pytest.raises(WishError, match=r"^interval: .* is more than a year"):
            MetricsWishes.from_data({"directory": "/var/lib/x", "interval": "99999999y"})
        with pytest.raises(WishError, match="is no time span"):
            MetricsWishes.from_data({"directory": "/var/lib/x", "interval": "5min\n5min"})

    @pytest.mark.parametrize("path", ["", "/", "x", "./x", "/x/../y", "/x/./y", "/x//y", "/x\n/y", 5, None])
    def test_no_directories(self, path: Any) -> None:
        with pytest.raises(WishError, match=r"^directory: .* is no absolute path"):
            MetricsWishes.from_data({"directory": path, "interval": "5min"})

    @pytest.mark.parametrize("path", ["/proc/x", "/sys", "/dev/shm"])
    def test_directories_of_the_kernel(self, path: str) -> None:
        with pytest.raises(WishError, match=r"^directory: %s belongs to the kernel" % path):
            MetricsWishes.from_data({"directory": path, "interval": "5min"})

    def test_there_and_back(self) -> None:
        wishes = MetricsWishes.from_data({"directory": "/var/lib/x y/", "interval": " 5min "})
        assert (wishes.directory, wishes.interval, wishes.catalogue) == ("/var/lib/x y", "5min", BUILT_IN)
        assert wishes.paths == ("/var/lib/x y/edgenpu_tuning.prom", "/var/lib/x y/edgenpu_tuning_agent.prom")
        assert MetricsWishes.from_data(wishes.to_data()) == wishes


def _snapshot() -> Snapshot:
    import pathlib
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        return look(hosts.Board(Tree(pathlib.Path(directory))).root, BUILT_IN)


SNAPSHOT = _snapshot()
