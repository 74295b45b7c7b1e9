# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules share, where it can be tested without one."""

from __future__ import annotations

import pathlib
from typing import Any, Dict

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils import module
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import FileState, NotAFile
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change


class TestLastingPython:
    @pytest.fixture(name="usr")
    def fixture_usr(self, tmp_path: pathlib.Path) -> pathlib.Path:
        for version in ("3.11", "3.13"):
            (tmp_path / ("python" + version)).write_text("")
        (tmp_path / "python3").symlink_to("python3.11")
        (tmp_path / "venv").symlink_to(tmp_path / "python3")
        return tmp_path

    @pytest.mark.parametrize(
        ("executable", "expected"),
        [("python3.11", "python3"), ("python3", "python3"), ("venv", "python3"), ("python3.13", "python3.13")],
    )
    def test_path(self, usr: pathlib.Path, executable: str, expected: str) -> None:
        found = module.lasting_python(str(usr / executable), str(usr / "python3"))
        assert found == str(usr / expected)

    def test_no_such_python_of_the_system(self, usr: pathlib.Path) -> None:
        assert module.lasting_python(str(usr / "venv"), str(usr / "nowhere")) == str(usr / "python3.11")


class TestDifference:
    def test_values(self) -> None:
        [shown] = module.diff_of([Change("/x", None, "4", "why")], [])
        assert shown == {"before_header": "/x", "after_header": "/x", "before": "", "after": "4\n"}

    def test_files_are_shown_whole_and_once(self) -> None:
        before, after = FileState(b"a\nb"), FileState(None, "there", 0o777)
        [shown] = module.diff_of([Change("/x", "a", "b", "why")], [("/x", before, after)])
        assert (shown["before"], shown["after"]) == ("a\nb\n", "link to there\n")

    def test_content_that_is_no_text(self) -> None:
        [shown] = module.diff_of([], [("/x", FileState(b"\xff\n"), FileState())])
        assert (shown["before"], shown["after"]) == ("\ufffd\n", "")


class Ended(Exception):
    pass


class Failing:
    """Stands for an AnsibleModule."""

    def __init__(self) -> None:
        self.told: Dict[str, Any] = {}

    def fail_json(self, **told: Any) -> None:
        self.told = told
        raise Ended


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "No space left on device", "/x"), "/x: No space left on device (ENOSPC); mend that and run again"),
        (OSError(5, "Input/output error"), "a file: Input/output error (EIO); mend that and run again"),
        (NotAFile("a sentence"), "a sentence"),
    ],
)
def test_errors_become_sentences(error: Exception, sentence: str) -> None:
    failing: Any = Failing()
    with pytest.raises(Ended):
        module.fail(failing, error)
    assert failing.told == {"msg": sentence}
