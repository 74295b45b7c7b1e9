# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role makes bundles on the control node, and the playbook reads one on a machine that has no card."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import ansible_collections
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.captured import open_root
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree


def play(directory: pathlib.Path, *words: str) -> Any:
    """Run a playbook of the collection with DIRECTORY as working directory."""
    places = os.pathsep.join(str(pathlib.Path(place).parent) for place in ansible_collections.__path__)
    return subprocess.run(
        [sys.executable, "-m", "ansible.cli.playbook", *words],
        cwd=str(directory),
        env={
            **os.environ,
            "PWD": str(directory),
            "ANSIBLE_COLLECTIONS_PATH": places,
            "ANSIBLE_HOME": str(directory / ".ansible"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_bundle_is_made_and_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "here").mkdir()
    hosts.Board(Tree(tmp_path / "tree"))
    words = ("diagnostics_root=%s" % (tmp_path / "tree"), "diagnostics_bundle_dir=bundles", "diagnostics_become=false")
    options = [word for setting in words for word in ("-e", setting)]
    done = play(
        tmp_path / "here", "-i", "nas,", "-c", "local", "edgenpu.tuning.diagnose", "--check", "-e",
        "ansible_python_interpreter=%s" % sys.executable, *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout
    bundle = tmp_path / "here" / "bundles" / "nas.tar.gz"
    assert bundle.stat().st_mode & 0o777 == 0o600
    assert open_root(str(bundle)).root.text("/proc/device-tree/model") == "FriendlyElec CM3588 NAS"

    done = play(tmp_path / "here", "edgenpu.tuning.diagnose_bundle", "-e", "bundle=bundles/nas.tar.gz")
    assert done.returncode == 0, done.stdout
    assert "FriendlyElec CM3588 NAS, kernel 6.1.57" in done.stdout
    assert "Axera AX650N at 0003:31:00.0" in done.stdout
    assert sorted(os.listdir(str(tmp_path / "here" / "bundles"))) == ["nas.tar.gz"]

    done = play(tmp_path / "here", "edgenpu.tuning.diagnose_bundle")
    assert done.returncode != 0
    assert "say which bundle: -e bundle=FILE" in done.stdout
