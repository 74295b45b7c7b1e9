# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
from typing import Any, Dict

import pytest

from ansible_collections.edgenpu.tuning.tests.unit.plugins.plugin_utils.staged import Stage


@pytest.fixture(scope="session", name="made")
def fixture_made() -> Dict[str, Dict[str, Any]]:
    return {}


@pytest.fixture(name="stage")
def fixture_stage(
    made: Dict[str, Dict[str, Any]],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Stage:
    return Stage(tmp_path / "stage", monkeypatch, capsys, made)
