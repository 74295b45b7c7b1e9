# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ast
import json
import os
import pathlib
import py_compile
import stat
import subprocess
import sys
from typing import Any, Dict, List, Optional, Sequence, Set

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import persist
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import SHARED, Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import (
    AGENT_MODULES,
    COLLECTION,
    COMMAND,
    CURRENT,
    ENABLED,
    IRQBALANCE_DROP_IN,
    IRQBALANCE_POLICY,
    IRQBALANCE_SCRIPT,
    LATE_ENABLED,
    LATE_UNIT,
    MODPROBE_CONF,
    UDEV_RULES,
    UNIT,
    Kept,
    agent_files,
    agent_name,
    agent_sources,
    keep,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import NotAFile
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import read_wishes
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

MODULE_UTILS = pathlib.Path(__file__).parents[5] / "plugins" / "module_utils"
REAL_FRONT_DOOR = pathlib.Path(__file__).parents[5] / "roles" / "irq_affinity" / "files" / "edgenpu_tuning.py"
AFFINITY = AffinityWishes(BUILT_IN).to_data()
CLOCKS = ClockWishes().to_data()
BASE = persist.BASE


@pytest.fixture(name="board")
def fixture_board(tree: Tree) -> hosts.Board:
    return hosts.Board(tree)


def kept(
    board: hosts.Board,
    role: str = "irq_affinity",
    wishes: Optional[Dict[str, Any]] = None,
    front_door: str = hosts.FRONT_DOOR,
    runner: Optional[hosts.Commands] = None,
    check: bool = False,
) -> Kept:
    """Keep wishes as a module does: with the ledger as it stands on disk."""
    asked = wishes if wishes is not None else AFFINITY if role == "irq_affinity" else CLOCKS
    ledger = Ledger(board.kernel)
    return keep(board.kernel, ledger, role, asked, front_door, sys.executable, runner or hosts.Commands(), check)


def paths(found: Kept) -> List[str]:
    return [change.path for change in found.changes]


def agents(board: hosts.Board) -> List[str]:
    return [name for name in board.root.names(BASE) if name.startswith("agent-")]


class TestKeep:
    def test_everything_on_an_empty_host(self, board: hosts.Board) -> None:
        runner = hosts.Commands()
        found = kept(board, runner=runner)
        [name] = agents(board)
        assert paths(found) == [
            BASE + "/" + name,
            CURRENT,
            COMMAND,
            UNIT,
            ENABLED,
            LATE_UNIT,
            LATE_ENABLED,
            UDEV_RULES,
            "/etc/edgenpu-tuning/wishes.d/irq_affinity.json",
        ]
        assert [change.before for change in found.changes] == [None] * 9
        assert (found.refused, found.unknown) == ([], [])
        assert runner.run == ["systemctl daemon-reload", "udevadm control --reload"]
        assert read_wishes(board.root) == ({"irq_affinity": AFFINITY}, [])

    def test_second_time_changes_nothing(self, board: hosts.Board) -> None:
        board.irqbalance()
        for role in ("irq_affinity", "governor"):
            kept(board, role)
        before, runner = board.snapshot(), hosts.Commands()
        for role in ("irq_affinity", "governor"):
            assert kept(board, role, runner=runner) == Kept([], [], [], [])
        assert board.snapshot() == before
        assert runner.run == []

    @pytest.mark.parametrize("role", ["irq_affinity", "governor"])
    def test_check_mode_predicts_and_writes_nothing(self, board: hosts.Board, role: str) -> None:
        board.irqbalance()
        before, runner = board.snapshot(), hosts.Commands()
        predicted = kept(board, role, runner=runner, check=True)
        assert board.snapshot() == before
        assert (board.kernel.events, runner.run) == ([], [])
        made = kept(board, role)
        assert predicted.changes == made.changes
        assert predicted.files == made.files
        assert kept(board, role, check=True) == Kept([], [], [], [])

    def test_files_are_shown_as_they_were_and_are(self, board: hosts.Board) -> None:
        board.tree.file(UDEV_RULES, "theirs\n")
        shown = {path: (before, after) for path, before, after in kept(board).files}
        assert shown[UDEV_RULES][0].content == b"theirs\n"
        assert shown[UDEV_RULES][1].content == board.root.data(UDEV_RULES)
        assert shown[CURRENT][1].target == agents(board)[0]

    def test_unit(self, board: hosts.Board) -> None:
        kept(board)
        unit = board.root.text(UNIT) or ""
        assert "\nExecStart=/usr/lib/edgenpu-tuning/current/edgenpu-tuning agent\n" in unit
        assert "\nDefaultDependencies=no\n" in unit
        assert "\nStartLimitIntervalSec=0\n" in unit
        assert "RemainAfterExit" not in unit
        assert "$" not in unit
        assert os.readlink(str(board.tree.path / ENABLED[1:])) == "../edgenpu-tuning.service"
        assert (board.tree.path / ENABLED[1:]).resolve() == board.tree.path / UNIT[1:]

    def test_command(self, board: hosts.Board) -> None:
        kept(board)
        assert os.readlink(str(board.tree.path / COMMAND[1:])) == CURRENT + "/edgenpu-tuning"
        assert os.access(str(board.tree.path / (CURRENT + "/edgenpu-tuning")[1:]), os.X_OK)

    def test_udev_rules_of_the_cards(self, board: hosts.Board) -> None:
        kept(board)
        rules = (board.root.text(UDEV_RULES) or "").splitlines()
        run = 'RUN+="/usr/bin/systemctl --no-block restart edgenpu-tuning.service"'
        assert rules[1] == 'ACTION=="online|offline", SUBSYSTEM=="cpu", ' + run
        assert 'ACTION=="bind", SUBSYSTEM=="pci", ATTR{vendor}=="0x1f4b", ATTR{device}=="0x0650", ' + run in rules
        driver = 'ACTION=="add", SUBSYSTEM=="drivers", DEVPATH=="/bus/pci/drivers/ax_pcie_dev_host", ' + run
        assert driver in rules
        drivers = {name for kind in BUILT_IN for name in kind.drivers}
        assert len(rules) == 2 + len(BUILT_IN) + len(drivers)
        assert not [line for line in rules if "cpufreq" in line]

    def test_udev_rules_of_the_clocks(self, board: hosts.Board) -> None:
        kept(board, "governor")
        rules = board.root.text(UDEV_RULES) or ""
        assert 'DRIVER=="*cpufreq*"' in rules
        assert "pci" not in rules

    def test_udev_rules_serve_both(self, board: hosts.Board) -> None:
        kept(board)
        found = kept(board, "governor")
        assert paths(found) == [UDEV_RULES, "/etc/edgenpu-tuning/wishes.d/governor.json"]
        rules = board.root.text(UDEV_RULES) or ""
        assert "cpufreq" in rules
        assert "0x1f4b" in rules

    def test_udev_rules_of_a_user_s_card(self, board: hosts.Board) -> None:
        mine = {"vendor": "ABCD", "device": "0001", "subsystem_vendor": "0001", "name": "x", "drivers": []}
        kept(board, wishes=dict(AFFINITY, catalogue=[mine, dict(mine, subsystem_vendor="0002")]))
        rules = board.root.text(UDEV_RULES) or ""
        assert rules.count('ATTR{vendor}=="0xabcd", ATTR{device}=="0x0001"') == 1

    def test_systemctl_of_an_older_system(self, board: hosts.Board) -> None:
        (board.tree.path / "usr/bin/systemctl").unlink()
        board.tree.file("/bin/systemctl")
        kept(board)
        assert 'RUN+="/bin/systemctl ' in (board.root.text(UDEV_RULES) or "")

    @pytest.mark.parametrize("damage", [5, "1f4b", [5], [{"vendor": "1f4b"}], {"x": 1}])
    def test_damaged_wishes_of_the_other_role(self, board: hosts.Board, damage: Any) -> None:
        """Somebody has edited the other role's file: this role is kept all the same, and the agent tells."""
        board.wishes("irq_affinity", {"catalogue": damage})
        found = kept(board, "governor")
        assert found.refused == []
        assert "cpufreq" in (board.root.text(UDEV_RULES) or "")

    def test_wishes_that_changed(self, board: hosts.Board) -> None:
        kept(board)
        found = kept(board, wishes=dict(AFFINITY, cpus="4-5"))
        assert paths(found) == ["/etc/edgenpu-tuning/wishes.d/irq_affinity.json"]
        assert read_wishes(board.root)[0]["irq_affinity"]["cpus"] == "4-5"

    def test_a_file_that_was_changed_is_repaired(self, board: hosts.Board) -> None:
        kept(board)
        board.tree.file(UNIT, "changed")
        (board.tree.path / UDEV_RULES[1:]).chmod(0o600)
        (board.tree.path / COMMAND[1:]).unlink()
        before = board.snapshot()
        predicted = kept(board, check=True)
        assert board.snapshot() == before
        assert sorted(paths(predicted)) == sorted([COMMAND, UNIT, UDEV_RULES])
        assert paths(kept(board)) == paths(predicted)
        assert kept(board).changes == []

    def test_a_directory_in_the_way(self, board: hosts.Board) -> None:
        (board.tree.path / UNIT[1:]).mkdir()
        with pytest.raises(NotAFile, match="is neither a file nor a link; move it away"):
            kept(board)

    def test_originals_are_on_disk_before_the_first_file_is_put(self, board: hosts.Board) -> None:
        def look(path: str) -> None:
            if path != "/var/lib/edgenpu-tuning/ledger.json":
                known = {entry.id for entry in Ledger(board.kernel).entries(kind="file")}
                assert path in known

        board.kernel.before_put = look
        kept(board)
        assert len(board.kernel.files) > 6

    def test_command_that_fails_is_named_and_made_up_for(self, board: hosts.Board) -> None:
        runner = hosts.Commands({"systemctl daemon-reload": "Failed to connect to bus\n"})
        found = kept(board, runner=runner)
        assert [(change.path, change.why) for change in found.refused] == [
            ("systemctl daemon-reload", "exit status 1: Failed to connect to bus")
        ]
        again = hosts.Commands()
        repeated = kept(board, runner=again)
        assert (repeated.files, repeated.refused, repeated.unknown) == ([], [], [])
        assert UNIT in [change.path for change in repeated.changes]
        assert {(change.before, change.after) for change in repeated.changes} == {("not told", "told")}
        assert again.run == ["systemctl daemon-reload", "udevadm control --reload"]
        assert kept(board) == Kept([], [], [], [])

    def test_killed_before_systemd_was_told(self, board: hosts.Board) -> None:
        class Killed(hosts.Commands):
            def __call__(self, argv: Sequence[str], timeout_s: float) -> Any:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            kept(board, runner=Killed())
        again = hosts.Commands()
        assert {change.after for change in kept(board, runner=again).changes} == {"told"}
        assert "systemctl daemon-reload" in again.run
        assert kept(board).changes == []


class TestAgent:
    def test_current(self, board: hosts.Board) -> None:
        kept(board)
        [name] = agents(board)
        assert name == agent_name(agent_files(hosts.FRONT_DOOR, sys.executable))
        assert os.readlink(str(board.tree.path / CURRENT[1:])) == name

    def test_its_name_follows_from_all_it_is_made_of(self) -> None:
        files = agent_files("a", "/usr/bin/python3")
        changed = [agent_files("b", "/usr/bin/python3"), agent_files("a", "/usr/bin/python4")]
        for path in files:
            changed.append(dict(files, **{path: files[path] + b"#"}))
        names = {agent_name(one) for one in [files, *changed]}
        assert len(names) == len(changed) + 1
        assert agent_name(dict(reversed(list(files.items())))) == agent_name(files)

    def test_upgrade(self, board: hosts.Board) -> None:
        kept(board)
        kept(board, "governor")
        [old] = agents(board)
        found = kept(board, front_door="print('a newer one')\n")
        [new] = agents(board)
        assert new != old
        assert paths(found) == [BASE + "/" + new, CURRENT]
        assert found.changes[1].before == "link to " + old
        assert [entry.id for entry in Ledger(board.kernel).entries(kind="tree")] == [BASE + "/" + new]

    @pytest.mark.parametrize("damage", ["content", "missing", "empty", "not executable"])
    def test_damaged_agent_is_repaired(self, board: hosts.Board, damage: str) -> None:
        kept(board)
        [name] = agents(board)
        agent = board.tree.path / BASE[1:] / name
        source = agent / (COLLECTION.replace(".", "/") + "/act/agent.py")
        before = board.snapshot()
        if damage == "content":
            source.write_text("raise SystemExit\n")
        elif damage == "missing":
            source.unlink()
        elif damage == "empty":
            (agent / "edgenpu-tuning").write_bytes(b"")
        else:
            (agent / "edgenpu-tuning").chmod(0o644)
        assert paths(kept(board, check=True)) == [BASE + "/" + name]
        assert paths(kept(board)) == [BASE + "/" + name]
        assert board.snapshot() == before

    def test_killed_while_it_was_installed(self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        """There is no half agent under the right name, and the half one goes with the next run."""
        compiled: List[str] = []
        real = py_compile.compile

        def killed(path: str, **more: Any) -> Any:
            compiled.append(path)
            if len(compiled) == 5:
                raise KeyboardInterrupt
            return real(path, **more)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(py_compile, "compile", killed)
            kept(board)
        [half] = agents(board)
        assert half.endswith(".new")
        assert not board.root.exists(CURRENT)
        kept(board)
        [whole] = agents(board)
        assert whole + ".new" == half

    def test_half_an_older_agent_goes_with_the_upgrade(
        self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(path: str, **more: Any) -> Any:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(py_compile, "compile", killed)
            kept(board, front_door="older")
        kept(board)
        assert len(agents(board)) == 1
        assert not agents(board)[0].endswith(".new")

    def test_compiled_for_where_it_stands(self, board: hosts.Board) -> None:
        """Tracebacks name the file on the host, and no start compiles anything again."""
        kept(board)
        [name] = agents(board)
        agent = board.tree.path / BASE[1:] / name
        sources = [path for path in agent.rglob("*.py") if path.parent.name != "__pycache__"]
        compiled = list(agent.rglob("*.pyc"))
        assert len(sources) == len(compiled) == len(agent_sources())
        for path in compiled:
            flags = path.read_bytes()[4:8]
            assert flags == b"\x01\0\0\0", "a checked or dated one costs time at every start"
        assert (BASE + "/" + name + "/ansible_collections").encode() in compiled[0].read_bytes()
        assert stat.S_IMODE(sources[0].stat().st_mode) == 0o644

    def test_interpreter_line(self) -> None:
        assert agent_files("x\n", "/usr/bin/python3")["edgenpu-tuning"] == b"#!/usr/bin/python3 -IS\nx\n"

    def test_sources_are_those_of_this_collection(self) -> None:
        for path, content in agent_sources().items():
            short = path[len(COLLECTION) + 1 :]
            if path.startswith(COLLECTION.replace(".", "/") + "/") and "/" in short:
                assert content == (MODULE_UTILS / short).read_bytes()

    def test_incomplete_payload(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(persist, "AGENT_MODULES", (*AGENT_MODULES, "act.unheard_of"))
        with pytest.raises(persist.WishError, match=r"lacks the module .*act\.unheard_of; install"):
            agent_sources()


def imported(text: str, types: bool = False) -> Set[str]:
    """Return the modules of this collection that a source imports anywhere; what is for type checkers only if TYPES."""
    found: Set[str] = set()
    pending: List[ast.AST] = [ast.parse(text)]
    while pending:
        node = pending.pop()
        if not types and isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            pending += node.orelse
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(COLLECTION):
            package = (node.module or "")[len(COLLECTION) + 1 :]
            found.add(package)
            found |= {package + "." + alias.name for alias in node.names if is_module(package + "." + alias.name)}
        elif isinstance(node, ast.Import):
            assert not [alias for alias in node.names if alias.name.startswith(COLLECTION)], "from ... import, please"
        pending += ast.iter_child_nodes(node)
    return found


def is_module(short: str) -> bool:
    return (MODULE_UTILS / (short.replace(".", "/") + ".py")).is_file()


def closure(text: str, types: bool = False) -> Set[str]:
    """Return all modules that a source needs, their packages included."""
    found: Set[str] = set()
    pending = imported(text, types)
    while pending:
        short = pending.pop()
        found |= {short, short.partition(".")[0]}
        if is_module(short):
            pending |= imported((MODULE_UTILS / (short.replace(".", "/") + ".py")).read_text("utf-8"), types) - found
    return found


class TestWhatTheAgentIsMadeOf:
    def test_all_that_its_front_door_needs_and_no_more(self) -> None:
        assert set(AGENT_MODULES) == closure(REAL_FRONT_DOOR.read_text("utf-8"))
        assert len(AGENT_MODULES) == len(set(AGENT_MODULES))

    def test_imports_within_functions_count(self) -> None:
        text = "def f():\n    from %s.act.look import look\n" % COLLECTION
        assert {"act", "act.look", "observe.pci", "decide.findings"} <= closure(text)

    def test_modules_of_a_package_count(self) -> None:
        assert "decide.affinity" in imported("from %s.decide import affinity" % COLLECTION)

    def test_imports_for_type_checkers_do_not(self) -> None:
        assert imported("if TYPE_CHECKING:\n    from %s.act import look\n" % COLLECTION) == set()

    @pytest.mark.parametrize("name", ["irq_affinity", "cpufreq"])
    def test_the_module_s_payload_has_it(self, name: str) -> None:
        """Ansible packs what a module imports, and follows imports for type checkers, too."""
        text = (MODULE_UTILS.parent / "modules" / (name + ".py")).read_text("utf-8")
        assert set(AGENT_MODULES) <= closure(text, types=True)


class TestInstalled:
    """The installed agent is run as it stands on the host, without the checkout."""

    @pytest.fixture(name="agent")
    def fixture_agent(self, board: hosts.Board) -> str:
        kept(board, front_door=REAL_FRONT_DOOR.read_text("utf-8"))
        return str(board.tree.path / (BASE + "/" + agents(board)[0] + "/edgenpu-tuning")[1:])

    @staticmethod
    def run(agent: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it in an environment that must not matter."""
        environment = {"PYTHONPATH": "/nonsense", "PYTHONHASHSEED": "nonsense", "PATH": "/usr/bin:/bin"}
        if "LD_LIBRARY_PATH" in os.environ:  # where a Python that was moved finds itself
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        return subprocess.run(
            [agent, *arguments],
            env=environment,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=60,
        )

    def test_help(self, agent: str) -> None:
        for word in ("--help", "-h", "help"):
            ran = self.run(agent, word)
            assert (ran.returncode, ran.stderr) == (0, "")
            assert ran.stdout.startswith("usage: edgenpu-tuning status ")

    @pytest.mark.parametrize("words", [[], ["unheard_of"], ["status", "--check"], ["apply", "--json"], ["agent", "x"]])
    def test_wrong_usage(self, agent: str, words: List[str]) -> None:
        ran = self.run(agent, *words)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith("usage: ")

    def test_status_of_this_machine(self, agent: str) -> None:
        ran = self.run(agent, "status")
        assert ran.returncode == 0, ran.stderr
        assert "\nverdict    " in ran.stdout
        assert "Traceback" not in ran.stderr

    def test_diagnosis_of_this_machine(self, agent: str) -> None:
        ran = self.run(agent, "diagnose", "--json")
        assert ran.returncode in (0, 1), ran.stderr
        assert json.loads(ran.stdout)["schema"] == 1

    def test_check_of_this_machine(self, agent: str) -> None:
        ran = self.run(agent, "apply", "--check")
        assert "Traceback" not in ran.stderr
        assert ran.returncode == 0 or ran.stderr or ran.stdout

    def test_reader_that_goes_away(self, agent: str) -> None:
        """As in `edgenpu-tuning diagnose | true`."""
        reader, writer = os.pipe()
        os.close(reader)
        try:
            ran = subprocess.run([agent, "status"], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
        finally:
            os.close(writer)
        assert (ran.returncode, ran.stderr) == (1, b"")


def script(board: hosts.Board, vendor: Optional[str], device: Optional[str]) -> subprocess.CompletedProcess[bytes]:
    """Run our policy script as irqbalance does, for a device with these identities."""
    directory = board.tree.path / "a device"
    directory.mkdir(exist_ok=True)
    for name, value in (("vendor", vendor), ("device", device)):
        if value is not None:
            (directory / name).write_text(value + "\n")
    command = [str(board.tree.path / IRQBALANCE_SCRIPT[1:]), str(directory), "38"]
    return subprocess.run(command, capture_output=True, check=False)


class TestIrqbalance:
    def test_not_installed(self, board: hosts.Board) -> None:
        kept(board)
        assert not board.root.exists(IRQBALANCE_SCRIPT)
        assert not board.root.exists("/etc/systemd/system/irqbalance.service.d")

    def test_drop_in_keeps_the_user_s_arguments(self, board: hosts.Board) -> None:
        board.irqbalance()
        runner = hosts.Commands()
        found = kept(board, runner=runner)
        assert board.root.text(IRQBALANCE_DROP_IN) == (
            "# Written by edgenpu.tuning: irqbalance leaves the interrupts of NPU cards alone and balances all "
            "others.\n"
            "[Service]\n"
            "ExecStart=\n"
            "ExecStart=/usr/sbin/irqbalance $IRQBALANCE_ARGS --policyscript=" + IRQBALANCE_POLICY
        )
        assert (found.refused, found.unknown) == ([], [])
        assert runner.run[-1] == "systemctl try-restart irqbalance.service"

    def test_drop_in_follows_the_user_s_own(self, board: hosts.Board) -> None:
        board.irqbalance()
        kept(board)
        theirs = "[Service]\nExecStart=\nExecStart=/usr/sbin/irqbalance --foreground --hintpolicy=exact\n"
        board.tree.file("/etc/systemd/system/irqbalance.service.d/a.conf", theirs)
        assert paths(kept(board)) == [IRQBALANCE_DROP_IN]
        assert "--hintpolicy=exact --policyscript=" in (board.root.text(IRQBALANCE_DROP_IN) or "")
        assert kept(board).changes == []

    def test_governors_are_none_of_its_business(self, board: hosts.Board) -> None:
        board.irqbalance()
        runner = hosts.Commands()
        kept(board, "governor", runner=runner)
        assert not board.root.exists(IRQBALANCE_DROP_IN)
        assert not [line for line in runner.run if "irqbalance" in line]

    def test_script(self, board: hosts.Board) -> None:
        board.irqbalance()
        kept(board)
        ran = script(board, "0x1f4b", "0x0650")
        assert (ran.returncode, ran.stdout) == (0, b"ban=true\n")

    @pytest.mark.parametrize(
        ("vendor", "device"),
        [("0x1f4b", "0x0651"), ("0x1022", "0x0650"), (None, "0x0650"), ("0x1f4b", None), ("", ""), ("*", "*")],
    )
    def test_script_leaves_other_devices_to_irqbalance(
        self, board: hosts.Board, vendor: Optional[str], device: Optional[str]
    ) -> None:
        board.irqbalance()
        kept(board)
        ran = script(board, vendor, device)
        assert (ran.returncode, ran.stdout) == (1, b"")

    def test_user_s_policy_is_no_refusal(self, board: hosts.Board) -> None:
        """It may ban the cards itself: that cannot be known, but it can be said."""
        board.irqbalance("--foreground --policyscript=/etc/mine.sh")
        found = kept(board)
        assert found.refused == []
        [sentence] = found.unknown
        assert sentence == (
            "whether irqbalance leaves the cards alone: unknown until its policy script, /etc/mine.sh, prints ban=true "
            "for them (it takes one script or directory only)"
        )
        assert IRQBALANCE_DROP_IN not in paths(found)
        assert kept(board) == Kept([], [], [], found.unknown)

    def test_ours_goes_when_the_user_brings_a_policy(self, board: hosts.Board) -> None:
        board.irqbalance()
        kept(board)
        board.irqbalance("--policyscript=/etc/mine.sh")
        found = kept(board)
        assert sorted(paths(found)) == sorted([IRQBALANCE_DROP_IN, IRQBALANCE_SCRIPT])
        assert not board.root.exists(IRQBALANCE_DROP_IN)
        assert kept(board).changes == []

    def test_ours_goes_when_the_user_names_a_policy_in_its_arguments(self, board: hosts.Board) -> None:
        """It stands before ours on the command line, where the last one counts: theirs would be dead."""
        theirs = "[Service]\nNice=5\n"
        board.irqbalance("--foreground")
        board.tree.file(IRQBALANCE_DROP_IN, theirs)
        kept(board)
        board.tree.file("/etc/default/irqbalance", "IRQBALANCE_ARGS='--interval=5 --policyscript=/etc/mine.sh'\n")
        board.irqbalance("--interval=5 --policyscript=/etc/mine.sh --policyscript=" + IRQBALANCE_POLICY)
        predicted, runner = kept(board, check=True), hosts.Commands()
        found = kept(board, runner=runner)
        assert predicted.changes == found.changes
        assert sorted(paths(found)) == sorted([IRQBALANCE_DROP_IN, IRQBALANCE_SCRIPT])
        assert "its policy script, /etc/mine.sh, prints ban=true" in found.unknown[0]
        assert board.root.data(IRQBALANCE_DROP_IN) == theirs.encode()
        assert not board.root.exists(IRQBALANCE_SCRIPT)
        assert runner.run == ["systemctl daemon-reload", "systemctl try-restart irqbalance.service"]
        board.irqbalance("--interval=5 --policyscript=/etc/mine.sh")
        assert kept(board) == Kept([], [], [], found.unknown)

    def test_ours_returns_when_the_user_s_policy_has_gone(self, board: hosts.Board) -> None:
        self.test_ours_goes_when_the_user_names_a_policy_in_its_arguments(board)
        board.tree.file("/etc/default/irqbalance", "IRQBALANCE_ARGS=--interval=5\n")
        board.irqbalance("--interval=5")
        assert sorted(paths(kept(board))) == sorted([IRQBALANCE_DROP_IN, IRQBALANCE_SCRIPT])

    def test_drop_in_that_is_read_after_ours(self, board: hosts.Board) -> None:
        """Ours would be overridden, so it goes; the script stays, for the user's drop-in to name it."""
        later = "/etc/systemd/system/irqbalance.service.d/zz.conf"
        board.irqbalance()
        kept(board)
        board.tree.file(later, "[Service]\nExecStart=\nExecStart=/usr/sbin/irqbalance -o\n")
        found = kept(board)
        assert paths(found) == [IRQBALANCE_DROP_IN]
        assert found.unknown == [
            "whether irqbalance leaves the cards alone: unknown until %s, which systemd reads after %s, hands over "
            "--policyscript=%s in its ExecStart=" % (later, IRQBALANCE_DROP_IN, IRQBALANCE_POLICY)
        ]
        assert found.refused == []
        assert kept(board) == Kept([], [], [], found.unknown)
        board.tree.file(later, "[Service]\nExecStart=\nExecStart=/usr/sbin/irqbalance -o -l %s\n" % IRQBALANCE_POLICY)
        assert kept(board) == Kept([], [], [], [])
        assert script(board, "0x1f4b", "0x0650").stdout == b"ban=true\n"

    @pytest.mark.parametrize("masked", [False, True])
    def test_nothing_is_restarted_that_is_no_longer_there(self, board: hosts.Board, masked: bool) -> None:
        """systemctl would refuse it at every run, for good."""
        board.irqbalance()
        kept(board)
        if masked:
            board.tree.link("/etc/systemd/system/irqbalance.service", "/dev/null")
        else:
            (board.tree.path / "usr/lib/systemd/system/irqbalance.service").unlink()
        (board.tree.path / "proc/500/comm").unlink()
        runner = hosts.Commands()
        assert IRQBALANCE_DROP_IN in paths(kept(board, runner=runner))
        assert runner.run == ["systemctl daemon-reload"]

    def test_masked(self, board: hosts.Board) -> None:
        """Installed, but nobody starts it: nothing to do, and nothing to say at every run."""
        board.irqbalance()
        (board.tree.path / "proc/500/comm").unlink()
        board.tree.link("/etc/systemd/system/irqbalance.service", "/dev/null")
        found = kept(board)
        assert (found.refused, found.unknown) == ([], [])
        assert IRQBALANCE_DROP_IN not in paths(found)

    def test_started_by_hand(self, board: hosts.Board) -> None:
        board.irqbalance(installed=False)
        found = kept(board)
        [sentence] = found.unknown
        assert sentence == (
            "whether irqbalance leaves the cards alone: unknown until it is started with --policyscript=%s, or by a "
            "unit file of systemd" % IRQBALANCE_POLICY
        )
        assert found.refused == []
        assert script(board, "0x1f4b", "0x0650").stdout == b"ban=true\n"
        board.irqbalance("--policyscript=" + IRQBALANCE_POLICY, installed=False)
        assert kept(board) == Kept([], [], [], [])


class TestBornThere:
    def test_modules_of_the_cards_on_this_host(self, board: hosts.Board) -> None:
        kept(board, wishes=dict(AFFINITY, born_there=True))
        lines = (board.root.text(MODPROBE_CONF) or "").splitlines()
        assert [line.split()[:2] for line in lines[1:]] == [["install", "ax_pcie_host_dev"]]

    def test_given_back_when_no_longer_wished(self, board: hosts.Board) -> None:
        board.tree.file(MODPROBE_CONF, "theirs\n")
        kept(board, wishes=dict(AFFINITY, born_there=True))
        found = kept(board)
        assert MODPROBE_CONF in paths(found)
        assert board.root.text(MODPROBE_CONF) == "theirs"
        assert kept(board).changes == []
        assert MODPROBE_CONF not in [entry.id for entry in Ledger(board.kernel).entries()]


def test_shared_entries_are_nobody_s(board: hosts.Board) -> None:
    """What serves both roles goes with the last of them."""
    kept(board)
    entries = Ledger(board.kernel).entries(kind="file")
    assert {entry.id for entry in entries if entry.role == SHARED} == {
        CURRENT,
        COMMAND,
        UNIT,
        ENABLED,
        LATE_UNIT,
        LATE_ENABLED,
        UDEV_RULES,
    }
