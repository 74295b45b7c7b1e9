# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The wishes kept on a host: one file for each role, written by its module, read by the agent."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

WISHES_DIR = "/etc/edgenpu-tuning/wishes.d"
SCHEMA = 1
METRICS = "diagnostics"  # the role whose wishes say where metrics are written


def wishes_path(role: str) -> str:
    """Return where a role's wishes are kept."""
    return "%s/%s.json" % (WISHES_DIR, role)


def read_wishes(root: Root) -> Tuple[Dict[str, Dict[str, Any]], List[str]]:
    """Return the wishes on the host by role, and one sentence for each file that holds none."""
    wishes: Dict[str, Dict[str, Any]] = {}
    problems: List[str] = []
    for name in root.names(WISHES_DIR):
        if not name.endswith(".json"):
            continue
        path = "%s/%s" % (WISHES_DIR, name)
        try:
            document = json.loads(root.text(path) or "")
            if document["schema"] != SCHEMA:
                raise ValueError("schema %r, this version knows %d" % (document["schema"], SCHEMA))
            wishes[name[: -len(".json")]] = dict(document["wishes"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            problems.append("%s holds no wishes (%s); run the playbook again, or delete the file" % (path, error))
    return wishes, problems
