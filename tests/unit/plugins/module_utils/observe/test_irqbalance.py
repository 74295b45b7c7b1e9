# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import irqbalance
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.irqbalance import read_irqbalance
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

DEBIAN = """[Unit]
Description=irqbalance daemon
ConditionVirtualization=!container
ExecStart=/not/in/this/section

[Service]
EnvironmentFile=-/etc/default/irqbalance
ExecStart=/usr/sbin/irqbalance $IRQBALANCE_ARGS
ReadOnlyPaths=/
ReadWritePaths=/proc/irq

[Install]
WantedBy=multi-user.target
"""
SCRIPT = "/usr/lib/edgenpu-tuning/irqbalance"
OURS = "[Service]\nExecStart=\nExecStart=/usr/sbin/irqbalance $IRQBALANCE_ARGS --policyscript=%s\n" % SCRIPT
SYSTEMD = "/usr/lib/systemd/system/irqbalance.service"


def debian(tree: Tree) -> None:
    tree.file(SYSTEMD, DEBIAN)
    tree.file("/usr/sbin/irqbalance")
    tree.file("/etc/default/irqbalance", "# comment\nIRQBALANCE_ARGS=\n")
    tree.file("/proc/1/comm", "systemd\n")


def drop_in(
    tree: Tree, name: str, text: str, place: str = "/etc/systemd/system", of: str = "irqbalance.service"
) -> None:
    tree.file("%s/%s.d/%s" % (place, of, name), text)


def running(tree: Tree, pid: int, arguments: str, cgroup: bool = True) -> None:
    tree.file("/proc/%d/comm" % pid, "irqbalance\n")
    tree.file("/proc/%d/cmdline" % pid, ("/usr/sbin/irqbalance " + arguments).strip().replace(" ", "\0") + "\0")
    if cgroup:
        tree.file("/sys/fs/cgroup/system.slice/irqbalance.service/cgroup.procs", "%d\n" % pid)


class TestUnit:
    def test_not_there(self, tree: Tree) -> None:
        tree.file("/proc/1/comm", "init\n")
        found = read_irqbalance(tree.root)
        assert found == irqbalance.Irqbalance(False, False, None, None, None, (), None, False)

    def test_tree_without_proc(self, tree: Tree) -> None:
        tree.file("/usr/sbin/irqbalance")
        found = read_irqbalance(tree.root)
        assert (found.installed, found.running, found.unit) == (True, None, None)

    def test_as_debian_ships_it(self, tree: Tree) -> None:
        debian(tree)
        found = read_irqbalance(tree.root)
        assert (found.installed, found.running, found.unit) == (True, False, SYSTEMD)
        assert found.exec_start == "/usr/sbin/irqbalance $IRQBALANCE_ARGS"
        assert found.exec_start_without_ours == found.exec_start
        assert (found.policy_script, found.own_drop_in, found.masked, found.drop_ins) == (None, False, False, ())

    def test_etc_before_run_before_usr(self, tree: Tree) -> None:
        debian(tree)
        tree.file("/run/systemd/system/irqbalance.service", "[Service]\nExecStart=/run/x\n")
        assert read_irqbalance(tree.root).exec_start == "/run/x"
        tree.file("/etc/systemd/system/irqbalance.service", "[Service]\nExecStart=/etc/x\n")
        found = read_irqbalance(tree.root)
        assert (found.exec_start, found.unit) == ("/etc/x", "/etc/systemd/system/irqbalance.service")

    def test_lib_without_usr(self, tree: Tree) -> None:
        tree.file("/lib/systemd/system/irqbalance.service", DEBIAN)
        found = read_irqbalance(tree.root)
        assert (found.unit, found.installed) == ("/lib/systemd/system/irqbalance.service", True)

    def test_masked(self, tree: Tree) -> None:
        debian(tree)
        tree.link("/etc/systemd/system/irqbalance.service", "/dev/null")
        drop_in(tree, "a.conf", OURS)
        found = read_irqbalance(tree.root)
        assert found.masked
        assert (found.exec_start, found.exec_start_without_ours) == (None, None)
        assert found.installed  # the program is there

    def test_empty_unit_is_masked(self, tree: Tree) -> None:
        debian(tree)
        tree.file("/etc/systemd/system/irqbalance.service", "")
        assert read_irqbalance(tree.root).masked


class TestDropIns:
    def test_ours(self, tree: Tree) -> None:
        debian(tree)
        drop_in(tree, "edgenpu-tuning.conf", OURS)
        found = read_irqbalance(tree.root)
        assert found.own_drop_in
        assert found.exec_start is not None
        assert found.exec_start.endswith("--policyscript=" + SCRIPT)
        assert found.exec_start_without_ours == "/usr/sbin/irqbalance $IRQBALANCE_ARGS"
        assert found.policy_script == SCRIPT

    def test_ours_upon_the_users(self, tree: Tree) -> None:
        debian(tree)
        drop_in(tree, "10-mine.conf", "[Service]\nExecStart=\nExecStart=/usr/sbin/irqbalance --interval=5\n")
        drop_in(tree, "edgenpu-tuning.conf", OURS)
        assert read_irqbalance(tree.root).exec_start_without_ours == "/usr/sbin/irqbalance --interval=5"

    def test_the_users_after_ours(self, tree: Tree) -> None:
        debian(tree)
        drop_in(tree, "edgenpu-tuning.conf", OURS)
        drop_in(tree, "zz.conf", "[Service]\nExecStart=\nExecStart=/usr/sbin/irqbalance -o\n")
        found = read_irqbalance(tree.root)
        assert (found.exec_start, found.own_drop_in) == ("/usr/sbin/irqbalance -o", True)
        assert found.later_drop_in == "/etc/systemd/system/irqbalance.service.d/zz.conf"
        assert (found.unit_policy, found.unit_policy_without_ours) == (None, None)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("aa.conf", "[Service]\nExecStart=\nExecStart=/usr/sbin/irqbalance -o\n"),
            ("zz.conf", "[Service]\nNice=5\n"),
            ("zz.conf", "[Unit]\nExecStart=/x\n"),
        ],
    )
    def test_drop_ins_that_leave_ours_in_force(self, tree: Tree, name: str, text: str) -> None:
        debian(tree)
        drop_in(tree, "edgenpu-tuning.conf", OURS)
        drop_in(tree, name, text)
        found = read_irqbalance(tree.root)
        assert (found.later_drop_in, found.unit_policy) == (None, SCRIPT)

    def test_the_users_policy_before_ours(self, tree: Tree) -> None:
        """The last one on the command line counts, so that ours hides it."""
        debian(tree)
        drop_in(tree, "edgenpu-tuning.conf", OURS)
        tree.file("/etc/default/irqbalance", "IRQBALANCE_ARGS=--policyscript=/etc/mine.sh\n")
        running(tree, 620, "--policyscript=/etc/mine.sh --policyscript=" + SCRIPT)
        found = read_irqbalance(tree.root)
        assert (found.policy_script, found.unit_policy) == (SCRIPT, SCRIPT)
        assert found.unit_policy_without_ours == "/etc/mine.sh"

    def test_order_is_that_of_names_over_all_directories(self, tree: Tree) -> None:
        debian(tree)
        drop_in(tree, "10-a.conf", "[Service]\nExecStart=\nExecStart=/a\n", "/usr/lib/systemd/system")
        drop_in(tree, "50-b.conf", "[Service]\nExecStart=\nExecStart=/b\n")
        drop_in(tree, "99-all.conf", "[Service]\nExecStart=\nExecStart=/all\n", of="service")
        found = read_irqbalance(tree.root)
        assert [path.rpartition("/")[2] for path in found.drop_ins] == ["10-a.conf", "50-b.conf", "99-all.conf"]
        assert found.exec_start == "/all"

    def test_same_name_hides(self, tree: Tree) -> None:
        debian(tree)
        drop_in(tree, "x.conf", "[Service]\nExecStart=\nExecStart=/vendor\n", "/usr/lib/systemd/system")
        drop_in(tree, "x.conf", "[Service]\nExecStart=\nExecStart=/admin\n")
        drop_in(tree, "x.conf", "[Service]\nExecStart=\nExecStart=/all\n", of="service")
        assert read_irqbalance(tree.root).exec_start == "/admin"

    def test_link_to_dev_null_hides(self, tree: Tree) -> None:
        debian(tree)
        drop_in(tree, "x.conf", "[Service]\nExecStart=\nExecStart=/vendor\n", "/usr/lib/systemd/system")
        tree.link("/etc/systemd/system/irqbalance.service.d/x.conf", "/dev/null")
        found = read_irqbalance(tree.root)
        assert (found.exec_start, found.drop_ins) == ("/usr/sbin/irqbalance $IRQBALANCE_ARGS", ())

    def test_other_names_and_sections_do_not_count(self, tree: Tree) -> None:
        debian(tree)
        drop_in(tree, "x.conf.bak", "[Service]\nExecStart=\nExecStart=/backup\n")
        drop_in(tree, "y.conf", "[Unit]\nExecStart=\nExecStart=/section\n")
        assert read_irqbalance(tree.root).exec_start == "/usr/sbin/irqbalance $IRQBALANCE_ARGS"

    def test_reset_alone_leaves_nothing(self, tree: Tree) -> None:
        debian(tree)
        drop_in(tree, "x.conf", "[Service]\nExecStart=\n")
        assert read_irqbalance(tree.root).exec_start is None

    def test_joined_lines(self, tree: Tree) -> None:
        debian(tree)
        text = "; a\n[Service]\nExecStart=\nExecStart=/x \\\n# in between\n  --one \\\n  --two\n#ExecStart=/y\n"
        drop_in(tree, "x.conf", text)
        assert read_irqbalance(tree.root).exec_start == "/x --one --two"

    def test_two_backslashes_do_not_join(self) -> None:
        settings_ = irqbalance.parse_unit("[Service]\nA=x\\\\\nB=y\n")
        assert [setting.key for setting in settings_] == ["A", "B"]


@pytest.mark.parametrize(("unit", "expected"), [(None, False), ("shipped", True), ("masked", False)])
def test_startable(tree: Tree, unit: str | None, expected: bool) -> None:
    if unit is not None:
        debian(tree)
    if unit == "masked":
        tree.link("/etc/systemd/system/irqbalance.service", "/dev/null")
    assert irqbalance.startable(tree.root) is expected


class TestProcess:
    def test_by_control_group(self, tree: Tree) -> None:
        debian(tree)
        running(tree, 620, "--foreground --interval=5")
        found = read_irqbalance(tree.root)
        assert (found.running, found.pid, found.arguments) == (True, 620, ("--foreground", "--interval=5"))

    def test_started_by_hand(self, tree: Tree) -> None:
        tree.file("/usr/sbin/irqbalance")
        running(tree, 77, "-l /etc/irq.sh", cgroup=False)
        found = read_irqbalance(tree.root)
        assert (found.running, found.pid, found.unit, found.policy_script) == (True, 77, None, "/etc/irq.sh")

    def test_number_that_another_process_has_now(self, tree: Tree) -> None:
        debian(tree)
        running(tree, 620, "")
        tree.file("/proc/620/comm", "bash\n")
        assert read_irqbalance(tree.root).running is False

    def test_what_runs_counts_before_what_would(self, tree: Tree) -> None:
        debian(tree)
        drop_in(tree, "edgenpu-tuning.conf", OURS)  # not in force: the daemon was not restarted
        running(tree, 620, "--foreground")
        found = read_irqbalance(tree.root)
        assert (found.policy_script, found.own_drop_in, found.arguments) == (None, True, ("--foreground",))


class TestPolicyScript:
    @pytest.mark.parametrize(
        ("arguments", "script"),
        [
            (["--policyscript=/a"], "/a"),
            (["--policyscript", "/a"], "/a"),
            (["-l", "/a"], "/a"),
            (["-l/a"], "/a"),
            (["-fl", "/a"], "/a"),
            (["-fdl/a"], "/a"),
            (["--pol=/a"], "/a"),
            (["--po=/a"], None),
            (["-l", "/a", "--policyscript=/b"], "/b"),
            ([], None),
            (["--powerthresh=1"], None),
            (["-p", "-l"], None),
            (["-i5", "-l", "/a"], "/a"),
            (["--", "-l", "/a"], None),
            (["-l"], None),
            (["--policyscript="], None),
            (["--foreground"], None),
            (["-m", "l", "x"], None),
        ],
    )
    def test_options(self, arguments: list[str], script: str | None) -> None:
        assert irqbalance.policy_script(arguments) == script

    @pytest.mark.parametrize(
        ("environment", "script"),
        [
            ('IRQBALANCE_ARGS="--interval=5 --policyscript=/etc/mine"\n', "/etc/mine"),
            ("IRQBALANCE_ARGS=-l/etc/mine\n", "/etc/mine"),
            ("#IRQBALANCE_ARGS=-l/etc/mine\n", None),
            ("OTHER=-l/etc/mine\n", None),
            ("IRQBALANCE_ARGS='unmatched\n", None),
        ],
    )
    def test_environment_file(self, tree: Tree, environment: str, script: str | None) -> None:
        debian(tree)
        tree.file("/etc/default/irqbalance", environment)
        assert read_irqbalance(tree.root).policy_script == script

    def test_environment_of_the_unit(self, tree: Tree) -> None:
        debian(tree)
        text = '[Service]\nEnvironment="DIR=/opt/a b" N=1\nExecStart=\nExecStart=/x -l ${DIR}/s${NONE}\n'
        drop_in(tree, "x.conf", text)
        assert read_irqbalance(tree.root).policy_script == "/opt/a b/s"

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(st.text(alphabet="[]=\\\n#;Servic ExecStart$\"'{}-l/", max_size=120))
    def test_any_text(self, text: str) -> None:
        values = irqbalance.values_of(irqbalance.parse_unit("[Service]\n" + text), "ExecStart")
        assert all(isinstance(word, str) for value in values for word in irqbalance.expand(value, {"a": text}))
        assert "" not in irqbalance.parse_environment_file(text)
