# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgenpu.tuning.plugins.plugin_utils.report_page import Box, box_page, fleet_page
from ansible_collections.edgenpu.tuning.tests.report.browser import Browser
from ansible_collections.edgenpu.tuning.tests.unit.plugins.plugin_utils.staged import HOSTILE, Stage

READ_AT = "2026-11-26 04:12"


@pytest.fixture(scope="session", name="browser")
def fixture_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="session", name="staged")
def fixture_staged() -> dict[str, Any]:
    """Return where the reports of the fleet are kept; the first test that needs them stages them."""
    return {}


@pytest.fixture(name="fleet")
def fixture_fleet(
    staged: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> dict[str, Any]:
    return Stage(tmp_path_factory.mktemp("stage"), monkeypatch, capsys, staged).fleet()


@pytest.fixture(name="pages")
def fixture_pages(fleet: dict[str, Any], tmp_path: Path) -> Path:
    """Return the directory of the staged fleet's pages, with a broken file beside its reports."""
    boxes = [Box(name, report, READ_AT) for name, report in fleet.items()]
    for box in boxes:
        (tmp_path / f"{box.name}.html").write_text(box_page(box), encoding="utf-8")
    page = fleet_page(boxes, [("notes.json", "it is no report")])
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    return tmp_path


@pytest.fixture(name="hostile_pages")
def fixture_hostile_pages(fleet: dict[str, Any], tmp_path: Path) -> Path:
    """Return the directory of pages whose every text is a script."""
    box = Box(HOSTILE, hostile(fleet["nas-lab"]), READ_AT)
    (tmp_path / "box.html").write_text(box_page(box), encoding="utf-8")
    (tmp_path / "index.html").write_text(fleet_page([box, box], [(HOSTILE, HOSTILE)]), encoding="utf-8")
    return tmp_path


def hostile(value: Any, key: str = "") -> Any:
    """Return a report whose texts are hostile, except those that must have a certain form to be a report."""
    formal = ("severity", "state", "bdf", "lower", "upper", "path", "cpus", "affinity", "effective", "name", "policy")
    if isinstance(value, dict):
        return {name: hostile(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [hostile(one, key) for one in value]
    return HOSTILE if isinstance(value, str) and key not in formal else value


@pytest.fixture(scope="session", name="pictures")
def fixture_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where pictures of the pages go: $EDGENPU_SCREENSHOTS, or nowhere that lasts."""
    named = os.environ.get("EDGENPU_SCREENSHOTS")
    directory = Path(named) if named else tmp_path_factory.mktemp("pictures")
    directory.mkdir(parents=True, exist_ok=True)
    return directory
