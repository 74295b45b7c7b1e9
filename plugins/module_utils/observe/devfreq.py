# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""devfreq: clocks of what is no CPU, such as the memory controller (Rockchip's "dmc") or an NPU of the board."""

from __future__ import annotations

from typing import NamedTuple, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

DEVFREQ = "/sys/class/devfreq"


class Devfreq(NamedTuple):
    """One device. Frequencies in Hz, as most drivers have them."""

    name: str  # "dmc", "fdab0000.npu"
    governor: str | None
    current_hz: int | None
    min_hz: int | None
    max_hz: int | None

    @property
    def path(self) -> str:
        """Its directory."""
        return "%s/%s" % (DEVFREQ, self.name)


def read_devfreq(root: Root) -> Tuple[Devfreq, ...]:
    """Return every device by its name; () where the kernel has none."""
    return tuple(
        Devfreq(
            name,
            root.text("%s/%s/governor" % (DEVFREQ, name)),
            root.number("%s/%s/cur_freq" % (DEVFREQ, name)),
            root.number("%s/%s/min_freq" % (DEVFREQ, name)),
            root.number("%s/%s/max_freq" % (DEVFREQ, name)),
        )
        for name in root.names(DEVFREQ)
    )
