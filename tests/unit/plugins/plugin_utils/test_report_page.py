# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pages as text: one file, everything escaped, the same from the same reports. How they look is tests/report's."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import re
from typing import Any, Dict, List, Optional, Tuple

import pytest

from ansible_collections.edgenpu.tuning.plugins.plugin_utils import report_page
from ansible_collections.edgenpu.tuning.plugins.plugin_utils.report_page import Box, box_page, fleet_page
from ansible_collections.edgenpu.tuning.plugins.plugin_utils.report_view import NotAReport
from ansible_collections.edgenpu.tuning.tests.unit.plugins.plugin_utils.staged import HOSTILE, Stage

Attributes = List[Tuple[str, Optional[str]]]
VOID = {"meta", "link", "input", "path", "circle", "use", "br", "img"}


class Page(html.parser.HTMLParser):
    """A page's elements and texts; raises where what is opened is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: List[Tuple[str, Dict[str, Optional[str]]]] = []
        self.text = ""
        self._open: List[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, name: str) -> List[Optional[str]]:
        """Return all values of one attribute."""
        return [attributes[name] for _tag, attributes in self.elements if name in attributes]


def boxes(stage: Stage) -> List[Box]:
    return [Box(name, report, "2026-01-31 12:00") for name, report in stage.fleet().items()]


def test_pages_are_well_formed_and_fetch_nothing(stage: Stage) -> None:
    whole = boxes(stage)
    for text in [fleet_page(whole), *map(box_page, whole)]:
        page = Page(text)
        assert not re.search(r"https?://|@import|url\(", text)
        assert {tag for tag, _attributes in page.elements} & {"img", "iframe", "object"} == set()
        assert [value for value in page.attributes("href") if not (value or "").startswith(("#", "data:,"))] == []
        assert page.attributes("src") == []
        ids = page.attributes("id")
        assert len(ids) == len(set(ids))
        assert [name for name in page.attributes("aria-label") if not name] == []
        assert [one for _tag, one in page.elements if any(name.startswith("on") for name in one)] == []


def test_table_has_all_boxes_gravest_first_and_every_row_leads_to_one(stage: Stage) -> None:
    page = Page(fleet_page(boxes(stage)))
    anchors = [value for value in page.attributes("href") if (value or "").startswith("#box-")]
    assert anchors == [
        "#box-" + name for name in ("nas-cellar", "nas-lab", "nas-rack", "workstation", "kiosk-3", "nas-attic")
    ]
    articles = [one.get("id") for tag, one in page.elements if tag == "article"]
    assert ["#%s" % key for key in articles] == anchors


def test_policy_lets_our_script_run_and_no_other(stage: Stage) -> None:
    text = fleet_page([Box("nas", stage("two_cards"), None)])
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert "default-src 'none'" in policy and "script-src 'sha256-%s'" % digest in policy
    assert "<script" not in box_page(Box("nas", stage("dead_card"), None))


def test_hostile_texts_stay_texts(stage: Stage) -> None:
    report = stage("two_cards")
    report["host"]["model"] = report["host"]["kernel"] = HOSTILE
    report["findings"][0].update(summary=HOSTILE, remedy=HOSTILE, evidence={HOSTILE: [HOSTILE]}, role=HOSTILE)
    told = {"what": HOSTILE, "role": HOSTILE, "summaries": [HOSTILE], "expected_gain": HOSTILE}
    report["worth_doing"][0].update(told, findings=[report["findings"][0]["id"]])
    report["cards"][0].update(npu=HOSTILE, driver=HOSTILE, controller=HOSTILE)
    report["cards"][0]["hops"][0]["limit"] = HOSTILE
    report["policies"][0].update(governor=HOSTILE, epp=HOSTILE)
    report["actions"]["irq_affinity"]["changes"][0].update(path=HOSTILE, why=HOSTILE)
    report["verdict"] = HOSTILE
    harmless = Page(fleet_page([Box("nas", stage("eight_cards"), None)]))
    text = fleet_page([Box(HOSTILE, report, None), Box(HOSTILE, report, None)], [(HOSTILE, HOSTILE)])
    page = Page(text)
    assert {tag for tag, _attributes in page.elements} <= {tag for tag, _attributes in harmless.elements} | {"s", "em"}
    assert page.text.count(HOSTILE) > 20, "it is shown as what it is"
    assert "<img" not in text and text.count("<script") == 1
    keys = [key for key in page.attributes("id") if (key or "").startswith("box-")]
    assert len(set(keys)) == 2 and all(re.fullmatch(r"box-[A-Za-z0-9._-]+", key or "") for key in keys)
    assert HOSTILE in Page(box_page(Box(HOSTILE, report, None))).text


def test_same_reports_make_the_same_page(stage: Stage) -> None:
    whole = boxes(stage)
    assert fleet_page(whole) == fleet_page(list(reversed(whole)))
    assert box_page(whole[0]) == box_page(whole[0])


def test_what_cannot_be_read_is_named_and_the_others_are_shown(stage: Stage) -> None:
    text = fleet_page([Box("old", {"schema": 7, "findings": []}, None), Box("nas", stage("dead_card"), None)])
    page = Page(text)
    assert "its schema is 7, and this version knows 1" in page.text
    assert "#box-nas" in page.attributes("href") and "#box-old" not in page.attributes("href")
    damaged = stage("two_cards")
    damaged["cards"][0]["interrupts"][0]["affinity"] = 7
    page = Page(fleet_page([Box("bad", damaged, None), Box("nas", stage("dead_card"), None)]))
    assert "it is damaged (" in page.text and "#box-nas" in page.attributes("href")
    with pytest.raises(NotAReport, match=r"^it is damaged"):
        box_page(Box("bad", damaged, None))
    with pytest.raises(NotAReport):
        box_page(Box("old", {"schema": 7, "findings": []}, None))


def test_expected_gain_is_shown_where_there_is_one(stage: Stage) -> None:
    report = stage("dead_card")
    whole = report["expected_gain"]["text"]
    assert Page(box_page(Box("nas", report, None))).text.count(whole) == 1, "once for all that have the same"
    report["worth_doing"][1]["expected_gain"] = "3 to 92 % below a millisecond"
    assert "To gain: 3 to 92 % below a millisecond" in Page(box_page(Box("nas", report, None))).text
    report["cards"] = []
    assert whole not in Page(box_page(Box("nas", report, None))).text


def test_check_mode_speaks_of_what_would_be(stage: Stage) -> None:
    text = Page(box_page(Box("nas", stage("two_cards"), None))).text
    assert "What would be changed" in text and "would be performance" in text
    text = Page(box_page(Box("nas", stage("tuned"), None))).text
    assert "What was changed" in text and "would be" not in text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (940, "940"), (1_000, "1.0\u202fk"), (182_340, "182\u202fk"), (3_400_000, "3.4\u202fM")],
)
def test_compact(number: int, text: str) -> None:
    assert report_page.compact(number) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "nothing"), ([], "none"), ({}, "none"), (["a", 1], "a, 1"), ({"0": 7}, "0: 7"), (True, "yes"), (0, "0")],
)
def test_told(value: Any, text: str) -> None:
    assert report_page.told(value) == text
