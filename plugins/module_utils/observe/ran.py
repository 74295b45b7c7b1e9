# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands that somebody else runs for the layers, which run none themselves."""

from __future__ import annotations

from typing import Callable, NamedTuple, Sequence


class Ran(NamedTuple):
    """A command's exit status and what it printed."""

    status: int
    output: str


Runner = Callable[[Sequence[str], float], Ran]  # (arguments, limit in seconds)
