# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The owner gives everything back on the machine itself, without a control node."""

from __future__ import annotations

from box import COMMAND, TUNED, Box


def test_a_predicted_rollback_changes_nothing(box: Box) -> None:
    """It says what it would give back."""
    assert "/proc/irq/" in box.shell(f"{COMMAND} rollback --check")
    assert box.state() == TUNED


def test_everything_is_given_back(box: Box) -> None:
    """All is as it was found; the command itself is gone, too."""
    box.shell(f"{COMMAND} rollback")
    assert not box.root.file(COMMAND).exists
    before, now = box.noted("as_found"), box.fingerprint()
    for kind, found in before.items():
        assert now[kind] == found
