# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> Tree:
    """An empty root."""
    return Tree(tmp_path)


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test loses power; waiting for the disk a thousand times takes minutes."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(autouse=True)
def anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run as anybody, and what only root may do (give files to root) is left out then."""
    if os.geteuid() != 0:
        hosts.let_root_own_nothing(monkeypatch)
