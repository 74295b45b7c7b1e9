# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine before anything of ours has touched it; what the rollback leaves is measured against this."""

from __future__ import annotations

from box import SHIPPED_GOVERNORS, Box


def test_the_machine_is_as_shipped(box: Box) -> None:
    """Without this the later steps would prove nothing: nothing of ours, and nobody who collects metrics."""
    found = box.fingerprint()
    assert found["values"] == {"card": "0-7", **SHIPPED_GOVERNORS}
    assert not [path for path in found["files"] if "edgenpu" in path or "prometheus" in path]
    box.note("as_found", found)
