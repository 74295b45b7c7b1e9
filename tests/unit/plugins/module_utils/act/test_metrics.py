# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics on the box: what is left there to write them, how they are written, and that nothing of it stays."""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Any, Dict, List, Optional

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import ledger as ledger_module
from ansible_collections.edgenpu.tuning.plugins.module_utils.act import metrics
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger, Locked
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.metrics import write_metrics, write_run
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import (
    METRICS_ENABLED,
    METRICS_TIMER,
    METRICS_UNIT,
    Kept,
    keep,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import SCRATCH, FileState, NotAFile
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.undo import undo
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.metrics import MetricsWishes, Run
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import METRICS, wishes_path
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

PLACE = "/var/lib/prometheus/node-exporter"
OF_HOST, OF_AGENT = PLACE + "/edgenpu_tuning.prom", PLACE + "/edgenpu_tuning_agent.prom"
RUN = Run(1790000000.0, 0.5, 1, 0, 0)
AFFINITY = AffinityWishes(BUILT_IN).to_data()


def wishes(directory: str = PLACE, interval: str = "5min") -> Dict[str, Any]:
    return MetricsWishes(directory, interval, BUILT_IN).to_data()


@pytest.fixture(name="board")
def fixture_board(tree: Tree) -> hosts.Board:
    return hosts.Board(tree)


def kept(
    board: hosts.Board,
    asked: Optional[Dict[str, Any]] = None,
    role: str = METRICS,
    runner: Optional[hosts.Commands] = None,
    check: bool = False,
) -> Kept:
    asked = asked if asked is not None else wishes()
    commands = runner or hosts.Commands()
    return keep(board.kernel, Ledger(board.kernel), role, asked, hosts.FRONT_DOOR, sys.executable, commands, check)


def written(board: hosts.Board, now_s: float, run: Optional[Run] = None) -> List[str]:
    """Write the metrics, with those of the agent's run where there was one; return what stood in the way."""
    problems = [] if run is None else write_run(board.kernel, run)
    return problems + write_metrics(board.kernel, lambda: now_s)


def given_back(board: hosts.Board, role: str = METRICS, runner: Optional[hosts.Commands] = None) -> Any:
    return undo(board.kernel, Ledger(board.kernel), role, runner or hosts.Commands(), False)


class TestKept:
    def test_what_is_left(self, board: hosts.Board) -> None:
        runner = hosts.Commands()
        found = kept(board, runner=runner)
        paths = [change.path for change in found.changes]
        assert paths[-4:] == [wishes_path(METRICS), METRICS_UNIT, METRICS_TIMER, METRICS_ENABLED]
        assert found.refused == []
        assert runner.run == [
            "systemctl daemon-reload",
            "udevadm control --reload",
            "systemctl restart edgenpu-tuning-metrics.timer",
        ]
        unit, timer = board.root.text(METRICS_UNIT) or "", board.root.text(METRICS_TIMER) or ""
        assert "\nExecStart=/usr/lib/edgenpu-tuning/current/edgenpu-tuning metrics --write\n" in unit
        assert "\nOnUnitActiveSec=5min\n" in timer
        assert "$" not in unit + timer
        enabled = board.tree.path / METRICS_ENABLED[1:]
        assert enabled.resolve() == board.tree.path / METRICS_TIMER[1:]

    def test_second_time_changes_nothing(self, board: hosts.Board) -> None:
        kept(board)
        written(board, 1.0, RUN)
        before, runner = board.snapshot(), hosts.Commands()
        assert kept(board, runner=runner) == Kept([], [], [], [])
        assert (board.snapshot(), runner.run) == (before, [])

    def test_check_mode_predicts_and_writes_nothing(self, board: hosts.Board) -> None:
        before, runner = board.snapshot(), hosts.Commands()
        predicted = kept(board, runner=runner, check=True)
        assert (board.snapshot(), runner.run) == (before, [])
        assert predicted == kept(board)

    def test_another_interval(self, board: hosts.Board) -> None:
        kept(board)
        runner = hosts.Commands()
        found = kept(board, wishes(interval="1h 30min"), runner=runner)
        assert [change.path for change in found.changes] == [wishes_path(METRICS), METRICS_TIMER]
        assert "\nOnUnitActiveSec=1h 30min\n" in (board.root.text(METRICS_TIMER) or "")
        assert runner.run == ["systemctl daemon-reload", "systemctl restart edgenpu-tuning-metrics.timer"]

    def test_another_directory(self, board: hosts.Board) -> None:
        """The metrics of the old one go: nobody would keep them up to date."""
        kept(board)
        written(board, 1.0, RUN)
        runner = hosts.Commands()
        predicted = kept(board, wishes("/srv/metrics"), check=True)
        found = kept(board, wishes("/srv/metrics"), runner=runner)
        assert predicted.changes == found.changes
        assert [change.path for change in found.changes] == [wishes_path(METRICS), OF_HOST, OF_AGENT]
        assert runner.run == ["systemctl restart edgenpu-tuning-metrics.timer"]
        assert not board.root.exists(OF_HOST)
        written(board, 1.0)
        assert board.root.exists("/srv/metrics/edgenpu_tuning.prom")

    def test_a_directory_in_the_way(self, board: hosts.Board) -> None:
        (board.tree.path / OF_AGENT[1:]).mkdir(parents=True)
        before = board.snapshot()
        with pytest.raises(NotAFile, match=r"edgenpu_tuning_agent\.prom is neither a file nor a link"):
            kept(board)
        assert board.snapshot() == before

    def test_other_roles_do_not_touch_it(self, board: hosts.Board) -> None:
        kept(board)
        kept(board, AFFINITY, "irq_affinity")
        given_back(board, "irq_affinity")
        assert board.root.exists(METRICS_TIMER)
        assert kept(board).changes == []


class TestGivenBack:
    @pytest.mark.parametrize("theirs", [False, True])
    def test_everything(self, board: hosts.Board, theirs: bool) -> None:
        if theirs:
            for path in (OF_HOST, METRICS_TIMER):
                board.tree.file(path, "theirs\n")
                (board.tree.path / path[1:]).chmod(0o640)
        before = board.snapshot()
        kept(board)
        assert written(board, 1.0, RUN) == []
        runner = hosts.Commands()
        undone = given_back(board, runner=runner)
        assert (undone.refused, undone.left) == ([], [])
        assert board.snapshot() == before
        stop = "systemctl stop edgenpu-tuning-metrics.timer edgenpu-tuning-metrics.service"
        assert (stop in runner.run) != theirs
        assert "systemctl daemon-reload" in runner.run

    def test_before_anything_was_written(self, board: hosts.Board) -> None:
        before = board.snapshot()
        kept(board)
        given_back(board)
        assert board.snapshot() == before

    def test_a_directory_that_others_use_stays(self, board: hosts.Board) -> None:
        kept(board)
        written(board, 1.0)
        board.tree.file(PLACE + "/apt.prom", "x 1\n")
        given_back(board)
        assert board.root.names(PLACE) == ["apt.prom"]

    def test_the_timer_is_stopped_before_systemd_forgets_it(self, board: hosts.Board) -> None:
        kept(board)
        failing = "systemctl stop edgenpu-tuning-metrics.timer edgenpu-tuning-metrics.service"
        runner = hosts.Commands({failing: "Unit edgenpu-tuning-metrics.timer not loaded.\n"})
        assert given_back(board, runner=runner).refused == []
        assert runner.run.index(failing) < runner.run.index("systemctl daemon-reload")

    def test_with_the_last_role_goes_the_agent(self, board: hosts.Board) -> None:
        before = board.snapshot()
        kept(board, AFFINITY, "irq_affinity")
        kept(board)
        given_back(board, "irq_affinity")
        assert board.root.exists("/usr/lib/edgenpu-tuning/current")
        given_back(board)
        assert board.snapshot() == before


class TestWritten:
    @pytest.fixture(autouse=True)
    def wished(self, board: hosts.Board) -> None:
        board.wishes(METRICS, wishes())
        board.tree.file(PLACE + "/.keep")

    def test_each_file(self, board: hosts.Board) -> None:
        assert written(board, 1.0) == []
        assert not board.root.exists(OF_AGENT), "the agent has not run"
        assert written(board, 2.0, RUN) == []
        assert "\nedgenpu_diagnosis_timestamp_seconds 2\n" in (board.root.text(OF_HOST) or "")
        assert "\nedgenpu_agent_last_run_changes 1\n" in (board.root.text(OF_AGENT) or "")
        last = board.root.data(OF_AGENT)
        assert written(board, 3.0) == []
        assert board.root.data(OF_AGENT) == last, "that run has not changed since"
        for path in (OF_HOST, OF_AGENT):
            assert (board.tree.path / path[1:]).stat().st_mode & 0o777 == 0o644

    def test_a_reader_never_finds_half_of_one(self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        written(board, 1.0)
        old = board.root.data(OF_HOST)
        seen: List[Any] = []
        real = os.rename

        def rename(source: Any, target: Any) -> None:
            assert os.path.dirname(source) == os.path.dirname(target), "across file systems nothing is atomic"
            assert not source.endswith(".prom"), "the collector reads whatever ends so"
            seen.append((board.root.data(OF_HOST) == old, pathlib.Path(source).read_bytes()))
            real(source, target)

        monkeypatch.setattr(os, "rename", rename)
        written(board, 2.0)
        assert seen == [(True, board.root.data(OF_HOST))]
        assert board.root.names(PLACE) == [".keep", "edgenpu_tuning.prom"]

    def test_what_a_killed_run_has_left(self, board: hosts.Board) -> None:
        board.tree.file("%s/%s" % (PLACE, SCRATCH), "half")
        assert written(board, 1.0) == []
        assert SCRATCH not in board.root.names(PLACE)

    def test_a_link_of_somebody_else_is_replaced(self, board: hosts.Board) -> None:
        """The directory may be another user's; root must not write where a link of theirs leads."""
        board.tree.file("/etc/precious", "precious")
        board.tree.link(OF_HOST, "../../../../etc/precious")
        board.tree.link("%s/%s" % (PLACE, SCRATCH), "../../../../etc/precious")
        assert written(board, 1.0) == []
        assert board.root.text("/etc/precious") == "precious"
        assert not (board.tree.path / OF_HOST[1:]).is_symlink()

    def test_without_wishes(self, board: hosts.Board) -> None:
        (board.tree.path / wishes_path(METRICS)[1:]).unlink()
        assert written(board, 1.0, RUN) == []
        assert board.root.names(PLACE) == [".keep"]

    @pytest.mark.parametrize("later", [None, wishes("/srv/metrics")])
    def test_given_back_while_the_host_was_looked_at(
        self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch, later: Optional[Dict[str, Any]]
    ) -> None:
        real = metrics.look

        def look(*words: Any) -> Any:
            (board.tree.path / wishes_path(METRICS)[1:]).unlink()
            if later is not None:
                board.wishes(METRICS, later)
            return real(*words)

        monkeypatch.setattr(metrics, "look", look)
        assert written(board, 1.0) == []
        assert board.root.names(PLACE) == [".keep"]
        assert not board.root.exists("/srv/metrics")

    def test_agent_that_ran_while_the_host_was_looked_at(
        self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it changed is told, though systemd starts nothing for a unit that is under way."""
        real, times = metrics.look, iter((1.0, 2.0))

        def look(*words: Any) -> Any:
            seen = real(*words)
            if not board.root.exists(OF_AGENT):
                write_run(board.kernel, RUN)
                board.irq(38, "4", "4")
            return seen

        monkeypatch.setattr(metrics, "look", look)
        assert write_metrics(board.kernel, lambda: next(times)) == []
        assert "\nedgenpu_diagnosis_timestamp_seconds 2\n" in (board.root.text(OF_HOST) or "")

    def test_storm_of_events(self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is no reason to look again and again."""
        real, looks = metrics.look, []

        def look(*words: Any) -> Any:
            looks.append(1)
            write_run(board.kernel, RUN._replace(changes=len(looks)))
            return real(*words)

        monkeypatch.setattr(metrics, "look", look)
        assert written(board, 1.0) == []
        assert len(looks) == metrics.MOST_LOOKS

    def test_cards_are_asked_only_where_commands_may_be_run(self, board: hosts.Board) -> None:
        asked: List[str] = []

        def run(argv: Any, timeout_s: float) -> Ran:
            asked.append(" ".join(argv))
            return Ran(1, "")

        assert written(board, 1.0) == []
        assert write_metrics(board.kernel, lambda: 1.0, run) == []
        assert asked == ["dmesg"]

    def test_wishes_that_make_no_sense(self, board: hosts.Board) -> None:
        board.wishes(METRICS, {"directory": "x", "interval": "5min"})
        [problem] = written(board, 1.0)
        assert problem.startswith("metrics: %s: directory: 'x' is no absolute path" % wishes_path(METRICS))

    def test_full_disk(self, board: hosts.Board) -> None:
        def full(path: str) -> None:
            raise OSError(28, "No space left on device", path)

        board.kernel.before_put = full
        assert written(board, 1.0) == ["metrics: %s: No space left on device" % OF_HOST]

    def test_something_in_the_way(self, board: hosts.Board) -> None:
        (board.tree.path / OF_HOST[1:]).mkdir()
        [problem] = written(board, 1.0)
        assert problem.startswith("metrics: ") and OF_HOST in problem
        board.tree.file("/var/lib/file", "")
        board.wishes(METRICS, wishes("/var/lib/file/below"))
        [problem] = written(board, 1.0)
        assert problem.startswith("metrics: ") and "/var/lib/file" in problem

    def test_somebody_holds_the_lock(self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metrics, "LOCK_LIMIT_S", 0.05)
        with Locked(board.kernel):
            [problem] = written(board, 1.0)
        assert problem.startswith("metrics: %s could not be locked" % ledger_module.LOCK_PATH)
        assert board.root.names(PLACE) == [".keep"]

    def test_ledger_that_is_damaged(self, board: hosts.Board) -> None:
        """It keeps the agent from tuning; metrics tell of the host all the same."""
        board.tree.file(ledger_module.PATH, "{")
        with pytest.raises(WishError):
            Ledger(board.kernel)
        board.wishes("irq_affinity", AFFINITY)
        assert written(board, 1.0) == []

    def test_a_directory_that_went(self, board: hosts.Board) -> None:
        for path in sorted((board.tree.path / "var/lib/prometheus").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        assert written(board, 1.0) == []
        assert board.kernel.state(OF_HOST).content == board.root.data(OF_HOST)
        assert isinstance(board.kernel.state(OF_HOST), FileState)
