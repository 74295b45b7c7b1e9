# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine is as it was found: after a prediction, a refusal, a rollback."""

from __future__ import annotations

from box import Box


def test_the_machine_is_as_it_was_found(box: Box) -> None:
    """Files byte for byte with modes and owners, irqbalance's command, affinity and governors; no unit has failed."""
    before, now = box.noted("as_found"), box.fingerprint()
    for kind, found in before.items():
        assert now[kind] == found
