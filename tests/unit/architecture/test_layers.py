# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The house rule: imports run downwards only, decisions touch nothing, what observes does not write."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.edgenpu.tuning.tests.unit.architecture.layers import (
    LAYERS,
    PACKAGE,
    Source,
    layer_violations,
    readers,
)

MODULE_UTILS = Path(__file__).parents[3] / "plugins" / "module_utils"


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_keeps_its_rules(layer: str) -> None:
    sources = sorted((MODULE_UTILS / layer).rglob("*.py"))
    assert len(sources) > 1, f"no sources in {MODULE_UTILS / layer}"
    assert [broken for path in sources for broken in layer_violations(Source(path), layer)] == []


@pytest.mark.parametrize("layer", ["observe", "decide"])
def test_lower_layers_are_flat(layer: str) -> None:
    """The rules above look up what decide takes from observe by file name."""
    assert [path for path in (MODULE_UTILS / layer).iterdir() if path.is_dir() and path.name != "__pycache__"] == []


def test_reading_functions_are_told_from_pure_ones() -> None:
    found = readers(Source(MODULE_UTILS / "observe" / "pci.py"))
    assert {"Root", "read_devices"} <= found
    assert not {"PciDevice", "decode_config", "bandwidth_mb_s", "path_to_root"} & found


# The rules must bite: each of these lines, put into a file of the layer, is found.
BREAKING = [
    ("observe", f"from {PACKAGE}.decide.shapes import Change"),
    ("observe", f"from {PACKAGE}.act import ledger"),
    ("observe", "from ..act.ledger import Ledger"),
    ("observe", f"import {PACKAGE}.act.ledger"),
    ("observe", f"from {PACKAGE} import module"),
    ("observe", "from ansible.module_utils.basic import AnsibleModule"),
    ("observe", "import yaml"),
    ("observe", "import subprocess"),
    ("observe", "import importlib; importlib.import_module('x')"),
    ("observe", "import os; os.popen('lspci')"),
    ("observe", "print('x')"),
    ("observe", "import sys; sys.stdout.write('x')"),
    ("observe", "open('/sys/x', 'w')"),
    ("observe", "open('/sys/x', mode='r+b')"),
    ("observe", "import os; os.write(1, b'x')"),
    ("observe", "from pathlib import Path; Path('x').write_text('y')"),
    ("decide", f"from {PACKAGE}.act.ledger import Ledger"),
    ("decide", f"from {PACKAGE}.observe.files import Root"),
    ("decide", f"from {PACKAGE}.observe.pci import read_devices"),
    ("decide", f"from {PACKAGE}.observe import pci"),
    ("decide", f"import {PACKAGE}.observe.pci"),
    ("decide", "def late():\n    import os"),
    ("decide", "from os import environ"),
    ("decide", "import io"),
    ("decide", "import time"),
    ("decide", "import pathlib"),
    ("decide", "import random"),
    ("decide", "open('/proc/cpuinfo')"),
    ("decide", "__import__('os')"),
    ("act", f"from {PACKAGE}.module import run"),
    ("act", "import subprocess"),
    ("act", "import os; os.execv('/bin/true', [])"),
    ("act", "print('x')"),
]

ALLOWED = [
    ("observe", "import os\nimport struct\nopen('/sys/x', 'rb')\nos.readlink('x')"),
    ("decide", f"import re\nfrom {PACKAGE}.observe.pci import PciDevice, path_to_root"),
    ("act", "import importlib.util, os\nimportlib.util.find_spec('x')\nopen('/sys/x', 'w')"),
    ("act", f"from {PACKAGE}.decide.shapes import Change"),
]


def _in_layer(tmp_path: Path, layer: str, text: str) -> Source:
    (tmp_path / "observe").symlink_to(MODULE_UTILS / "observe")
    # Not in the layer's own directory, since observe there is the real one; the reader goes by the neighbours.
    directory = tmp_path / "layer"
    directory.mkdir()
    path = directory / "sample.py"
    path.write_text(text + "\n", encoding="utf-8")
    return Source(path)


@pytest.mark.parametrize(("layer", "text"), BREAKING)
def test_what_breaks_a_rule_is_found(tmp_path: Path, layer: str, text: str) -> None:
    assert len(layer_violations(_in_layer(tmp_path, layer, text), layer)) == 1


@pytest.mark.parametrize(("layer", "text"), ALLOWED)
def test_what_a_layer_is_for_is_allowed(tmp_path: Path, layer: str, text: str) -> None:
    assert layer_violations(_in_layer(tmp_path, layer, text), layer) == []
