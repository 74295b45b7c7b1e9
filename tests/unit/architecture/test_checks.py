# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much a diagnosis looks for, beside what it costs (`make bench`)."""

from __future__ import annotations

import ast
from pathlib import Path

DECIDE = Path(__file__).parents[3] / "plugins" / "module_utils" / "decide"
# ax650n-diagnose.sh of MasterVVK/cm3588-ax650n-pcie-tuning judges nine things: card found, link width, payload size,
# root port's width, core of the interrupt, governor, driver, correctable errors, its own service.
SHELL_CHECKS = 9


def test_three_times_the_checks_of_the_shell_tool() -> None:
    """Findings that ask for attention or say what stands in the way; good news is not counted."""
    found = set()
    for path in DECIDE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                name, severity = node.args[:2]
                if isinstance(name, ast.Constant) and getattr(severity, "id", "") != "OK":
                    found.add(name.value)
    assert len(found) >= 3 * SHELL_CHECKS, sorted(found)
