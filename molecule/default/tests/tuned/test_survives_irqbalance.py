# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""irqbalance runs on: it leaves the card alone and balances the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from box import COMMAND, TUNED, Box

DISK = "virtio0"
SCRIPT = "/usr/lib/edgenpu-tuning/irqbalance.d/npu-cards"
PASSES = 5


@pytest.fixture
def no_policy(box: Box) -> Iterator[None]:
    """Take irqbalance's policy away, and put everything right again afterwards."""
    restart = "systemctl restart irqbalance.service"
    box.shell(f"mv {SCRIPT} /run/; {restart}")
    yield
    box.shell(f"mv /run/$(basename {SCRIPT}) {SCRIPT}; {restart}; {COMMAND} apply")


def test_card_stays_and_others_are_balanced(box: Box) -> None:
    """The disk's interrupt, put on the card's core by hand, is taken off it again; the card's stays."""
    disk = f"/proc/irq/$(grep {DISK}$ /proc/interrupts | cut -d : -f 1 | tr -d ' ')/smp_affinity_list"
    box.shell(f"echo 4 > {disk}; systemctl restart irqbalance.service")
    assert box.served_by(10 * PASSES, over_s=PASSES) == {4: 10 * PASSES}
    assert box.state() == TUNED
    assert box.shell(f"cat {disk}").strip() != "4"


@pytest.mark.usefixtures("no_policy")
def test_without_our_policy_it_moves_the_card(box: Box) -> None:
    """The test before this one would prove nothing if irqbalance left a pinned interrupt alone by itself."""
    for _unused in range(30):
        # One irqbalance names another CPU, one allows all; which of them is then taken is the controller's choice, and
        # may be the same by luck.
        if list(box.served_by(10, over_s=1)) != [4] or box.state().allowed != "4":
            return
    pytest.fail("irqbalance has not moved the card's interrupt within 30 passes")


def test_policy_is_in_force_again(box: Box) -> None:
    """What comes next is judged on a machine in order."""
    assert box.state() == TUNED
