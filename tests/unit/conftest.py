# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any, Callable, Dict

import jsonschema
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "roles" / "diagnostics" / "files" / "report.schema.json"


def closed(schema: Any) -> Any:
    """Return a schema that allows no key which it does not name: the published one lets later versions add some."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    whole = {name: closed(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "required" in schema:
        whole.setdefault("additionalProperties", False)
    return whole


def report_validator() -> Any:
    """Return a validator of whole reports."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(closed(schema))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Hold every report that any test makes against the published schema, whoever imports the function later."""
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import describe

    made: Callable[..., Dict[str, Any]] = describe.report
    validator = report_validator()

    @functools.wraps(made)
    def report(*given: Any, **named: Any) -> Dict[str, Any]:
        found = made(*given, **named)
        validator.validate(json.loads(json.dumps(found)))
        return found

    describe.report = report


def pytest_configure(config: pytest.Config) -> None:
    """Keep what hypothesis remembers of the sources where `make clean` finds it; it keeps no inputs."""
    set_hypothesis_home_dir(str(ROOT / ".cache" / "hypothesis"))
