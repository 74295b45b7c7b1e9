# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shapes that every answer of this collection has: a change, a finding, and a wish that cannot be granted."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

COLLECTION_VERSION = "0.1.0"
OK, INFO, WARNING, CRITICAL = "ok", "info", "warning", "critical"
SEVERITIES = (OK, INFO, WARNING, CRITICAL)  # mildest first


class WishError(Exception):
    """A wish that cannot be granted, told in one sentence: what is wrong, where, what to do."""


class Change(NamedTuple):
    """One value that is not as wished. BEFORE or AFTER is None where it is not known or does not exist."""

    path: str
    before: Optional[str]
    after: Optional[str]
    why: str


class Finding(NamedTuple):
    """One thing that was looked at, and what it means.

    EVIDENCE maps what was read (a path or a name) to the value it had. ROLE names the role (or variable) that
    applies the remedy; None where no software can. EXPECTED_GAIN: what the remedy can gain in speed, in words; None
    where it has nothing to do with speed.
    """

    id: str
    severity: str
    summary: str
    evidence: Dict[str, Any]
    remedy: str
    role: Optional[str]
    expected_gain: Optional[str] = None


def too_grave(findings: Sequence[Mapping[str, Any]], least: str) -> List[Mapping[str, Any]]:
    """Return those of FINDINGS (as data) that are as grave as LEAST or graver; none where that is "never"."""
    if least == "never":
        return []
    return [one for one in findings if SEVERITIES.index(one["severity"]) >= SEVERITIES.index(least)]
