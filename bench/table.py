# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was measured, as rows: for a terminal, for `.cache/bench.json` and for this folder's README."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

BEGIN = "<!-- The last run; `make bench` writes what stands between this line and the next comment. -->"
END = "<!-- End of the last run. -->"


class BenchError(Exception):
    """What was to be measured did not happen, so there is no figure."""


class Row(NamedTuple):
    """One line of the table. LIMIT and VALUE are in the same unit; None: no limit, told for information."""

    what: str
    value: float
    unit: str
    limit: float | None
    detail: str

    @property
    def missed(self) -> bool:
        """Whether there is a limit and it is not kept."""
        return self.limit is not None and self.value >= self.limit


def middle(values: Sequence[float]) -> str:
    """Return the median and the range of some figures, for a person."""
    return f"median {statistics.median(values):.2f} of {min(values):.2f} .. {max(values):.2f}"


def render(row: Row) -> str:
    """Return a row for a terminal."""
    limit = "" if row.limit is None else f"(limit {row.limit:g}) "
    mark = "MISSED " if row.missed else ""
    return f"{row.what:45} {row.value:6.2f} {row.unit} {limit}{mark}{row.detail}"


def as_data(day: str, machine: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Return a run as JSON can hold it. DAY as 2026-01-31, MACHINE in words."""
    return {"day": day, "machine": machine, "rows": [row._asdict() for row in rows]}


def markdown(run: Mapping[str, Any]) -> str:
    """Return a run (the form of `as_data`) as a paragraph and a table."""
    lines = [
        f"Last run, {run['day']}: {run['machine']}.",
        "",
        "| Measured | Value | Limit | In detail |",
        "|---|---|---|---|",
    ]
    for row in (Row(**data) for data in run["rows"]):
        limit = "" if row.limit is None else f"{row.limit:g} {row.unit}{' (missed)' if row.missed else ''}"
        lines.append(f"| {row.what} | {row.value:.2f} {row.unit} | {limit} | {row.detail} |")
    return "\n".join(lines)


def with_run(page: str, run: Mapping[str, Any]) -> str:
    """Return PAGE, the README's text, with RUN between its two comments. Raises BenchError if these are not there."""
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"bench/README.md has lost the lines between which the last run stands: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{markdown(run)}\n\n{END}{after}"


def born_there(output: str, rounds: int, cpu: int, all_cpus: str) -> Row:
    """Return the row for loads of the card's module through our command, and plain ones in turns.

    OUTPUT has a line for each load: "wrapped" or "plain"; microseconds; the CPUs that the interrupt was allowed when
    modprobe returned; how often each CPU had served it after a first interrupt, divided by commas; the default mask
    then. Raises BenchError if a wrapped load did not do what it is for, or a plain one did.
    """
    times_s: dict[str, list[float]] = {"wrapped": [], "plain": []}
    for line in output.splitlines():
        how, time_us, allowed, counts, default = line.split()
        first = [number for number, count in enumerate(counts.split(",")) if int(count)]
        wanted = str(cpu) if how == "wrapped" else all_cpus
        if (
            allowed != wanted
            or int(default.replace(",", ""), 16).bit_count() < 2
            or (how == "wrapped" and first != [cpu])
        ):
            raise BenchError(
                f"after a {how} load the interrupt was allowed on {allowed}, its first one served by {first}, and the "
                f"default mask {default}; the interrupt belongs on {wanted}"
            )
        times_s[how].append(int(time_us) / 1e6)
    seen = {how: len(times) for how, times in times_s.items()}
    if set(seen.values()) != {rounds}:
        raise BenchError(f"of {rounds} loads each, {seen} were seen")
    wrapped, plain = times_s["wrapped"], times_s["plain"]
    return Row(
        "born there: wrapped / plain modprobe",
        statistics.median(wrapped) / statistics.median(plain),
        "x",
        None,
        f"s: {middle(wrapped)} / {middle(plain)}; each time mask and first interrupt were on CPU {cpu} at once",
    )
