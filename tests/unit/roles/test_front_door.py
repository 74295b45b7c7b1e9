# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command on the box, run on a tree instead of the live system."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import ledger, persist, sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.act import look as looking
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.bundle import bundle, write_new
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import keep
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.undo import undo
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN, resolve
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.metrics import MetricsWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import captured, files
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.captured import Recorder
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe import pcie_trees
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

PATH = pathlib.Path(__file__).parents[3] / "roles" / "irq_affinity" / "files" / "edgenpu_tuning.py"
AFFINITY = AffinityWishes(BUILT_IN).to_data()
IRQ = "/proc/irq/38/smp_affinity_list"
METRICS = "/var/lib/prometheus/node-exporter"


class Said(NamedTuple):
    """What a verb ended with, and what it said."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> List[str]:
        return self.out.splitlines()


class Command:
    """Runs verbs of the command on a board, as root unless told otherwise."""

    def __init__(self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        path = list(sys.path)
        spec = importlib.util.spec_from_file_location("edgenpu_tuning", str(PATH))
        assert spec is not None
        assert spec.loader is not None
        self.module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        sys.path[:] = path
        self.commands: List[Sequence[str]] = []
        self.answer = Ran(0, "")
        self._capsys = capsys
        # The verbs fetch these when they run.
        monkeypatch.setattr(files, "Root", lambda path: board.root)
        monkeypatch.setattr(captured, "Recorder", lambda path: Recorder(board.root.path))
        monkeypatch.setattr(sink, "Sink", lambda root: board.kernel)
        monkeypatch.setattr(self.module, "run_command", self._run_command)
        monkeypatch.setattr(os, "geteuid", lambda: 0)

    def _run_command(self, argv: Sequence[str], timeout_s: float) -> Ran:
        self.commands.append(argv)
        return self.answer

    def __call__(self, *words: str) -> Said:
        self._capsys.readouterr()
        status = self.module.main(list(words))
        said = self._capsys.readouterr()
        return Said(status, said.out, said.err)


@pytest.fixture(name="board")
def fixture_board(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> hosts.Board:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    if os.geteuid() != 0:
        hosts.let_root_own_nothing(monkeypatch)
    return hosts.Board(Tree(tmp_path))


@pytest.fixture(name="command")
def fixture_command(board: hosts.Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(board, monkeypatch, capsys)


def install(board: hosts.Board, *roles: str) -> None:
    wishes: Dict[str, Dict[str, Any]] = {
        "irq_affinity": AFFINITY,
        "governor": ClockWishes().to_data(),
        "diagnostics": MetricsWishes(METRICS, "5min", BUILT_IN).to_data(),
    }
    for role in roles or ("irq_affinity", "governor"):
        known = ledger.Ledger(board.kernel)
        keep(board.kernel, known, role, wishes[role], "", sys.executable, hosts.Commands(), False)


class TestUsage:
    @pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
    def test_help(self, command: Command, words: List[str]) -> None:
        assert command(*words) == Said(0, command.module.USAGE, "")

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            ([], "a verb is missing"),
            (["bogus"], "'bogus' is no verb"),
            (["status", "x"], "status does not know 'x'"),
            (["apply", "--json"], "apply does not know '--json'"),
            (["diagnose", "--check"], "diagnose does not know '--check'"),
            (["metrics", "--json"], "metrics does not know '--json'"),
            (["diagnose", "x"], "diagnose does not know 'x'"),
            (["diagnose", "--json", "--json"], "--json is there twice"),
            (["diagnose", "--bundle"], "--bundle needs a value"),
            (["diagnose", "--bundle", "--json"], "--bundle needs a value"),
            (["diagnose", "--fail-severity"], "--fail-severity needs a value"),
            (
                ["diagnose", "--fail-severity", "ok"],
                "--fail-severity is one of critical, warning, info, never, not 'ok'",
            ),
            (["diagnose", "--from", "x", "--bundle", "y"], "--bundle and --from exclude each other"),
            (["load"], "load: which module?"),
            (["load", "-r"], "load: which module?"),
        ],
    )
    def test_wrong(self, command: Command, words: List[str], why: str) -> None:
        assert command(*words) == Said(2, "", "%s\nedgenpu-tuning: %s\n" % (command.module.USAGE, why))

    def test_every_verb_is_told_of(self, command: Command) -> None:
        for verb in command.module.VERBS:
            assert "edgenpu-tuning %s " % verb in command.module.USAGE

    def test_it_brings_no_interpreter_line(self) -> None:
        """The role puts the one of the host above it."""
        assert not PATH.read_text("utf-8").startswith("#!")


class TestStatus:
    def test_cards_that_share(self, command: Command, board: hosts.Board) -> None:
        pcie_trees.eight_cards(board.tree, (3, 1))
        lines = command("status").lines
        [line] = [at for at, line in enumerate(lines) if line.startswith("card       Axera AX650N 0000:0e:00.0")]
        assert lines[line + 2] == (
            "           101 MB/s read while all cards work, 410 alone; shared with 0000:03:00.0, 0000:04:00.0, "
            "0000:05:00.0, 0000:09:00.0, 0000:0a:00.0, 0000:0b:00.0, 0000:0d:00.0"
        )

    def test_processor_s_own_npu(self, command: Command, board: hosts.Board) -> None:
        pcie_trees.strix(board.tree)
        lines = command("status").lines
        assert "card       AMD XDNA 2 (Strix) 0000:c6:00.1, driver amdxdna" in lines
        assert "link       none: part of the processor" in lines

    def test_why_a_link_is_not_judged(self, command: Command, board: hosts.Board) -> None:
        path = board.tree.pci("pci0000:00/0000:00:05.0", pcie_trees.card())
        pcie_trees.driver(board.tree, path, "ax_pcie_dev_host")
        assert (
            "link       no port stands above it: it was handed to this virtual machine, or is behind a bridge"
            in command("status").lines
        )

    def test_fresh(self, command: Command, board: hosts.Board) -> None:
        said = command("status")
        assert (said.status, said.err) == (0, "")
        assert said.lines == [
            "FriendlyElec CM3588 NAS, kernel 6.1.57",
            "card       Axera AX650N 0003:31:00.0, driver ax_pcie_dev_host",
            "link       5 GT/s x1: the card sets 5 GT/s, the slot sets x1",
            "interrupt  38 on CPU 0 (allowed: 0-7)",
            "clock      policy0 (CPUs 0-3): schedutil, 408 MHz now",
            "clock      policy4 (CPUs 4-5): schedutil, 408 MHz now",
            "clock      policy6 (CPUs 6-7): schedutil, 408 MHz now",
            "kept       nothing: a reboot or a driver reload loses the tuning",
            "verdict    Not as fast as it can be: 2 things to do",
            "to gain    not measured for this card on this board, only for an Axera AX650N in an RK3588",
            (
                "        1. Run the role irq_affinity: it puts it on a fast core and keeps it there. "
                "(interrupt_on_slow_core, not_kept)"
            ),
            "        2. Run the role governor: it holds the clock of the fast cores. (clock_drops)",
        ]

    def test_what_is_to_be_gained(self, command: Command, board: hosts.Board) -> None:
        board.tree.file("/proc/device-tree/compatible", b"friendlyelec,cm3588-nas\0rockchip,rk3588\0")
        assert [line for line in command("status").lines if line.startswith("to gain")] == [
            (
                "to gain    interrupt and clocks together: LLM decode 1.2 to 2 times as fast, single inferences 3 to "
                "92 % at 1 ms, 3 to 17 % at 4 ms, 2 to 7 % at 10 ms, none above about 50 ms"
            )
        ]

    def test_tuned(self, command: Command, board: hosts.Board) -> None:
        install(board)
        command("apply")
        said = command("status")
        assert "interrupt  38 on CPU 4 (allowed: 4)" in said.lines
        assert "kept       governor, irq_affinity" in said.lines
        assert said.lines[-1] == "verdict    As fast as it can be"

    def test_empty(self, command: Command, board: hosts.Board) -> None:
        for name in ("sys", "proc"):
            os.rename(str(board.tree.path / name), str(board.tree.path / ("away-" + name)))
        said = command("status")
        assert said.status == 0
        assert said.lines[0] == "unknown board, kernel None"

    def test_unbound(self, command: Command, board: hosts.Board) -> None:
        card = board.tree.path / "sys/devices" / hosts.SLOT / hosts.BDF
        (card / "driver").unlink()
        (card / "msi_irqs/38").unlink()
        assert "card       Axera AX650N 0003:31:00.0, driver none" in command("status").lines


class TestDiagnose:
    def test_for_a_person(self, command: Command) -> None:
        said = command("diagnose")
        assert said.status == 0
        assert said.lines[0] == "Not as fast as it can be: 2 things to do"
        at = said.lines.index(
            "warning  interrupt_on_slow_core: interrupt 38 of 0003:31:00.0 is served by CPU 0; the fastest are 4-7"
        )
        assert "           %s = 0-7" % IRQ in said.lines[at:]
        assert any(line.startswith("           -> Run the role irq_affinity") for line in said.lines[at:])

    def test_what_is_worth_doing_comes_first(self, command: Command) -> None:
        lines = command("diagnose").lines
        assert [line.split(".")[0] for line in lines[1:4]] == [
            "to gain    not measured for this card on this board, only for an Axera AX650N in an RK3588",
            "        1",
            "        2",
        ]
        assert lines[4].startswith("warning  ")

    def test_for_a_program(self, command: Command) -> None:
        said = command("diagnose", "--json")
        assert json.loads(said.out)["cards"][0]["bdf"] == hosts.BDF

    @pytest.mark.parametrize("verb", ["status", "diagnose"])
    def test_commands_are_for_the_live_system(
        self, command: Command, board: hosts.Board, monkeypatch: pytest.MonkeyPatch, verb: str
    ) -> None:
        """A bundle has what they printed where it was taken."""
        snapshot = look(board.root, BUILT_IN)
        runs: List[Any] = []

        def looked(root: Any, kinds: Any, run: Any = None) -> Any:
            runs.append(run)
            return snapshot

        monkeypatch.setattr(looking, "look", looked)
        command(verb)
        monkeypatch.setattr(type(board.root), "is_live", True)
        command(verb)
        assert runs == [None, command.module.run_command]

    def test_critical(self, command: Command, board: hosts.Board) -> None:
        config = board.tree.path / "sys/devices" / hosts.SLOT / hosts.BDF / "config"
        config.write_bytes(b"\xff" * 256)
        said = command("diagnose")
        assert said.status == 1
        assert said.lines[0].startswith("Broken: Axera AX650N at 0003:31:00.0 is dead")

    @pytest.mark.parametrize(
        ("least", "untuned", "dead"), [("critical", 0, 1), ("warning", 1, 1), ("info", 1, 1), ("never", 0, 0)]
    )
    def test_severity_at_which_it_fails(
        self, command: Command, board: hosts.Board, least: str, untuned: int, dead: int
    ) -> None:
        plain = command("diagnose")
        said = command("diagnose", "--fail-severity", least)
        assert (said.status, said.out) == (untuned, plain.out)
        config = board.tree.path / "sys/devices" / hosts.SLOT / hosts.BDF / "config"
        config.write_bytes(b"\xff" * 256)
        assert command("diagnose", "--fail-severity", least, "--json").status == dead

    def test_tuned_host_fails_only_for_notes(self, command: Command, board: hosts.Board) -> None:
        install(board)
        command("apply")
        assert [command("diagnose", "--fail-severity", least).status for least in ("warning", "info")] == [0, 1]

    def test_drift(self, command: Command, board: hosts.Board) -> None:
        install(board)
        lines = command("diagnose").lines
        at = lines.index("warning  drift: 1 interrupt is not as the wishes on this host say: %s is 0-7, wished 4" % IRQ)
        assert lines[at + 1].startswith("           %s = 0-7 -> 4 (vector 0 of 0003:31:00.0: fastest tier" % IRQ)
        assert lines[at + 2].startswith("           -> Run `edgenpu-tuning apply` on the host")
        [first] = [one for one in json.loads(command("diagnose", "--json").out)["findings"] if one["id"] == "drift"][:1]
        assert (first["evidence"][IRQ]["before"], first["evidence"][IRQ]["after"]) == ("0-7", "4")
        command("apply")
        assert "drift" not in command("diagnose").out

    def test_catalogue_on_the_box(self, command: Command, board: hosts.Board) -> None:
        board.wishes("irq_affinity", dict(AFFINITY, catalogue=[{"vendor": "1f4b", "device": "0650", "name": "mine"}]))
        assert json.loads(command("diagnose", "--json").out)["cards"][0]["npu"] == "mine"

    @pytest.mark.parametrize("verb", ["status", "diagnose"])
    def test_damaged_wishes_are_told_of(self, command: Command, board: hosts.Board, verb: str) -> None:
        """Here, of all places, it has to go on."""
        board.wishes("irq_affinity", {"catalogue": 5})
        board.tree.file("/etc/edgenpu-tuning/wishes.d/governor.json", "{")
        said = command(verb)
        assert said.status == 0
        assert "AX650N" in command("status").out
        assert len(said.err.splitlines()) == 2
        assert (
            "edgenpu-tuning: /etc/edgenpu-tuning/wishes.d/irq_affinity.json: devices: 5 is no list of devices\n"
            in said.err
        )


class TestBundle:
    @pytest.fixture(name="file")
    def fixture_file(self, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
        return tmp_path_factory.mktemp("away") / "nas.tar.gz"

    @pytest.fixture(autouse=True)
    def no_sudo(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("SUDO_UID", "SUDO_GID"):
            monkeypatch.delenv(name, raising=False)

    def test_there_and_elsewhere(
        self, command: Command, board: hosts.Board, file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = command("diagnose")
        written = command("diagnose", "--bundle", str(file))
        assert (written.status, written.out) == (plain.status, plain.out)
        assert written.err.startswith("edgenpu-tuning: %s written (" % file)
        assert written.err.endswith("; read it before you send it: tar -xOzf %s | less\n" % file)
        assert file.stat().st_mode & 0o777 == 0o600
        assert command.commands == [], "a captured tree has no log of its own"
        monkeypatch.setattr(files, "Root", lambda path: pytest.fail("looked at this machine"))
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert command("diagnose", "--from", str(file)) == plain

    def test_drift_is_the_same_elsewhere(self, command: Command, board: hosts.Board, file: pathlib.Path) -> None:
        """It rests on wishes and ledger; both are in the bundle."""
        install(board)
        (board.tree.path / persist.ENABLED[1:]).unlink()
        told = command("diagnose", "--bundle", str(file)).out
        assert told.count("  drift: ") == 3
        assert command("diagnose", "--from", str(file)).out == told

    def test_for_a_program(self, command: Command, file: pathlib.Path) -> None:
        told = json.loads(command("diagnose", "--json", "--bundle", str(file)).out)
        again = json.loads(command("diagnose", "--from", str(file), "--json").out)
        assert told["host"].pop("boot_id") == hosts.BOOT
        assert again["host"].pop("boot_id") == "00000000-0000-0000-0000-000000000001"
        assert told == again

    def test_catalogue_on_the_box(self, command: Command, board: hosts.Board, file: pathlib.Path) -> None:
        mine = [{"vendor": "1f4b", "device": "0650", "name": "mine"}]
        board.wishes("irq_affinity", dict(AFFINITY, catalogue=mine))
        command("diagnose", "--bundle", str(file))
        assert json.loads(command("diagnose", "--from", str(file), "--json").out)["cards"][0]["npu"] == "mine"

    def test_catalogue_that_is_not_on_the_box(self, command: Command, board: hosts.Board, file: pathlib.Path) -> None:
        kinds = resolve([{"vendor": "1f4b", "device": "0650", "name": "mine"}])
        recorder = Recorder(board.root.path)
        look(recorder, kinds)
        write_new(str(file), bundle(recorder, kinds, None, "now").data)
        assert json.loads(command("diagnose", "--from", str(file), "--json").out)["cards"][0]["npu"] == "mine"

    def test_logs_of_the_live_system(
        self, command: Command, file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Recorder, "is_live", True)
        command("diagnose", "--bundle", str(file))
        assert [argv[0] for argv in command.commands] == ["dmesg", "journalctl"]

    def test_directory(self, command: Command, board: hosts.Board) -> None:
        assert command("diagnose", "--from", str(board.tree.path)) == command("diagnose")

    def test_overwrites_nothing(self, command: Command, file: pathlib.Path) -> None:
        file.write_text("mine")
        assert command("diagnose", "--bundle", str(file)) == Said(
            1, "", "edgenpu-tuning: %s is there already, and a bundle overwrites nothing; choose another name\n" % file
        )
        assert file.read_text() == "mine"

    def test_no_such_directory(self, command: Command, file: pathlib.Path) -> None:
        path = str(file.parent / "no/where")
        assert command("diagnose", "--bundle", path) == Said(
            1, "", "edgenpu-tuning: %s: No such file or directory\n" % path
        )

    def test_belongs_to_who_called_sudo(
        self, command: Command, file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: List[Any] = []
        monkeypatch.setattr(os, "fchown", lambda handle, uid, gid: given.append((uid, gid)))
        monkeypatch.setenv("SUDO_UID", "1000")
        monkeypatch.setenv("SUDO_GID", "100")
        command("diagnose", "--bundle", str(file))
        assert given == [(1000, 100)]

    def test_damaged_wishes_are_told_of(self, command: Command, board: hosts.Board, file: pathlib.Path) -> None:
        board.tree.file("/etc/edgenpu-tuning/wishes.d/governor.json", "{")
        plain = command("diagnose").err
        assert len(plain.splitlines()) == 1
        assert command("diagnose", "--bundle", str(file)).err.startswith(plain)
        assert command("diagnose", "--from", str(file)).err == plain

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"", "is damaged or no bundle ("),
            (b"no bundle", "is damaged or no bundle ("),
            (None, "No such file or directory"),
        ],
    )
    def test_no_bundle(self, command: Command, file: pathlib.Path, content: Any, expected: str) -> None:
        if content is not None:
            file.write_bytes(content)
        said = command("diagnose", "--from", str(file))
        assert (said.status, said.out, len(said.err.splitlines())) == (1, "", 1)
        assert expected in said.err and str(file) in said.err

    def test_stranger_s_terminal_sequences(self, command: Command, board: hosts.Board, file: pathlib.Path) -> None:
        name = "\x1b]0;mine\x07"
        mine = [{"vendor": "1f4b", "device": "0650", "name": name}]
        board.wishes("irq_affinity", dict(AFFINITY, catalogue=mine))
        board.tree.file("/etc/edgenpu-tuning/wishes.d/\x1b[2J.json", "{")
        command("diagnose", "--bundle", str(file))
        config = board.tree.path / "sys/devices" / hosts.SLOT / hosts.BDF / "config"
        config.write_bytes(b"\xff" * 256)
        for source in (str(file), str(board.tree.path)):
            said = command("diagnose", "--from", source)
            assert "\x1b" not in said.out + said.err
        assert "\\x1b]0;mine\\x07" in said.out


class TestApply:
    def test_puts_in_force(self, command: Command, board: hosts.Board) -> None:
        install(board)
        said = command("apply")
        assert said.status == 0
        assert said.lines[0].startswith("changed %s: 0-7 -> 4 (vector 0 of 0003:31:00.0: fastest tier" % IRQ)
        assert len(said.lines) == 3
        assert board.affinity() == "4"
        assert command("apply") == Said(0, "nothing to change: all wishes on this box are in force\n", "")

    def test_check(self, command: Command, board: hosts.Board) -> None:
        install(board)
        before = board.snapshot()
        del board.kernel.events[:]
        said = command("apply", "--check")
        assert said.status == 0
        assert said.lines[0].startswith("would change %s: 0-7 -> 4 (" % IRQ)
        assert (board.snapshot(), board.kernel.events) == (before, [])

    def test_refused(self, command: Command, board: hosts.Board) -> None:
        install(board)
        board.kernel.refusals[IRQ] = "EIO: nobody can move it"
        said = command("apply")
        assert said.status == 1
        assert said.lines[-1] == "refused %s: EIO: nobody can move it" % IRQ

    def test_problem(self, command: Command, board: hosts.Board) -> None:
        board.wishes("governor", {"fast": "Turbo"})
        said = command("apply")
        assert (said.status, said.lines) == (
            1,
            ["fast: 'Turbo' is no governor's name; write one such as performance or schedutil"],
        )

    def test_damaged_ledger(self, command: Command, board: hosts.Board) -> None:
        install(board)
        board.tree.file(ledger.PATH, "{")
        said = command("apply")
        assert (said.status, said.out) == (1, "")
        assert said.err.startswith("edgenpu-tuning: %s is damaged (" % ledger.PATH)


class TestAgent:
    def test_tells_the_journal(self, command: Command, board: hosts.Board) -> None:
        install(board)
        board.kernel.refusals["/sys/devices/system/cpu/cpufreq/policy4/scaling_governor"] = "EBUSY"
        said = command("agent")
        assert (said.status, said.err) == (0, ""), "what the kernel refuses at every boot is no failed unit"
        told = [json.loads(line) for line in said.lines]
        assert [(line["event"], line["path"].split("/")[-2], line["after"]) for line in told] == [
            ("changed", "38", "4"),
            ("changed", "policy6", "performance"),
            ("refused", "policy4", "performance"),
        ]
        assert set(told[0]) == {"event", "path", "before", "after", "why"}

    def test_silent_where_nothing_happens(self, command: Command, board: hosts.Board) -> None:
        install(board)
        command("agent")
        assert command("agent") == Said(0, "", "")

    def test_unknown_is_no_failure(self, command: Command, board: hosts.Board) -> None:
        install(board, "irq_affinity")
        card = board.tree.path / "sys/devices" / hosts.SLOT / hosts.BDF
        (card / "driver").unlink()
        (card / "msi_irqs/38").unlink()
        said = command("agent")
        assert said.status == 0
        assert json.loads(said.out) == {
            "event": "unknown",
            "message": "interrupt of 0003:31:00.0: unknown until a driver binds to it",
        }

    def test_problem(self, command: Command, board: hosts.Board) -> None:
        board.tree.file("/etc/edgenpu-tuning/wishes.d/governor.json", "{")
        said = command("agent")
        assert (said.status, json.loads(said.out)["event"]) == (1, "problem")


class TestMetrics:
    def test_for_a_person(self, command: Command, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        before = board.snapshot()
        said = command("metrics")
        assert (said.status, said.err, board.snapshot()) == (0, "", before)
        names = {family.name for family in text_string_to_metric_families(said.out)}
        assert {"edgenpu_build_info", "edgenpu_card_present", "edgenpu_finding"} <= names

    def test_catalogue_of_the_metrics(self, command: Command, board: hosts.Board) -> None:
        mine = [{"vendor": "1f4b", "device": "0650", "name": "mine"}]
        board.wishes("diagnostics", {"directory": METRICS, "interval": "5min", "catalogue": mine})
        assert 'npu="mine"' in command("metrics").out

    def test_written(self, command: Command, board: hosts.Board) -> None:
        install(board, "diagnostics")
        assert command("metrics", "--write") == Said(0, "", "")
        assert board.root.names(METRICS) == ["edgenpu_tuning.prom"]

    def test_nobody_wishes_for_them(self, command: Command, board: hosts.Board) -> None:
        said = command("metrics", "--write")
        assert (said.status, said.out) == (1, "")
        assert said.err.startswith("edgenpu-tuning: no metrics are wished for on this host; ")

    def test_not_root(self, command: Command, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        install(board, "diagnostics")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        said = command("metrics", "--write")
        assert (said.status, said.out) == (1, "")
        assert "run with sudo" in said.err

    def test_failure(self, command: Command, board: hosts.Board) -> None:
        install(board, "diagnostics")
        (board.tree.path / METRICS[1:] / "edgenpu_tuning.prom").mkdir(parents=True)
        said = command("metrics", "--write")
        assert (said.status, len(said.err.splitlines())) == (1, 1)
        assert said.err.startswith("edgenpu-tuning: metrics: %s/edgenpu_tuning.prom is neither a file" % METRICS)

    def test_agent_writes_its_own_after_the_tuning_and_asks_for_the_others(
        self, command: Command, board: hosts.Board
    ) -> None:
        install(board, "irq_affinity", "governor", "diagnostics")
        said = command("agent")
        assert (said.status, said.err) == (0, "")
        assert "\nedgenpu_agent_last_run_changes 3\n" in (board.root.text(METRICS + "/edgenpu_tuning_agent.prom") or "")
        assert [path for path in board.kernel.files if path.startswith(METRICS)] == board.kernel.files[-1:]
        assert command.commands == [["systemctl", "--no-block", "start", "edgenpu-tuning-metrics.service"]]
        assert command("metrics", "--write").status == 0
        of_host = board.root.text(METRICS + "/edgenpu_tuning.prom") or ""
        assert 'edgenpu_interrupt_on_wished_cpu{bdf="%s",vector="0"} 1' % hosts.BDF in of_host

    def test_tuning_does_not_suffer_from_them(self, command: Command, board: hosts.Board) -> None:
        install(board, "irq_affinity", "governor", "diagnostics")
        (board.tree.path / METRICS[1:] / "edgenpu_tuning_agent.prom").mkdir(parents=True)
        command.answer = Ran(1, "Failed to connect to bus\n")
        said = command("agent")
        assert (said.status, said.err) == (0, "")
        told = [json.loads(line) for line in said.lines]
        assert [line["event"] for line in told] == ["changed", "changed", "changed", "problem", "problem"]
        assert told[-2]["message"].startswith("metrics: %s/edgenpu_tuning_agent.prom is neither a file" % METRICS)
        assert told[-1]["message"] == (
            "metrics: systemctl --no-block start edgenpu-tuning-metrics.service: Failed to connect to bus"
        )
        assert (board.affinity(), board.governor(4)) == ("4", "performance")

    def test_who_does_without_pays_nothing(self, command: Command, board: hosts.Board) -> None:
        install(board)
        name = "ansible_collections.edgenpu.tuning.plugins.module_utils.decide.metrics"
        kept = sys.modules.pop(name, None)
        try:
            command("agent")
            assert name not in sys.modules
        finally:
            if kept is not None:
                sys.modules[name] = kept


def path_of(line: str) -> str:
    """Return what a line "would give back PATH: ..." or "gave back PATH: ..." is about."""
    return line.partition(" back ")[2].partition(": ")[0]


class TestRollback:
    def test_everything(self, command: Command, board: hosts.Board) -> None:
        board.irqbalance()
        before = board.snapshot()
        install(board)
        command("apply")
        said = command("rollback")
        assert (said.status, said.err) == (0, "")
        assert said.lines[-1] == "everything that was changed here has been given back and read back"
        assert board.snapshot() == before
        assert (board.affinity(), board.governor(4)) == ("0-7", "schedutil")
        assert ["systemctl", "try-restart", "irqbalance.service"] in command.commands

    def test_metrics_go_too(self, command: Command, board: hosts.Board) -> None:
        before = board.snapshot()
        install(board, "irq_affinity", "governor", "diagnostics")
        command("agent")
        predicted = command("rollback", "--check")
        made = command("rollback")
        assert [path_of(line) for line in predicted.lines] == [path_of(line) for line in made.lines[:-1]]
        assert (made.status, board.snapshot()) == (0, before)

    def test_check_tells_all_that_will_be_done(self, command: Command, board: hosts.Board) -> None:
        install(board)
        command("apply")
        before = board.snapshot()
        predicted = command("rollback", "--check")
        assert predicted.status == 0
        assert (board.snapshot(), command.commands) == (before, [])
        made = command("rollback")
        assert [path_of(line) for line in predicted.lines] == [path_of(line) for line in made.lines[:-1]]
        assert any(" /usr/local/bin/edgenpu-tuning: link to " in line for line in made.lines)

    def test_nothing_to_give_back(self, command: Command, board: hosts.Board) -> None:
        for said in (command("rollback"), command("rollback", "--check")):
            assert (said.status, said.lines) == (0, ["nothing of the collection is left here to give back"])
        assert board.kernel.events == []

    def test_one_role_was_given_back_before(self, command: Command, board: hosts.Board) -> None:
        before = board.snapshot()
        install(board)
        undo(board.kernel, ledger.Ledger(board.kernel), "governor", hosts.Commands(), False)
        assert command("rollback").status == 0
        assert board.snapshot() == before

    def test_refused(self, command: Command, board: hosts.Board) -> None:
        install(board)
        command("apply")
        board.kernel.refusals[IRQ] = "EINVAL: not now"
        said = command("rollback")
        assert said.status == 1
        assert "refused %s: EINVAL: not now" % IRQ in said.lines
        assert "everything that was changed" not in said.out

    def test_what_cannot_be_given_back_is_said(self, command: Command, board: hosts.Board) -> None:
        install(board)
        command("apply")
        (board.tree.path / "sys/bus/pci/devices" / hosts.BDF).unlink()
        said = command("rollback")
        assert said.status == 0
        assert any("it has no interrupt now, so there is nothing to give back" in line for line in said.lines)


class TestColour:
    @pytest.fixture(autouse=True)
    def terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)

    def seen(self, command: Command, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> Said:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
        return command("diagnose")

    def test_on_a_terminal(self, command: Command, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = self.seen(command, monkeypatch, False)
        assert "\033" not in plain.out
        said = self.seen(command, monkeypatch, True)
        assert said.lines[0] == "\033[33m%s\033[0m" % plain.lines[0]
        assert any(line.startswith("\033[33mwarning \033[0m interrupt_on_slow_core: ") for line in said.lines)
        assert re.sub(r"\033\[[0-9;]*m", "", said.out) == plain.out

    @pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
    def test_not_wanted(
        self, command: Command, board: hosts.Board, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        monkeypatch.setenv(name, value)
        assert "\033" not in self.seen(command, monkeypatch, True).out


class TestWithoutRoot:
    @pytest.fixture(autouse=True)
    def nobody(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)

    @pytest.mark.parametrize("verb", ["apply", "rollback", "agent"])
    def test_told_what_to_do(self, command: Command, board: hosts.Board, verb: str) -> None:
        install(board)
        del board.kernel.events[:]
        assert command(verb) == Said(
            1, "", "edgenpu-tuning: user id 1000 may not write to /proc/irq and /sys; run with sudo\n"
        )
        assert board.kernel.events == []

    @pytest.mark.parametrize("words", [["status"], ["diagnose"], ["apply", "--check"], ["rollback", "--check"]])
    def test_looking_is_for_all(self, command: Command, board: hosts.Board, words: List[str]) -> None:
        assert command(*words).status == 0
        assert not board.root.exists(ledger.LOCK_PATH)

    def test_operating_system_s_word(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(options: List[str]) -> int:
            raise PermissionError(13, "Permission denied", "/run/x")

        monkeypatch.setitem(command.module.VERBS, "status", refuse)
        assert command("status") == Said(1, "", "edgenpu-tuning: /run/x: Permission denied\n")


class TestLoad:
    @pytest.fixture(name="modprobe")
    def fixture_modprobe(self, monkeypatch: pytest.MonkeyPatch) -> List[Any]:
        """Stands in for modprobe, and leaves signals as they are."""
        ran: List[Any] = []

        def call(argv: List[str], env: Dict[str, str]) -> int:
            ran.append((argv, env))
            return 5

        monkeypatch.setattr(subprocess, "call", call)
        monkeypatch.setattr(signal, "signal", lambda number, handler: ran.append(number))
        monkeypatch.delenv("EDGENPU_TUNING_LOADING", raising=False)
        return ran

    def test_status_is_modprobe_s(self, command: Command, board: hosts.Board, modprobe: List[Any]) -> None:
        install(board)
        said = command("load", "ax_pcie_host_dev", "debug=1")
        assert said == Said(5, "", "")
        assert modprobe[0] == signal.SIGTERM
        assert modprobe[1][0] == ["modprobe", "--ignore-install", "ax_pcie_host_dev", "debug=1"]
        assert board.root.text("/proc/irq/default_smp_affinity") == "ff"

    def test_module_of_no_card(self, command: Command, board: hosts.Board, modprobe: List[Any]) -> None:
        install(board)
        assert command("load", "r8125") == Said(
            5, "", "edgenpu-tuning: no card on this host is served by the module r8125\n"
        )

    def test_within_a_load(
        self, command: Command, board: hosts.Board, modprobe: List[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """modprobe loads what the module needs by the same way; that load must not wait for the one around it."""
        install(board)
        command("load", "ax_pcie_host_dev")
        outer = modprobe[-1][1]
        monkeypatch.setattr(os, "environ", outer)
        monkeypatch.setattr(sink, "Sink", lambda root: pytest.fail("looked at the host"))
        assert command("load", "needed").status == 5
        assert modprobe[-1][0][-1] == "needed"


class TestRunner:
    @pytest.fixture(name="run")
    def fixture_run(self) -> Callable[[Sequence[str], float], Ran]:
        spec = importlib.util.spec_from_file_location("edgenpu_tuning_runner", str(PATH))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        path = list(sys.path)
        spec.loader.exec_module(module)
        sys.path[:] = path
        found: Callable[[Sequence[str], float], Ran] = module.run_command
        return found

    def test_output_and_status(self, run: Callable[[Sequence[str], float], Ran]) -> None:
        assert run(["sh", "-c", "echo out; echo err >&2; exit 3"], 30) == Ran(3, "out\nerr\n")

    def test_no_such_command(self, run: Callable[[Sequence[str], float], Ran]) -> None:
        ran = run(["/no/such/command"], 30)
        assert ran.status == 127
        assert "No such file" in ran.output

    def test_time_limit(self, run: Callable[[Sequence[str], float], Ran]) -> None:
        assert run(["sleep", "60"], 0.05).status == 127


def test_agent_without_root_is_no_traceback(board: hosts.Board) -> None:
    """The file itself, as nobody: what it needs is loaded first, since nobody may not read this checkout."""
    drop = "os.setgroups([]); os.setgid(65534); os.setuid(65534)" if os.geteuid() == 0 else ""
    install(board)
    [name] = [name for name in board.root.names("/usr/lib/edgenpu-tuning") if name.startswith("agent-")]
    program = """
import binascii, contextlib, fcntl, hashlib, importlib.util, json, os, py_compile, sys
sys.argv = ["edgenpu-tuning", "agent"]
sys.path.insert(0, %r)
from ansible_collections.edgenpu.tuning.plugins.module_utils.act import agent, look, undo
door = compile(open(%r).read(), "door", "exec")
%s
exec(door, {"__name__": "__main__", "__file__": "door"})
""" % (str(board.tree.path / "usr/lib/edgenpu-tuning" / name), str(PATH), drop)
    words = [sys.executable, "-IS", "-c", program]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in ran.stderr
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "may not write to /proc/irq and /sys; run with sudo" in ran.stderr
