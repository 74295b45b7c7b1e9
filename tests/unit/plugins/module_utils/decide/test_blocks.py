# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.blocks import block_lines, with_block, without_block
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.raspberry_pi import Models, parse_config
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import pis
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.hosts import STEADY

LINES = ["dtparam=pciex1", "dtparam=pciex1_gen=3"]
BLOCK = (
    b"# BEGIN edgenpu.tuning: change the variables of its role, not these lines\n"
    b"[all]\ndtparam=pciex1\ndtparam=pciex1_gen=3\n# END edgenpu.tuning\n"
)
FOREIGN = [
    b"[all]",
    b"[pi4]",
    b"[cm5]",
    b"dtparam=audio=on",
    b"#",
    b"",
    b"\xff\xfe\x00",
    b"include x",
    b"kernel=k",
    b"\r",
]
foreign_files = st.builds(
    lambda lines, last: b"".join(line + end for line, end in lines) + last,
    st.lists(st.tuples(st.sampled_from(FOREIGN) | st.binary(max_size=20), st.sampled_from([b"\n", b"\r\n"]))),
    st.sampled_from([b"", b"[pi4]", b"dtparam=spi=on", b"\r"]),
).filter(lambda content: b"edgenpu" not in content)
our_lines = st.lists(
    st.sampled_from(["dtparam=pciex1", "dtparam=pciex1_gen=3", "kernel=kernel8.img"]), min_size=1, unique=True
)


@pytest.mark.parametrize("content", [pis.RASPBERRY_PI_OS, pis.UBUNTU, b"", b"\n", b"[pi4]\nkernel=x\n"])
def test_at_the_end_below_all(content: bytes) -> None:
    assert with_block(content, LINES) == content + BLOCK
    assert block_lines(content + BLOCK) == LINES
    assert block_lines(content) == []


def test_without_a_final_newline() -> None:
    made = with_block(b"dtparam=spi=on", LINES)
    assert made.splitlines()[:3] == [
        b"dtparam=spi=on",
        b"# BEGIN edgenpu.tuning, and the line break above: change the variables of its role, not these lines",
        b"[all]",
    ]
    assert made.endswith(b"\n# END edgenpu.tuning\n")
    assert without_block(made) == b"dtparam=spi=on"
    assert without_block(made + b"dtparam=i2c=on\n") == b"dtparam=spi=on\ndtparam=i2c=on\n"


def test_line_ends_are_the_file_s() -> None:
    content = pis.RASPBERRY_PI_OS.replace(b"\n", b"\r\n")
    made = with_block(content, LINES)
    assert made == content + BLOCK.replace(b"\n", b"\r\n")
    assert (without_block(made), block_lines(made)) == (content, LINES)


def test_what_others_wrote_below_is_kept_and_the_block_moves_to_the_end() -> None:
    made = with_block(with_block(b"[all]\n", LINES) + b"dtparam=pciex1=off\n", LINES)
    assert made == b"[all]\ndtparam=pciex1=off\n" + BLOCK


@pytest.mark.parametrize(
    ("above", "below", "left"),
    [
        (b"[pi4]\n", b"kernel=x\n", b"[pi4]\n[all]\nkernel=x\n"),
        (b"[pi4]\n", b"[gpio4=1]\nkernel=x\n", b"[pi4]\n[all]\n[gpio4=1]\nkernel=x\n"),
        (b"include x\n", b"kernel=x\n", b"include x\n[all]\nkernel=x\n"),
        (b"[pi4]\n", b"\n# a remark\n", b"[pi4]\n\n# a remark\n"),
        (b"[pi4]\n", b"#\n[all]\nkernel=x\n", b"[pi4]\n#\n[all]\nkernel=x\n"),
        (b"[pi4]\n[all]\n", b"kernel=x\n", b"[pi4]\n[all]\nkernel=x\n"),
        (b"", b"kernel=x\n", b"kernel=x\n"),
    ],
)
def test_what_others_wrote_below_stays_for_the_same_boards(above: bytes, below: bytes, left: bytes) -> None:
    assert without_block(with_block(above, LINES) + below) == left


@pytest.mark.parametrize(
    "content",
    [
        BLOCK.replace(b"# END edgenpu.tuning\n", b""),
        BLOCK.replace(b"# BEGIN", b"#"),
        BLOCK + BLOCK,
        b"# END edgenpu.tuning\n# BEGIN edgenpu.tuning\n",
    ],
)
def test_damaged_marks(content: bytes) -> None:
    for function in (without_block, block_lines, lambda text: with_block(text, LINES)):
        with pytest.raises(WishError, match=r"its marks of edgenpu.tuning \(line [0-9, ]+\) are no longer one pair"):
            function(content)


@STEADY
@given(foreign_files, our_lines)
def test_every_foreign_byte_is_kept(content: bytes, lines: List[str]) -> None:
    made = with_block(content, lines)
    assert made.startswith(content)
    assert without_block(made) == content
    assert block_lines(made) == lines


@STEADY
@given(foreign_files, our_lines, our_lines)
def test_twice_is_once_and_the_last_wish_counts(content: bytes, first: List[str], second: List[str]) -> None:
    made = with_block(content, second)
    assert with_block(made, second) == made
    assert with_block(with_block(content, first), second) == made
    assert with_block(made, []) == content


@STEADY
@given(foreign_files, foreign_files, our_lines)
def test_lines_below_mean_the_same_without_the_block(above: bytes, below: bytes, lines: List[str]) -> None:
    """And all of them are still there."""
    probe = below + (b"" if below.endswith(b"\n") or not below else b"\n") + b"os_prefix=probe\n"
    model = Models(frozenset({"pi5"}), None)
    with_it = parse_config("c", with_block(above, lines) + probe, model)
    left = without_block(with_block(above, lines) + probe)
    without = parse_config("c", left, model)
    assert with_it.get("os_prefix") == without.get("os_prefix")
    assert left.startswith(above)
    assert left.endswith(probe)
