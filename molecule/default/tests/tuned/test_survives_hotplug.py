# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CPUs come and go: an interrupt whose CPU goes offline falls to any other, a little one included, and stays there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from box import TUNED, TUNED_GOVERNORS, Box, State

CPU = "/sys/devices/system/cpu/cpu"


@pytest.fixture(autouse=True)
def all_cpus_afterwards(box: Box) -> Iterator[None]:
    """Leave all CPUs online, whatever happened."""
    yield
    box.shell(f"for file in {CPU}*/online; do echo 1 > $file; done")


def test_pinned_cpu_and_then_its_cluster_go_and_return(box: Box) -> None:
    """Another fast CPU takes over, and hands back; the governor that went with the cluster is set again."""
    assert box.after(f"echo 0 > {CPU}4/online") == TUNED._replace(allowed="5", effective="5")
    assert box.served_by(20) == {5: 20}
    without_policy4 = {**TUNED_GOVERNORS, "policy4": "offline"}
    assert box.after(f"echo 0 > {CPU}5/online") == State("6", "6", without_policy4)
    assert box.served_by(20) == {6: 20}
    assert box.after(f"echo 1 > {CPU}5/online; echo 1 > {CPU}4/online") == TUNED
    assert box.served_by(20) == {4: 20}


def test_eight_events_in_eight_seconds(box: Box) -> None:
    """More than systemd's start limit allows, and quicker than the agent runs."""
    events = ("4 0", "5 0", "4 1", "6 0", "5 1", "4 0", "6 1", "4 1")
    storm = [f"set -- {event}; echo $2 > {CPU}$1/online; sleep 0.6" for event in events]
    assert box.after("\n".join(storm)) == TUNED
    assert box.served_by(20) == {4: 20}
