# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates run side by side; what they print is shown when it helps, and is never lost or torn."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.edgenpu.tuning.tools import gates
from ansible_collections.edgenpu.tuning.tools.gates import Gate, Step


def step(program: str, clean: str | None = None) -> Step:
    """Return a step that runs a Python program."""
    return Step([sys.executable, "-c", program], Path("/"), dict(os.environ), clean)


def gate(name: str, *steps: Step, tells: bool = False) -> Gate:
    return Gate(name, "it", lambda: steps, tells=tells)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was printed, without the time that a gate took."""
    return [line.partition(" in ")[0] for line in capsys.readouterr().out.splitlines()]


def test_what_a_gate_prints_is_shown_if_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    good = gate("good", step("print('all is well')"))
    bad = gate("bad", step("import sys; print('one'); print('two', file=sys.stderr, flush=True); sys.exit(3)"))
    assert gates.run([good, bad], 1) == 1
    shown = lines(capsys)
    assert "all is well" not in shown
    assert {"one", "two"} <= set(shown)
    assert shown[-3].endswith("ended with 3")
    assert shown[-2:] == ["<== bad: FAILED", "--- failed: bad"]


def test_output_that_must_not_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Some tools end with 0 whatever they have found; this holds for gates that tell, too."""
    for tells in (False, True):
        found = gate("found", step("print('first'); print('WARNING: x')", clean="^WARNING"), tells=tells)
        assert gates.run([found], 1) == 1
        assert gates.run([gate("clean", step("print('a WARNING')", clean="^WARNING"), tells=tells)], 1) == 0


def test_progress_is_told_as_it_comes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """And the gate beside it runs meanwhile: each waits for what only the other one does."""
    go = tmp_path / "go"
    waits = (
        f"import pathlib, time\nprint('twin: half', flush=True)\n"
        f"while not pathlib.Path({str(go)!r}).exists():\n    time.sleep(0.02)\nprint('done')"
    )
    telling = gate("twin", step(waits), tells=True)
    shown: list[str] = []

    def watch() -> None:
        until = time.monotonic() + 30
        while "twin: half" not in shown and time.monotonic() < until:
            shown.extend(lines(capsys))
            time.sleep(0.02)
        shown.append("--- go")
        go.touch()

    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(gates.run([telling, gate("other", step(""))], 2)))
    thread.start()
    watch()
    thread.join(60)
    shown += lines(capsys)
    assert status == [0]
    assert shown.index("twin: half") < shown.index("--- go") < shown.index("twin: done")
    assert shown.index("<== other: ok") < shown.index("<== twin: ok")


def test_progress_is_shown_once_if_the_gate_fails(capsys: pytest.CaptureFixture[str]) -> None:
    program = "import sys; print('half', flush=True); "
    program += "print('why\\nit broke', file=sys.stderr, end='', flush=True); sys.exit(2)"
    assert gates.run([gate("twin", step(program), tells=True)], 2) == 1
    shown = lines(capsys)
    for line in ("twin: half", "twin: why", "twin: it broke"):
        assert shown.count(line) == 1
    assert not {"half", "why", "it broke"} & set(shown)
    assert [line for line in shown if line.startswith("twin: `") and line.endswith("ended with 2")]


def test_lines_of_several_gates_are_not_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line and its end in one piece: between two, another gate's thread may have its turn."""
    pieces: list[str] = []

    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Terminal())
    assert gates.run([gate("a", step("print(1); print(2)"), tells=True)], 1) == 0
    assert len(pieces) == 4
    assert [piece for piece in pieces if not piece.endswith("\n") or "\n" in piece[:-1]] == []


def test_bytes_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    program = "import sys; sys.stdout.buffer.write(b'\\xff!\\n'); sys.exit(1)"
    assert gates.run([gate("odd", step(program))], 1) == 1
    assert "\ufffd!" in lines(capsys)


def test_command_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    missing = gate("missing", Step(["/nowhere/x"], Path("/"), {}))
    assert gates.run([missing], 1) == 1
    assert "/nowhere/x: No such file or directory" in lines(capsys)


def test_building_the_twin_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes minutes the first time, beside gates that are silent until they fail."""
    monkeypatch.setattr(gates.venvs, "ensure", lambda name: Path("/venv"))
    [twin] = gates.twin_gates()
    assert (twin.tells, twin.live) == (True, False)
