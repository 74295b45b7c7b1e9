# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.locks import Holder, lock_holder, parse_holder
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.hosts import STEADY
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

# From a 6.x kernel; the second one waits for the first.
LOCKS = """\
1: OFDLCK ADVISORY  READ -1 fe:00:16107825 203 203
2: POSIX  ADVISORY  WRITE 17835 fe:00:77 0 EOF
3: FLOCK  ADVISORY  WRITE 4242 fe:1a:77 0 EOF
3: -> FLOCK  ADVISORY  WRITE 4300 fe:1a:77 0 EOF
4: FLOCK  ADVISORY  WRITE 0 00:17:9 0 EOF
5: FLOCK  ADVISORY  READ  51 00:17:1234567890123 0 EOF
"""


@pytest.mark.parametrize(
    ("major", "minor", "inode", "pid"),
    [
        (0xFE, 0x1A, 77, 4242),
        (0xFE, 0, 77, None),  # that one is a record lock
        (0xFE, 0x1A, 78, None),
        (0x1A, 0xFE, 77, None),
        (0, 0x17, 9, None),  # a process of another PID namespace has no number here
        (0, 0x17, 1234567890123, 51),
    ],
)
def test_holder(major: int, minor: int, inode: int, pid: Optional[int]) -> None:
    assert parse_holder(LOCKS, major, minor, inode) == pid


def test_who_waits_holds_nothing() -> None:
    assert parse_holder("3: -> FLOCK  ADVISORY  WRITE 4300 fe:1a:77 0 EOF\n", 0xFE, 0x1A, 77) is None


def test_name(tree: Tree) -> None:
    assert lock_holder(tree.root, 0xFE, 0x1A, 77) is None
    tree.file("/proc/locks", LOCKS)
    assert lock_holder(tree.root, 0xFE, 0x1A, 77) == Holder(4242, None)
    tree.file("/proc/4242/comm", "python3\n")
    assert lock_holder(tree.root, 0xFE, 0x1A, 77) == Holder(4242, "python3")


@STEADY
@given(st.text(alphabet="FLOCK ADVISORY->WRITE0123456789abcdef:\n", max_size=200))
def test_any_text(text: str) -> None:
    assert parse_holder(text, 0xFE, 0x1A, 77) is None or "FLOCK" in text
