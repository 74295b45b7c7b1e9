# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CPU lists ("0-3,6") and CPU masks ("f0" or "1,00000000") as the kernel reads and prints them.

A list names CPUs by number and ranges, with an optional stride ("0-31:2/8"); a mask is hexadecimal with a comma
after every eight digits, highest word first (Documentation/admin-guide/cputopology.rst, lib/bitmap.c).
"""

from __future__ import annotations

import re
from typing import Iterable, List, Optional, Set, Tuple

MAX_CPUS = 1 << 16  # far above any kernel's NR_CPUS; bounds what a corrupt range may make us allocate
_SPAN = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6})(?::([0-9]{1,6})/([0-9]{1,6}))?)?")
_WORD = re.compile(r"[0-9a-fA-F]{1,%d}" % (MAX_CPUS // 4))


def parse_list(text: str) -> Optional[Tuple[int, ...]]:
    """Return the CPU numbers in a list, ascending; () for an empty one, None if it is no list."""
    cpus: Set[int] = set()
    if not text.strip():
        return ()
    for part in text.strip().split(","):
        match = _SPAN.fullmatch(part.strip())
        if match is None:
            return None
        first, last, used, group = match.groups()
        low = int(first)
        high = int(last) if last else low
        take, every = (int(used), int(group)) if used else (1, 1)
        if not low <= high < MAX_CPUS or not 0 < take <= every:
            return None
        cpus.update(cpu for cpu in range(low, high + 1) if (cpu - low) % every < take)
    return tuple(sorted(cpus))


def parse_blank_list(text: str) -> Optional[Tuple[int, ...]]:
    """Return the CPU numbers of a list that uses blanks ("0 1 2 3", as related_cpus does); None if it is none."""
    return parse_list(",".join(text.split()))


def format_list(cpus: Iterable[int]) -> str:
    """Return the shortest list, as the kernel prints it: "0-3,6"."""
    spans: List[List[int]] = []
    for cpu in sorted(set(cpus)):
        if spans and cpu == spans[-1][1] + 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(str(low) if low == high else "%d-%d" % (low, high) for low, high in spans)


def format_mask(cpus: Iterable[int]) -> str:
    """Return the mask, as the kernel prints it without leading zeros: "f0", "1,00000000"."""
    value = 0
    for cpu in cpus:
        value |= 1 << cpu
    words = []
    while True:
        words.append(value & 0xFFFFFFFF)
        value >>= 32
        if not value:
            break
    return ",".join(["%x" % words[-1]] + ["%08x" % word for word in reversed(words[:-1])])


def parse_mask(text: str) -> Optional[Tuple[int, ...]]:
    """Return the CPU numbers in a mask, ascending; None if it is no mask."""
    words = text.strip().split(",")
    if len(words) > MAX_CPUS // 32:
        return None
    if any(not _WORD.fullmatch(word) or (len(words) > 1 and len(word) > 8) for word in words):
        return None
    value = int(words[0] + "".join(word.rjust(8, "0") for word in words[1:]), 16)
    return tuple(cpu for cpu, bit in enumerate(bin(value)[:1:-1]) if bit == "1")
