# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Conditions under which the tuned machine is judged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from box import Box


@pytest.fixture(scope="session", autouse=True)
def busy_irqbalance(box: Box) -> Iterator[None]:
    """Make irqbalance look at all interrupts every second (ten is its default), by its owner's own means."""
    file = "/etc/default/irqbalance"
    before = box.root.file(file).content_string
    box.shell(f"echo 'IRQBALANCE_ARGS=\"--interval=1\"' > {file}; systemctl restart irqbalance.service")
    yield
    box.shell(f"printf '%s' '{before}' > {file}; systemctl restart irqbalance.service")
