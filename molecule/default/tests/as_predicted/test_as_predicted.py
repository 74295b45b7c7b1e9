# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What check mode said, what the run then said, and what has changed on the machine are the same."""

from __future__ import annotations

from pathlib import PurePosixPath

from box import Box

LEDGER = "/var/lib/edgenpu-tuning/ledger.json"


def test_what_was_done_had_been_predicted(box: Box) -> None:
    """The same paths in both reports."""
    assert box.changes("predicted") == box.changes("done")


def test_nothing_else_has_changed(box: Box) -> None:
    """Seen from outside: each changed file was predicted, or is the ledger, or a directory that one of them needed."""
    before, now = box.noted("as_found")["files"], box.fingerprint()["files"]
    changed = {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}
    predicted = {path for path in box.changes("predicted") if not path.startswith(("/proc/", "/sys/"))}
    agents = [path for path in predicted if "/agent-" in path]
    assert len(agents) == 1
    outside_agent = {path for path in changed if not path.startswith(f"{agents[0]}/")}
    needed = {str(parent) for path in (*predicted, LEDGER) for parent in PurePosixPath(path).parents}
    assert predicted <= changed
    assert outside_agent - predicted - needed == {LEDGER}
    assert not (outside_agent & needed & before.keys()), "a directory of the owner's has changed"


def test_values_have_changed_as_predicted(box: Box) -> None:
    """Below /proc and /sys: the card's interrupt and the governors of the fast CPUs, no others."""
    values = {path for path in box.changes("predicted") if path.startswith(("/proc/", "/sys/"))}
    policies = "/sys/devices/system/cpu/cpufreq"
    assert values == {
        f"/proc/irq/{box.irq()}/smp_affinity_list",
        f"{policies}/policy4/scaling_governor",
        f"{policies}/policy6/scaling_governor",
    }
