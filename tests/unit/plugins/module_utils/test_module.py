# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules share, where it can be tested without one."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess
import sys
from typing import Any, Dict, Optional, Sequence, Tuple

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils import module
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import FileState, NotAFile
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change, WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts


class TestUnfit:
    """Files of root's have to be made for this, so everything is looked at through a stand-in for the kernel."""

    @staticmethod
    def reason(monkeypatch: pytest.MonkeyPatch, path: str, found: Dict[str, Tuple[int, int, int]]) -> Optional[str]:
        """Judge PATH where these have (mode, owner, group); all else is root's, a directory unless it has a dot."""

        def look(path: str) -> os.stat_result:
            usual = (stat.S_IFREG if "." in path else stat.S_IFDIR) | 0o755
            if path.endswith("missing"):
                raise FileNotFoundError(2, "No such file or directory")
            mode, uid, gid = found.get(path, (usual, 0, 0))
            return os.stat_result((mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))

        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", look)
            return module.unfit(path)

    @pytest.mark.parametrize(
        "path",
        [
            "/usr/bin/python3.11",
            "/usr/local/bin/python3.12",
            "/opt/python/3.13/bin/python3.13",
            "/srv/homes/python3.9",
            "/runtime/python3.9",
        ],
    )
    def test_fit(self, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
        assert self.reason(monkeypatch, path, {}) is None

    @pytest.mark.parametrize(
        ("path", "place"),
        [
            ("/home/me/.pyenv/versions/3.12.1/bin/python3.12", "/home"),
            ("/root/.pyenv/versions/3.12.1/bin/python3.12", "/root"),
            ("/tmp/venv/bin/python3.12", "/tmp"),
            ("/var/tmp/python3.12", "/var/tmp"),
            ("/run/user/0/python3.12", "/run"),
            ("/dev/shm/python3.12", "/dev/shm"),
        ],
    )
    def test_place(self, monkeypatch: pytest.MonkeyPatch, path: str, place: str) -> None:
        assert self.reason(monkeypatch, path, {}) == "it is below " + place

    @pytest.mark.parametrize(
        ("changed", "found"),
        [
            ("/opt/py/bin/python3.12", (stat.S_IFREG | 0o755, 1000, 0)),
            ("/opt/py/bin/python3.12", (stat.S_IFREG | 0o757, 0, 0)),
            ("/opt/py/bin/python3.12", (stat.S_IFREG | 0o775, 0, 50)),
            ("/opt/py/bin/python3.12", (stat.S_IFREG | 0o1757, 0, 0)),
            ("/opt/py", (stat.S_IFDIR | 0o755, 1000, 1000)),
            ("/opt/py", (stat.S_IFDIR | 0o777, 0, 0)),
            ("/opt", (stat.S_IFDIR | 0o2775, 0, 50)),
            ("/", (stat.S_IFDIR | 0o777, 0, 0)),
        ],
    )
    def test_what_others_may_change(
        self, monkeypatch: pytest.MonkeyPatch, changed: str, found: Tuple[int, int, int]
    ) -> None:
        assert (
            self.reason(monkeypatch, "/opt/py/bin/python3.12", {changed: found})
            == "others than root may change " + changed
        )

    @pytest.mark.parametrize("found", [(stat.S_IFDIR | 0o775, 0, 0), (stat.S_IFDIR | 0o1775, 0, 30000)])
    def test_what_they_may_not(self, monkeypatch: pytest.MonkeyPatch, found: Tuple[int, int, int]) -> None:
        """Root's own group, and a sticky directory (as /nix/store), where only files of one's own can be replaced."""
        assert self.reason(monkeypatch, "/opt/py/bin/python3.12", {"/opt/py": found}) is None

    def test_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.reason(monkeypatch, "/usr/bin/missing", {}) == "/usr/bin/missing: No such file or directory"


class TestLastingPython:
    @pytest.fixture(name="usr")
    def fixture_usr(self, tmp_path: pathlib.Path) -> pathlib.Path:
        for version in ("3.11", "3.13"):
            (tmp_path / ("python" + version)).write_text("")
        (tmp_path / "python3").symlink_to("python3.11")
        (tmp_path / "venv").symlink_to(tmp_path / "python3")
        return tmp_path

    @staticmethod
    def fit(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        """Let root depend on interpreters of these names only."""
        monkeypatch.setattr(
            module, "unfit", lambda path: None if os.path.basename(path) in names else "somebody may change it"
        )

    @pytest.mark.parametrize(
        ("executable", "expected"),
        [("python3.11", "python3"), ("python3", "python3"), ("venv", "python3"), ("python3.13", "python3.13")],
    )
    def test_path(self, monkeypatch: pytest.MonkeyPatch, usr: pathlib.Path, executable: str, expected: str) -> None:
        self.fit(monkeypatch, "python3.11", "python3.13")
        runner = hosts.Commands()
        found = module.lasting_python(str(usr / executable), runner, str(usr / "python3"))
        assert found == str(usr / expected)
        assert runner.run == []

    def test_no_such_python_of_the_system(self, monkeypatch: pytest.MonkeyPatch, usr: pathlib.Path) -> None:
        self.fit(monkeypatch, "python3.11")
        found = module.lasting_python(str(usr / "venv"), hosts.Commands(), str(usr / "nowhere"))
        assert found == str(usr / "python3.11")

    def test_the_system_s_stands_in(self, monkeypatch: pytest.MonkeyPatch, usr: pathlib.Path) -> None:
        self.fit(monkeypatch, "python3.11")
        runner = hosts.Commands()
        found = module.lasting_python(str(usr / "python3.13"), runner, str(usr / "python3"))
        assert found == str(usr / "python3")
        [command] = runner.run
        assert command.startswith(str(usr / "python3") + " -IS -c import ")

    @pytest.mark.parametrize("system", ["too old", "somebody's", "missing", "the same"])
    def test_nothing_will_do(self, monkeypatch: pytest.MonkeyPatch, usr: pathlib.Path, system: str) -> None:
        self.fit(monkeypatch, *(["python3.11"] if system == "too old" else []))

        def too_old(argv: Sequence[str], timeout_s: float) -> Ran:
            assert system == "too old", "what somebody may change must not be run, either"
            return Ran(1, "")

        name = {"missing": "nowhere", "the same": "python3.13"}.get(system, "python3")
        with pytest.raises(WishError) as refused:
            module.lasting_python(str(usr / "python3.13"), too_old, str(usr / name))
        assert str(refused.value) == (
            "%s cannot be what root runs at every boot: somebody may change it, and %s is no Python 3.8 or newer that "
            "could stand in; set ansible_python_interpreter to one that only root can change, or set persist: false"
            % (usr / "python3.13", usr / name)
        )

    @pytest.mark.parametrize(("before", "status"), [("", 0), ("sys.version_info = (3, 7, 9); ", 1)])
    def test_what_decides_is_a_program(self, before: str, status: int) -> None:
        program = "import sys; " + before + module._WILL_DO
        assert subprocess.run([sys.executable, "-IS", "-c", program], check=False).returncode == status


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
