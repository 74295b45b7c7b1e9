# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CPU lists ("0-3,6") and CPU masks ("f0" or "1,00000000") as the kernel reads and prints them.

A list names CPUs by number and ranges, with an optional stride ("0-31:2/8"); a mask is hexadecimal with a comma
after every eight digits, highest word first (Documentation/admin-guide/cputopology.rst, lib/bitmap.c).
"""

from __future__ import annotations

from typing import Iterable, Optional, Tuple

MAX_CPUS = 1 << 16  # far above any kernel's NR_CPUS; bounds what a corrupt range may make us allocate


def parse_list(text: str) -> Optional[Tuple[int, ...]]:
    """Return the CPU numbers in a list, ascending; () for an empty one, None if it is no list."""
    cpus = set()
    for part in text.strip().replace("\n", ",").split(","):
        if not part.strip():
            if text.strip():
                return None
            continue
        span, colon, stride = part.strip().partition(":")
        first, dash, last = span.partition("-")
        try:
            low = int(first)
            high = int(last) if dash else low
            used, slash, group = stride.partition("/")
            take, every = (int(used), int(group)) if colon else (1, 1)
        except ValueError:
            return None
        if not 0 <= low <= high < MAX_CPUS or not 0 < take <= every or (colon and not slash):
            return None
        cpus.update(cpu for cpu in range(low, high + 1) if (cpu - low) % every < take)
    return tuple(sorted(cpus))


def format_list(cpus: Iterable[int]) -> str:
    """Return the shortest list, as the kernel prints it: "0-3,6"."""
    spans = []
    for cpu in sorted(set(cpus)):
        if spans and cpu == spans[-1][1] + 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(str(low) if low == high else "%d-%d" % (low, high) for low, high in spans)


def parse_mask(text: str) -> Optional[Tuple[int, ...]]:
    """Return the CPU numbers in a mask, ascending; None if it is no mask."""
    words = text.strip().split(",")
    try:
        value = 0
        for position, word in enumerate(words):
            if not word or len(word) > (8 if len(words) > 1 else MAX_CPUS // 4) or not word.isalnum():
                return None
            value = (value << (32 if position else 0)) | int(word, 16)
    except ValueError:
        return None
    return tuple(cpu for cpu in range(value.bit_length()) if value >> cpu & 1)
