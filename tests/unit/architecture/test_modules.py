# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules stay thin: what they hold beyond arguments and a result belongs in a layer."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

MODULES = sorted((Path(__file__).parents[3] / "plugins" / "modules").glob("*.py"))
MOST_LINES = 150
DOCUMENTS = {"DOCUMENTATION", "EXAMPLES", "RETURN"}
LAYOUT = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def code_lines(text: str) -> int:
    """Return the number of lines that hold code: no blanks, no comments, no documentation of any kind."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and {getattr(target, "id", "") for target in node.targets} & DOCUMENTS:
            lines -= _lines(node)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            lines -= _lines(node.body[0])
    return len(lines)


def _lines(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def test_there_are_modules() -> None:
    assert MODULES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_module_is_thin(path: Path) -> None:
    assert code_lines(path.read_text(encoding="utf-8")) <= MOST_LINES


def test_documentation_is_not_counted_and_code_is() -> None:
    text = '''# a comment
"""A docstring
of two lines."""
DOCUMENTATION = r"""
module: sample
"""

def main():
    """Say nothing."""
    value = """text
    that is code"""

    return value
'''
    assert code_lines(text) == 4
