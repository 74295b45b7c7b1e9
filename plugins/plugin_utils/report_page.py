# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports as HTML: one self-contained file for a box, or for all boxes of a fleet.

Everything in a report comes from a host and may be hostile: the templates escape all of it, and the page's own content
security policy lets no script run but the one in the template.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import jinja2

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import SEVERITIES
from ansible_collections.edgenpu.tuning.plugins.plugin_utils.report_view import NotAReport, View, view

HERE = os.path.dirname(os.path.abspath(__file__))
TEMPLATES = os.path.join(HERE, "..", "..", "roles", "diagnostics", "templates", "report")


class Box(NamedTuple):
    """A report as it was found. READ_AT: when it was written, None if not known."""

    name: str
    report: Any
    read_at: Optional[str]


def grouped(number: int) -> str:
    """Return a number with a narrow no-break space between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def compact(number: int) -> str:
    """Return a number in four characters or so: 940, 12 k, 3.4 M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            value = number / size
            return ("%.1f\u202f%s" if value < 10 else "%.0f\u202f%s") % (value, unit)
    return str(number)


def told(value: Any) -> str:
    """Return a value of a finding's evidence as text."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(told(one) for one in value) or "none"
    if isinstance(value, dict):
        return ", ".join("%s: %s" % (name, told(one)) for name, one in value.items()) or "none"
    return str(value)


@functools.lru_cache(maxsize=None)  # a fleet's page is made of many, and to read the templates costs most
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(grouped=grouped, compact=compact, told=told)
    return environment


def _rendered(template: str, **given: Any) -> str:
    environment = _environment()
    script = environment.get_template("fleet.js.j2").render()
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template(template).render(script=script, digest=digest, **given)


def _key(name: str, taken: Dict[str, str]) -> str:
    """Return an anchor for a box, made of harmless characters only, that no other box has."""
    plain = "box-" + re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    key, number = plain, 2
    while key in taken:
        key, number = "%s-%d" % (plain, number), number + 1
    taken[key] = name
    return key


def _page_of(seen: View) -> str:
    try:
        return _rendered("box.html.j2", box=seen)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, jinja2.TemplateError) as error:
        raise NotAReport("it is damaged (%s: %s)" % (type(error).__name__, error)) from error


def box_page(box: Box) -> str:
    """Return the page of one box; raises NotAReport."""
    return _page_of(view(box.name, "box", box.report, box.read_at))


def fleet_page(boxes: Sequence[Box], problems: Sequence[Tuple[str, str]] = ()) -> str:
    """Return the page of a fleet, gravest first. PROBLEMS: (file, why) of what could not be read as a report."""
    taken: Dict[str, str] = {}
    views: List[View] = []
    unread = list(problems)
    for box in boxes:
        try:
            seen = view(box.name, _key(box.name, taken), box.report, box.read_at)
            _page_of(seen)  # what cannot be shown of one must not keep the others from the page
            views.append(seen)
        except NotAReport as error:
            unread.append((box.name, str(error)))
    views.sort(key=lambda one: (-SEVERITIES.index(one.severity), one.name))
    totals = {severity: sum(one.severity == severity for one in views) for severity in SEVERITIES}
    return _rendered("fleet.html.j2", boxes=views, problems=unread, totals=totals)
