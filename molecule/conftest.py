# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of all scenarios have in common: the machine under test, and its state between the steps."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from twin.twins import find

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported by path, so what stands beside this is not found

from box import Box


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """The machine that molecule has created."""
    twin = find(f"molecule-{os.environ['MOLECULE_SCENARIO_NAME']}")
    assert twin, "molecule has not created the machine, or it is gone"
    notes = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    ssh_config = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / ".cache/twin/ssh_config"
    # The path of a socket may have 107 bytes, so not below the checkout.
    with tempfile.TemporaryDirectory(prefix="edgenpu-") as sockets:
        machine = Box(twin, ssh_config, Path(sockets), notes)
        yield machine
        machine.hang_up()
