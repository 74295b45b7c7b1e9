# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When the role goes to a host a second time, for metrics, and what for."""

from __future__ import annotations

import pathlib
from typing import Any, Dict, Optional

import jinja2
import pytest
import yaml
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import METRICS

REPOSITORY = pathlib.Path(__file__).parents[3]
ROLE = REPOSITORY / "roles" / "diagnostics"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text("utf-8"))
[TASK] = [
    task
    for task in yaml.safe_load((ROLE / "tasks" / "main.yml").read_text("utf-8"))
    if "edgenpu.tuning.npu_metrics" in task
]
PLACE = "/var/lib/node_exporter"


def asked(kept: Any = (), **variables: Any) -> Optional[str]:
    """Return the state that the host is asked for; None if it is not asked."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters["bool"] = boolean
    given: Dict[str, Any] = {**DEFAULTS, **variables}
    if given["diagnostics_state"] == "present":
        given["diagnostics_result"] = {"report": {"kept": list(kept)}}
    if not all(environment.compile_expression(str(one), undefined_to_none=False)(given) for one in TASK["when"]):
        return None
    return environment.from_string(TASK["edgenpu.tuning.npu_metrics"]["state"]).render(given)


@pytest.mark.parametrize(
    ("expected", "variables"),
    [
        (None, {}),
        (None, {"kept": ["governor", "irq_affinity"]}),
        ("absent", {"kept": ["governor", METRICS]}),
        ("present", {"diagnostics_metrics_dir": PLACE}),
        ("present", {"diagnostics_metrics_dir": PLACE, "kept": [METRICS]}),
        ("absent", {"diagnostics_state": "absent"}),
        ("absent", {"diagnostics_state": "absent", "diagnostics_metrics_dir": PLACE}),
        (None, {"diagnostics_look_only": True, "diagnostics_metrics_dir": PLACE}),
        (None, {"diagnostics_look_only": True, "kept": [METRICS]}),
        (None, {"diagnostics_root": "/tmp/nas.tar.gz", "diagnostics_metrics_dir": PLACE}),
        (None, {"diagnostics_root": "/tmp/nas.tar.gz", "kept": [METRICS]}),
    ],
)
def test_when(expected: Optional[str], variables: Dict[str, Any]) -> None:
    """Without a wish a host is not asked again; without one any more it is, once."""
    assert asked(**variables) == expected


def test_playbooks() -> None:
    """Looking changes nothing; giving back begins with metrics, and later roles know of it."""
    [play] = yaml.safe_load((REPOSITORY / "playbooks" / "diagnose.yml").read_text("utf-8"))
    assert play["roles"][0]["vars"] == {"diagnostics_look_only": True}
    [play] = yaml.safe_load((REPOSITORY / "playbooks" / "rollback.yml").read_text("utf-8"))
    gone = []
    for role in play["roles"]:
        name = role["role"].rpartition(".")[2]
        assert role["vars"][name + "_state"] == "absent"
        assert role["vars"].get(name + "_after_roles", []) == gone
        gone.append(name)
    assert gone == ["diagnostics", "governor", "irq_affinity"]
