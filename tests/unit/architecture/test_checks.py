# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a diagnosis looks for: how much, beside what it costs (`make bench`); documented; tested."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
DECIDE = ROOT / "plugins" / "module_utils" / "decide"
README = ROOT / "roles" / "diagnostics" / "README.md"
TESTS = ROOT / "tests" / "unit" / "plugins"
# ax650n-diagnose.sh of MasterVVK/cm3588-ax650n-pcie-tuning judges nine things: card found, link width, payload size,
# root port's width, core of the interrupt, governor, driver, correctable errors, its own service.
SHELL_CHECKS = 9


def findings() -> Iterator[tuple[str, bool]]:
    """Yield the ids of all findings that the code has as words, and whether each is good news."""
    for path in DECIDE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                name, severity = node.args[:2]
                if isinstance(name, ast.Constant):
                    yield name.value, getattr(severity, "id", "") == "OK"


def test_three_times_the_checks_of_the_shell_tool() -> None:
    """Findings that ask for attention or say what stands in the way; good news is not counted."""
    found = {name for name, good in findings() if not good}
    assert len(found) >= 3 * SHELL_CHECKS, sorted(found)


def test_every_finding_is_documented() -> None:
    """In a table of the role that shows them."""
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`([a-z]+(?:_[a-z0-9]+)*)`", row.split("|")[1])}
    assert {name for name, _good in findings()} - told == set()


def test_every_finding_has_a_test() -> None:
    """One that names it; whether it fires there, and not on a healthy host, is that test's business."""
    tests = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    assert {name for name, _good in findings() if '"%s"' % name not in tests} == set()
