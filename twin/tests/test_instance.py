# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What surrounds a running twin: its ssh configuration, and whose process it is."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from twin import host, instance, twins
from twin.board import load_named
from twin.instance import Instance


@pytest.fixture(name="checkout")
def _checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(host, "CHECKOUT", tmp_path / "checkout")
    # Not below tmp_path, whose name is too long for sockets.
    with tempfile.TemporaryDirectory(prefix="twin-") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        yield tmp_path / "checkout"


def _instance(name: str, port: int) -> Instance:
    return Instance(name, load_named("cm3588"), Path("/cache/built"), host.runtime_root() / name, port)


def test_ssh_config_has_one_block_per_twin(checkout: Path) -> None:
    path = instance.write_ssh_config([_instance("one", 2201), _instance("two", 2202)])
    text = path.read_text(encoding="utf-8")
    assert path == checkout / ".cache/twin/ssh_config"
    blocks = text.split("Host ")[1:]
    assert [block.splitlines()[0] for block in blocks] == ["one", "two"]
    assert "    Port 2202\n" in blocks[1] and "    IdentityFile /cache/built/id_ed25519\n" in blocks[1]
    assert "Control" not in text


def test_a_process_that_is_not_ours_is_not_alive_and_not_killed(checkout: Path) -> None:
    twin = _instance("one", 2201)
    twin.run.mkdir()
    state = {"name": "one", "board": "cm3588", "built": "/b", "port": 1, "pid": os.getpid(), "started": 1, "disk": "/d"}
    (twin.run / instance.STATE_FILE).write_text(json.dumps(state), encoding="utf-8")
    assert not twin.is_alive()
    assert [found.name for found in twins.known()] == ["one"] and twins.running() == []
    twin.stop()
    assert not twin.run.exists()


def test_a_folder_that_others_may_read_is_refused(checkout: Path) -> None:
    host.runtime_root().chmod(0o755)
    with pytest.raises(host.TwinError, match="yours alone"):
        host.runtime_root()


@pytest.mark.parametrize("base", ["", "long"])
def test_sockets_fit_into_their_address(base: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", base and f"/run/{'long/' * 30}")
    root = host.runtime_root()
    root.rmdir()
    assert len(str(root / ("n" * 24) / "qtest.sock")) < 108


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 25, ".build"])
def test_names_that_would_be_paths_are_refused(checkout: Path, name: str) -> None:
    with pytest.raises(host.TwinError, match="cannot name a twin"):
        twins.Twin.start(name)


def test_an_impossible_speed_is_refused_before_anything_is_touched(checkout: Path) -> None:
    with pytest.raises(host.TwinError, match="no PCIe speed"):
        _instance("one", 2201).set_link("0003:31:00.0", 3.0, 1)
