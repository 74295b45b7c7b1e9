# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree
from ansible_collections.edgenpu.tuning.tests.unit.plugins.modules.running import Modules


@pytest.fixture
def board(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> hosts.Board:
    """A CM3588 that was never tuned."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    if os.geteuid() != 0:
        hosts.let_root_own_nothing(monkeypatch)
    return hosts.Board(Tree(tmp_path))


@pytest.fixture
def modules(board: hosts.Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Modules:
    """Modules that act upon the board."""
    return Modules(board, monkeypatch, capsys)
