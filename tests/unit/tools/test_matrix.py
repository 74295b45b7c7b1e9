# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The long run leaves out no Python and no ansible-core that is at hand."""

from __future__ import annotations

import pytest

from tools import matrix


def runs(at_hand: list[str]) -> dict[str, list[str]]:
    """Return the Pythons of the unit tests, by core, for those cores that have a control node's Python."""
    found = {}
    for core in matrix.CORES:
        controller = next((version for version in core.controllers if version in at_hand), None)
        if controller is not None:
            found[core.version] = matrix.unit_pythons(core, controller, at_hand)
            assert controller in found[core.version]
    return found


@pytest.mark.parametrize("at_hand", [matrix.TARGETS, ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13"], ["3.9", "3.12"]])
def test_every_python_and_every_core(at_hand: list[str]) -> None:
    found = runs(at_hand)
    assert set(found) == {core.version for core in matrix.CORES}
    assert {version for versions in found.values() for version in versions} == set(at_hand)
    for core in matrix.CORES:
        assert set(found[core.version]) <= set(core.targets)
        assert found[core.version][0] == next(version for version in core.targets if version in at_hand)


def test_no_python_of_a_control_node() -> None:
    assert runs(["3.8"]) == {}
