# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of the playbook has done everything, in the order in which one thing rests on the other."""

from __future__ import annotations

import driven
from box import Box

# When each role was done: what it has left on the machine, and what the diagnosis has left on the control node.
_LEFT = (
    "/var/lib/edgenpu-tuning/axcl_driver.json",
    "/etc/edgenpu-tuning/wishes.d/irq_affinity.json",
    "/etc/edgenpu-tuning/wishes.d/governor.json",
)


def test_driver_works(box: Box) -> None:
    """With what building needs, which came from the mirror."""
    driven.works(box, "3.6.5")


def test_the_card_is_served_on_the_chosen_core(box: Box) -> None:
    """Its interrupt, which came with the driver, and its clocks."""
    driven.is_served_on_the_chosen_core(box)


def test_roles_came_in_their_order(box: Box) -> None:
    """Driver, interrupts, clocks, diagnosis."""
    times = [float(box.shell(f"stat --format=%.9Y {path}")) for path in _LEFT]
    assert times == sorted(times)


def test_diagnosis_has_seen_what_the_others_did(box: Box) -> None:
    """It came last, so it finds nothing wrong: a driver, an interrupt on a fast core, clocks that are held."""
    report = box.report()
    assert {finding["severity"] for finding in report["findings"]} <= {"ok", "info"}
    assert all(report["actions"][role]["changes"] for role in ("irq_affinity", "governor"))
