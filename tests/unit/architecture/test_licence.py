# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every source file says under which licence it may be used."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.edgenpu.tuning.tools.copies import belonging

ROOT = Path(__file__).parents[3]
SOURCES = {".c", ".cfg", ".h", ".j2", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}
NAMED = {"Makefile", "run"}


def is_source(path: Path) -> bool:
    """Return False for prose, and for captures: they are facts of a machine."""
    return (path.suffix in SOURCES or path.name in NAMED) and "fixtures" not in path.parts


def test_sources_name_their_licence() -> None:
    sources = [path for path in map(Path, belonging(ROOT)) if is_source(path)]
    assert len(sources) > 50
    unmarked = []
    for path in sources:
        with open(ROOT / path, encoding="utf-8") as stream:
            head = [line for line, _number in zip(stream, range(8))]
        # Ansible wants some __init__.py to be empty.
        if head and not any("SPDX-License-Identifier: GPL-" in line for line in head):
            unmarked.append(str(path))
    assert unmarked == []
