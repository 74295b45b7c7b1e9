# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our lines in a Raspberry Pi's config.txt: one marked block, and every byte around it the user's. Pure.

The file is also written by others (raspi-config, an editor), so what is given back is not the file as it once was but
the file as it is now, less the block. The block starts with [all], since a filter above may still be open.
"""

from __future__ import annotations

import re
from typing import List, NamedTuple, Sequence

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError

BEGIN = b"# BEGIN edgenpu.tuning"
END = b"# END edgenpu.tuning"
_HINT = b": change the variables of its role, not these lines"
# The line above the block had no end, so the one that it has is ours and goes with the block.
_JOINED = b", and the line break above"
_ALL = b"[all]"
_LINES = re.compile(rb"[^\n]*\n|[^\n]+")


class _Parts(NamedTuple):
    before: List[bytes]
    block: List[bytes]
    after: List[bytes]


def _split(content: bytes) -> _Parts:
    lines = _LINES.findall(content)
    begins = [at for at, line in enumerate(lines) if line.strip().startswith(BEGIN)]
    ends = [at for at, line in enumerate(lines) if line.strip().startswith(END)]
    if not begins and not ends:
        return _Parts(lines, [], [])
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        places = ", ".join(str(at + 1) for at in sorted(begins + ends))
        raise WishError(
            "its marks of edgenpu.tuning (line %s) are no longer one pair, so what lies between cannot be told from "
            "yours; remove these marks and what you do not want to keep" % places
        )
    return _Parts(lines[: begins[0]], lines[begins[0] : ends[0] + 1], lines[ends[0] + 1 :])


def _line_end(lines: Sequence[bytes]) -> bytes:
    """Return how lines end there: as the last one that ends does."""
    ended = [line for line in lines if line.endswith(b"\n")]
    return b"\r\n" if ended and ended[-1].endswith(b"\r\n") else b"\n"


def _says(line: bytes) -> bytes:
    """Return what the firmware reads in a line; nothing for a comment."""
    said = line.strip()
    return b"" if said.startswith(b"#") else said


def holds_block(content: bytes) -> bool:
    """Return whether marks of ours are in a file, whole or damaged."""
    return any(line.strip().startswith((BEGIN, END)) for line in _LINES.findall(content))


def block_lines(content: bytes) -> List[str]:
    """Return the settings in our block; [] if there is none. Raises WishError if its marks are damaged."""
    said = [_says(line) for line in _split(content).block]
    return [line.decode("latin-1") for line in said if line and line != _ALL]


def without_block(content: bytes) -> bytes:
    """Return a file less our block, byte for byte what others wrote. Raises WishError if its marks are damaged.

    If somebody wrote below the block, and a filter above is still open, [all] stays in its place: their lines were
    written under it and would otherwise be for another board.
    """
    before, block, after = _split(content)
    if not block:
        return content
    end = _line_end(block)
    joined = b"".join(before)
    if _JOINED in block[0] and not after and joined.endswith(end):
        return joined[: -len(end)]
    filters = [said for said in map(_says, before) if said.startswith((b"[", b"include"))]
    below = [said for said in map(_says, after) if said]
    if below and below[0] != _ALL and filters and filters[-1] != _ALL:
        joined += _ALL + end
    return joined + b"".join(after)


def with_block(content: bytes, lines: Sequence[str]) -> bytes:
    """Return a file with LINES in our block, at the end, where they win. No lines: no block."""
    others = without_block(content)
    if not lines:
        return others
    end = _line_end(_LINES.findall(others))
    joined = others and not others.endswith(b"\n")
    begin = BEGIN + (_JOINED if joined else b"") + _HINT
    block = [begin, _ALL, *(line.encode("ascii") for line in lines), END]
    return others + (end if joined else b"") + b"".join(line + end for line in block)
