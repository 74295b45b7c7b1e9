# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A payload takes the agent's compiled code if that is its own code, and whole; else it goes its own way."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Tuple

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils import compiled
from ansible_collections.edgenpu.tuning.plugins.module_utils.act import persist
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.agent import SUMS, is_sound, read_sums
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

PLACE = "ansible_collections/edgenpu/tuning/plugins/module_utils"
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from %(package)s.compiled import prefer_compiled
print(prefer_compiled(sys.argv[2]))
from %(package)s.act import ledger, only_in_payload
print(ledger.__file__.startswith(sys.argv[2]), ledger.__cached__ is not None, end=" ")
print(only_in_payload.__file__.startswith(sys.argv[1]))
""" % {"package": PLACE.replace("/", ".")}
ADOPTED = "True\nTrue True True"
DECLINED = "False\nFalse"


@pytest.fixture
def sources() -> dict[str, bytes]:
    found = persist.agent_sources()
    found[PLACE + "/compiled.py"] = Path(compiled.__file__).read_bytes()
    return found


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    (tmp_path / "host").mkdir()
    sink = Sink(Root(str(tmp_path / "host")))
    persist._install_agent(sink, "/usr/lib/agent", persist.agent_files("pass\n", sys.executable))
    return tmp_path / "host" / "usr" / "lib" / "agent"


def run(directory: Path, sources: dict[str, bytes], agent: Path) -> str:
    """Run what a module does with a payload of SOURCES beside AGENT; return what it says."""
    payload = directory / "payload.zip"
    with zipfile.ZipFile(str(payload), "w", zipfile.ZIP_DEFLATED) as archive:
        for path, source in dict(sources, **{PLACE + "/act/only_in_payload.py": b""}).items():
            archive.writestr(path, source)
    argv = [sys.executable, "-I", "-c", PROGRAM, str(payload), str(agent)]
    return subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout.decode().strip()


def test_the_same_code_is_taken_compiled(tmp_path: Path, sources: dict[str, bytes], agent: Path) -> None:
    assert run(tmp_path, sources, agent) == ADOPTED


def test_modules_that_the_payload_lacks_do_not_matter(tmp_path: Path, sources: dict[str, bytes], agent: Path) -> None:
    del sources[PLACE + "/act/born.py"]
    assert run(tmp_path, sources, agent) == ADOPTED


@pytest.mark.parametrize("layer", ["observe/pci.py", "decide/findings.py", "act/undo.py"])
def test_another_version_is_not_taken(tmp_path: Path, sources: dict[str, bytes], agent: Path, layer: str) -> None:
    sources[PLACE + "/" + layer] += b"\n"
    assert run(tmp_path, sources, agent).startswith(DECLINED)


def _first_compiled(agent: Path) -> Path:
    return next(iter(sorted((agent / PLACE / "act").glob("__pycache__/sink*.pyc"))))


def test_damaged_compiled_code_is_not_taken(tmp_path: Path, sources: dict[str, bytes], agent: Path) -> None:
    broken = _first_compiled(agent)
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-9] + bytes([whole[-9] ^ 0xFF]) + whole[-8:])
    assert run(tmp_path, sources, agent).startswith(DECLINED)


@pytest.mark.parametrize("what", ["compiled file", "sums", "sums that are none", "agent"])
def test_what_is_missing_is_no_trouble(tmp_path: Path, sources: dict[str, bytes], agent: Path, what: str) -> None:
    if what == "compiled file":
        _first_compiled(agent).unlink()
    elif what == "sums":
        (agent / SUMS).unlink()
    elif what == "sums that are none":
        (agent / SUMS).write_bytes(b"\xff\xfe")
    else:
        agent = tmp_path / "nowhere"
    assert run(tmp_path, sources, agent).startswith(DECLINED)


def test_only_a_payload_takes_it(agent: Path) -> None:
    """Tests and a checkout import what lies there, whatever this machine has installed."""
    assert not compiled.prefer_compiled(str(agent))


def test_every_compiled_file_has_its_sum(agent: Path) -> None:
    there = {str(path) for path in agent.rglob("*.pyc")}
    assert there and set(read_sums(str(agent))) == there


def _sound(agent: Path) -> Tuple[bool, bool]:
    path = agent / PLACE / "act" / "sink.py"
    sums, source = read_sums(str(agent)), path.read_bytes()
    return is_sound(str(path), source, sums), is_sound(str(path), source + b"#", sums)


def test_soundness_is_source_and_compiled_form(agent: Path) -> None:
    assert _sound(agent) == (True, False)
    os.truncate(str(_first_compiled(agent)), 10)
    assert _sound(agent) == (False, False)
