# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The benchmark's table: what counts as a figure, and how the last run gets into the README."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.edgenpu.tuning.bench.table import (
    BEGIN,
    END,
    BenchError,
    Row,
    as_data,
    born_there,
    render,
    with_run,
)

README = Path(__file__).parents[3] / "bench" / "README.md"
ROWS = [Row("a / b", 1.204, "x", 1.5, "s: 2 / 1"), Row("c", 1.0, "s", 1.0, "d"), Row("e / f", 2.5, "x", None, "g")]
RUN = as_data("2026-01-31", "2 cores, no KVM, load 0.1 before it began", ROWS)

# Two rounds, as the twin prints them.
LOADS = """\
wrapped 3000000 4 0,0,0,0,1,0,0,0 ff
plain 1000000 0-7 1,0,0,0,0,0,0,0 ff
wrapped 5000000 4 0,0,0,0,1,0,0,0 ff
plain 3000000 0-7 0,0,0,0,1,0,0,0 ff
"""


def test_born_there() -> None:
    row = born_there(LOADS, 2, 4, "0-7")
    assert (row.what, row.value, row.unit, row.limit) == ("born there: wrapped / plain modprobe", 2.0, "x", None)
    assert row.detail.startswith(
        "s: median 4.00 of 3.00 .. 5.00 / median 2.00 of 1.00 .. 3.00; each time mask and first"
    )


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("5000000 4 ", "5000000 0-7 ", "after a wrapped load the interrupt was allowed on 0-7"),
        ("5000000 4 0,0,0,0,1", "5000000 4 1,0,0,0,0", r"after a wrapped load .* served by \[0\]"),
        ("5000000 4 0,0,0,0,1", "5000000 4 0,0,0,0,0", r"after a wrapped load .* served by \[\]"),
        ("1,0,0,0,0,0,0,0 ff", "1,0,0,0,0,0,0,0 10", "after a plain load .* the default mask 10"),
        ("plain 3000000 0-7", "plain 3000000 4", "after a plain load the interrupt was allowed on 4"),
        ("plain 3000000 0-7 0,0,0,0,1,0,0,0 ff\n", "", "of 2 loads each"),
    ],
)
def test_loads_that_prove_nothing(old: str, new: str, why: str) -> None:
    """The wrapped one has not done what it is for, or the plain one has."""
    assert old in LOADS
    with pytest.raises(BenchError, match=why):
        born_there(LOADS.replace(old, new), 2, 4, "0-7")


def test_more_than_32_cpus() -> None:
    line = "%s 1000000 %s 0,0,0,0,1 ffffffff,ffffffff\n"
    assert born_there(line % ("wrapped", "4") + line % ("plain", "0-63"), 1, 4, "0-63").value == 1.0


def test_terminal() -> None:
    assert [render(row).split() for row in ROWS] == [
        ["a", "/", "b", "1.20", "x", "(limit", "1.5)", "s:", "2", "/", "1"],
        ["c", "1.00", "s", "(limit", "1)", "MISSED", "d"],
        ["e", "/", "f", "2.50", "x", "g"],
    ]


def test_page() -> None:
    """The run takes the old one's place, by way of the file it is kept in, and nothing else changes."""
    run = json.loads(json.dumps(RUN))
    page = with_run(f"before\n\n{BEGIN}\n\nthe old one\n\n{END}\n\nafter\n", run)
    assert page == (
        f"before\n\n{BEGIN}\n\n"
        "Last run, 2026-01-31: 2 cores, no KVM, load 0.1 before it began.\n\n"
        "| Measured | Value | Limit | In detail |\n"
        "|---|---|---|---|\n"
        "| a / b | 1.20 x | 1.5 x | s: 2 / 1 |\n"
        "| c | 1.00 s | 1 s (missed) | d |\n"
        "| e / f | 2.50 x |  | g |\n\n"
        f"{END}\n\nafter\n"
    )
    assert with_run(page, run) == page


@pytest.mark.parametrize("page", ["", f"{BEGIN}\n", f"{END}\n", f"{END}\n{BEGIN}\n"])
def test_page_without_its_comments(page: str) -> None:
    with pytest.raises(BenchError, match="has lost the lines"):
        with_run(page, RUN)


def test_the_page_takes_a_run_and_is_never_empty_there() -> None:
    page = README.read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0].strip()
    assert "| a / b | 1.20 x |" in with_run(page, RUN)
