# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent on a host: is what was installed still whole?

Its compiled files are taken unchecked by Python (which makes it start fast), so their sums are kept beside them.
"""

from __future__ import annotations

import importlib.util
import os
import zlib
from typing import Dict

CURRENT = "/usr/lib/edgenpu-tuning/current"
SUMS = "compiled.sums"  # in the agent's directory: "CRC-32 path-below-it" a line


def sums_line(path: str, compiled: bytes) -> str:
    """Return the line for a compiled file at PATH below the agent's directory."""
    return "%08x %s\n" % (zlib.crc32(compiled), path)


def read_sums(directory: str) -> Dict[str, str]:
    """Return the sums of an agent's compiled files by absolute path. Raises OSError where there are none."""
    with open(os.path.join(directory, SUMS), encoding="utf-8") as stream:
        lines = [line.rstrip("\n").partition(" ") for line in stream]
    return {os.path.join(directory, path): number for number, _blank, path in lines}


def is_sound(path: str, source: bytes, sums: Dict[str, str]) -> bool:
    """Tell whether the module at PATH has this SOURCE, and a whole compiled form for the Python that asks."""
    compiled = importlib.util.cache_from_source(path)
    try:
        with open(path, "rb") as stream:
            if stream.read() != source:
                return False
        with open(compiled, "rb") as stream:
            return sums.get(compiled) == "%08x" % zlib.crc32(stream.read())
    except OSError:
        return False
