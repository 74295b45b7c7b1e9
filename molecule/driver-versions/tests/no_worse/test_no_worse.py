# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After an upgrade that failed the machine has what it had, and a log that tells why."""

from __future__ import annotations

import driven
from box import Box


def test_driver_works_as_before(box: Box) -> None:
    """It is loaded, and the card lives."""
    driven.works(box, "3.10.2")


def test_nothing_but_the_log_and_the_record_of_it_is_new(box: Box) -> None:
    """The record keeps the next run from trying the same again."""
    driven.is_as_before(box, "upgraded", but=(driven.FAILED_LOG, "/var/lib/edgenpu-tuning/axcl_driver.json"))


def test_log_tells_why(box: Box) -> None:
    """It is the compiler's, of the package that failed."""
    assert "axcl_symbol_that_this_kernel_lacks" in box.shell(f"cat /var/log/{driven.FAILED_LOG}")
