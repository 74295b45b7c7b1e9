# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command on the machine, for an owner whose control node is gone."""

from __future__ import annotations

import pytest
from box import CARD, COMMAND, TUNED, Box


def test_root_may_look_and_apply_and_changes_nothing(box: Box) -> None:
    """All that was wished is in force, so there is nothing to be done."""
    assert box.changed_files(f"{COMMAND} status; {COMMAND} apply") == []
    assert box.state() == TUNED


def test_diagnosis_finds_nothing_to_do(box: Box) -> None:
    """As data, for other programs."""
    assert box.attempt(f"{COMMAND} diagnose").rc == 0
    report = box.diagnosis()
    assert [card["bdf"] for card in report["cards"]] == [CARD]
    assert {finding["severity"] for finding in report["findings"]} <= {"ok", "info"}


@pytest.mark.parametrize("verb", ["status", "diagnose"])
def test_anyone_may_look(box: Box, verb: str) -> None:
    """Without root the kernel shows less, but what it shows is told."""
    assert CARD in box.shell(f"{COMMAND} {verb}", user="owner")


@pytest.mark.parametrize("verb", ["apply", "rollback"])
def test_only_root_may_change(box: Box, verb: str) -> None:
    """Anyone else is told so in one sentence."""
    refused = box.attempt(f"{COMMAND} {verb}", user="owner")
    assert refused.rc == 1
    assert not refused.stdout
    assert len(refused.stderr.splitlines()) == 1
    assert "sudo" in refused.stderr
    assert box.root.file(COMMAND).exists
