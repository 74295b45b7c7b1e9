# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine is as it was found: after a refusal, a prediction, and when the driver has been taken away."""

from __future__ import annotations

import driven
from box import Box


def test_the_machine_is_as_it_was_found(box: Box) -> None:
    """Nothing is left, and nothing is missing."""
    driven.is_as_before(box, "as_found")
