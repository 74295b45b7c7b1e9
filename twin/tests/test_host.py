# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from twin.host import locked


@pytest.mark.parametrize(("name", "said"), [("build.lock", True), ("qtest.lock", False)])
def test_waiting_for_a_build_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, said: bool) -> None:
    """It may take minutes; other locks are held for a moment."""
    got = threading.Event()

    def second() -> None:
        with locked(tmp_path / name):
            got.set()

    waiter = threading.Thread(target=second)
    with locked(tmp_path / name):
        assert capfd.readouterr().out == ""
        waiter.start()
        assert not got.wait(0.3)
    waiter.join(60)
    assert got.is_set()
    assert capfd.readouterr().out == ("twin: another build is under way, waiting for it\n" if said else "")
