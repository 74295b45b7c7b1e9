# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine before anything of ours has touched it; everything later is measured against this."""

from __future__ import annotations

from box import CARD, DRIVER, SHIPPED_GOVERNORS, Box


def test_the_machine_is_as_shipped(box: Box) -> None:
    """Without this the later steps would prove nothing: a slow place to begin with, and none of our files."""
    found = box.fingerprint()
    assert found["values"] == {"card": "0-7", **SHIPPED_GOVERNORS}
    assert found["units"]["LoadState"] == "not-found"
    assert found["units"]["NFailedUnits"] == "0"
    program, *arguments = found["units"]["Process"].split()
    assert (program, arguments[-1]) == ("/usr/sbin/irqbalance", "--interval=600")
    assert found["files"]["/etc/udev/rules.d/90-edgenpu-tuning.rules"].startswith("f 640 1000:1000 ")
    assert not [path for path in found["files"] if "edgenpu" in path and "udev" not in path]
    assert box.root.file(f"{DRIVER}/{CARD}").exists
    box.note("as_found", found)
