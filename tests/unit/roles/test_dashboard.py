# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Grafana dashboard can be imported anywhere, and asks only for metrics and labels that hosts have."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any, Dict, Iterator, List, Set

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.metrics import Run, agent_page, host_page
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import Aer
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.decide.test_axcl_findings import HEALTHY
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

PATH = pathlib.Path(__file__).parents[3] / "roles" / "diagnostics" / "files" / "grafana-dashboard.json"
DASHBOARD: Dict[str, Any] = json.loads(PATH.read_text("utf-8"))
OF_PROMETHEUS = {"instance", "job", "__name__"}  # labels that every scraped sample gets


@pytest.fixture(name="labels")
def fixture_labels(tmp_path: pathlib.Path) -> Dict[str, Set[str]]:
    """The labels of every metric that there is."""
    board = hosts.Board(Tree(tmp_path))
    board.wishes("irq_affinity", AffinityWishes(BUILT_IN).to_data())
    board.wishes("governor", ClockWishes().to_data())
    snapshot = look(board.root, BUILT_IN)
    served = snapshot.interrupts[38]._replace(counts={0: 7})
    devices = tuple(device._replace(aer=Aer({}, {}, {})) for device in snapshot.devices)
    snapshot = snapshot._replace(interrupts={38: served}, devices=devices, axcl=HEALTHY)
    pages = host_page(snapshot, 1.0), agent_page(Run(1, 1, 0, 0, 0))
    return {
        sample.name: set(sample.labels)
        for page in pages
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def everything(value: Any) -> Iterator[Dict[str, Any]]:
    """Yield every object in the dashboard."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from everything(inner)


def queries() -> List[str]:
    return [one["expr"] for one in everything(DASHBOARD) if "expr" in one]


def test_no_identities_of_one_installation() -> None:
    assert not {"id", "uid", "gnetId", "__inputs"} & set(DASHBOARD)
    assert [panel["title"] for panel in DASHBOARD["panels"] if "id" in panel] == []
    assert {one["uid"] for one in everything(DASHBOARD) if "uid" in one} == {"${datasource}"}
    variables = {one["name"]: one["type"] for one in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query"}


def test_every_panel_asks_the_chosen_source_and_hosts() -> None:
    assert len(queries()) > 15
    for panel in DASHBOARD["panels"]:
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert target["expr"].count("edgenpu_") == target["expr"].count('{instance=~"$instance"')
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_metrics_and_labels_exist(labels: Dict[str, Set[str]]) -> None:
    for query in [*queries(), DASHBOARD["templating"]["list"][1]["definition"]]:
        names = re.findall(r"edgenpu_\w+", query)
        assert names, query
        for name in names:
            assert name in labels, query
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query))
        for grouped in re.findall(r"by \(([^)]*)\)", query):
            asked.update(word.strip() for word in grouped.split(","))
        assert asked <= OF_PROMETHEUS.union(*(labels[name] for name in names)), query
        counted = [name for name in names if re.search(r"(?:rate|increase)\(%s" % name, query)]
        assert counted == [name for name in names if name.endswith("_total")], query


def test_legends_name_labels_that_exist(labels: Dict[str, Set[str]]) -> None:
    for target in everything(DASHBOARD):
        if "legendFormat" in target:
            [name] = re.findall(r"edgenpu_\w+", target["expr"])
            words = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            known = {word.strip() for one in grouped for word in one.split(",")} or OF_PROMETHEUS | labels[name]
            assert words <= known, target


def test_panels_do_not_overlap() -> None:
    taken: Set[Any] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
