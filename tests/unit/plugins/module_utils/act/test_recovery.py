# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dead cards brought back: every step of the ladder, what is refused, and runs that are killed in between."""

from __future__ import annotations

from typing import Any, List

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import recovery
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.recovery import RECORD, Recovered, recover
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.driver import UNIT, DriverWishes, files
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.recovery import LADDER, RecoveryWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import MODULES, read_driver_state
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.hosts import BDF
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.patients import PORT, SMI, Patient

UNLOAD = ["modprobe -r " + module for module in reversed(MODULES)]
LOAD = ["modprobe " + module for module in MODULES]
REBOOT = ["axcl-smi reboot -d 0"]
REMOVE = "/sys/bus/pci/devices/%s/remove" % BDF
RESCAN = "/sys/bus/pci/devices/%s/rescan" % PORT
CONTROL = "/sys/bus/pci/devices/%s/config" % PORT


class Killed(BaseException):
    """What SIGKILL does to a run, as far as a test can."""


@pytest.fixture
def patient(tree: Tree) -> Patient:
    return Patient(tree)


def run(patient: Patient, check: bool = False, **wishes: Any) -> Recovered:
    """Recover."""
    return recover(patient.kernel, RecoveryWishes(**wishes), patient.run, check, patient.time.clock())


def names(done: Recovered) -> List[str]:
    """Return the steps that were taken."""
    return [one.step for one in done.tried]


def test_living_card_is_not_touched(patient: Patient) -> None:
    before = patient.snapshot()
    done = run(patient, stop_users=True)
    assert (done.decision.outcome, done.tried, done.astray) == ("alive", [], None)
    assert recovery.as_changes(done) == []
    assert (patient.steps(), patient.kernel.acted, patient.kernel.events) == ([], [], [])
    assert patient.snapshot() == before


def test_living_card_that_is_in_use_is_left_to_its_users(patient: Patient) -> None:
    patient.use(763)
    assert run(patient, stop_users=True).decision.outcome == "alive"
    assert patient.has("/proc/763")


@pytest.mark.parametrize("at", range(len(LADDER)), ids=LADDER)
def test_every_step_brings_back_what_no_weaker_one_does(patient: Patient, at: int) -> None:
    patient.die(LADDER[at])
    done = run(patient)
    assert names(done) == list(LADDER[: at + 1])
    assert [one.helped for one in done.tried] == [False] * at + [True]
    assert done.decision.outcome == "alive"
    assert [card.life for card in done.before + done.after] == ["dead", "alive"]
    assert patient.loaded == list(MODULES)
    assert not patient.has(RECORD)
    expected = REBOOT + (UNLOAD + LOAD) * at
    assert patient.steps() == expected
    assert all("dead" not in one.why for one in done.tried[-1:])
    again = run(patient)
    assert (again.tried, again.decision.outcome) == ([], "alive")
    assert patient.steps() == expected


def test_what_is_done_on_the_bus(patient: Patient) -> None:
    patient.die("bus_reset")
    run(patient)
    # The card's own port is rescanned, never the whole bus, and nothing is below the port while its bus is reset.
    assert patient.kernel.acted == [REMOVE, RESCAN, REMOVE, CONTROL + " 0x40", CONTROL + " 0x0", RESCAN]


def test_kernel_s_own_reset_is_preferred(patient: Patient) -> None:
    patient.die("bus_reset")
    own = "/sys/bus/pci/devices/%s/reset_subordinate" % PORT
    patient.tree.file("/sys/devices/platform/fe180000.pcie/pci0003:30/0003:30:00.0/reset_subordinate")
    assert run(patient).decision.outcome == "alive"
    assert patient.kernel.acted[2:] == [REMOVE, own, RESCAN]


def test_kernel_s_own_reset_that_is_refused(patient: Patient) -> None:
    patient.die("bus_reset")
    own = "/sys/bus/pci/devices/%s/reset_subordinate" % PORT
    patient.tree.file("/sys/devices/platform/fe180000.pcie/pci0003:30/0003:30:00.0/reset_subordinate")
    patient.kernel.denied[own] = "ENOTTY: x"
    assert run(patient).decision.outcome == "alive"
    assert patient.kernel.acted[3:5] == [CONTROL + " 0x40", CONTROL + " 0x0"]


def test_card_without_a_link(patient: Patient) -> None:
    """Nothing reaches it: no reboot, and no driver is loaded over it. A rescan does not find it, a reset does."""
    patient.die("bus_reset", mute=True)
    done = run(patient)
    assert names(done) == ["rescan", "bus_reset"]
    assert done.tried[0].why == "%s: it is not on the PCI bus" % BDF
    assert (done.decision.outcome, patient.on_bus) == ("alive", [BDF])
    assert patient.kernel.acted == [REMOVE, RESCAN, CONTROL + " 0x40", CONTROL + " 0x0", RESCAN]


def test_card_that_nothing_brings_back(patient: Patient) -> None:
    patient.die("")
    done = run(patient)
    assert names(done) == list(LADDER)
    assert (done.decision.outcome, done.decision.held_back) == ("exhausted", False)
    assert "switch the host's power off and on" in done.decision.why
    assert patient.on_bus == [BDF]
    assert patient.loaded == list(MODULES)
    assert not patient.has(RECORD)


def test_card_that_is_gone_for_good_stays_on_record(patient: Patient) -> None:
    patient.die("", mute=True)
    done = run(patient)
    assert (names(done), patient.on_bus, patient.loaded) == (["rescan", "bus_reset"], [], list(MODULES))
    assert recovery.read_away(patient.root).cards == {BDF: PORT}
    again = run(patient)
    assert [card.bdf for card in again.before] == [BDF]
    assert names(again) == ["finish", "rescan", "bus_reset"]


def test_strongest_step_is_the_wished_one(patient: Patient) -> None:
    patient.die("rescan")
    done = run(patient, max_step="reload")
    assert names(done) == ["card_reboot", "reload"]
    assert (done.decision.outcome, done.decision.held_back) == ("exhausted", True)
    assert "power" not in done.decision.why
    assert [step for step, _why in done.decision.passed_over] == ["rescan", "bus_reset"]
    assert patient.kernel.acted == []


def test_kernel_s_own_lines_are_kept(patient: Patient) -> None:
    patient.die("rescan")
    patient.say("device 31: dead!")
    done = run(patient)
    assert done.tried[0].kernel == ()
    assert [line.partition("] ")[2] for line in done.tried[1].kernel] == [
        "[axcl_pcie_host_init, 1]: axcl wait dev 31 handshake...",
        "[step1]: Handshake timeout!",
        "axcl pcie check remote device 31 failed",
    ]
    assert "pci %s: removed" % BDF in done.tried[2].kernel[0]
    assert done.tried[2].kernel[-1].endswith("base_addr: 0x1, size: 0x400000")


# ---- users ----------------------------------------------------------------------------------------------------------


def test_users_are_left_alone_unless_allowed(patient: Patient) -> None:
    patient.die("card_reboot")
    patient.use(763)
    before = patient.snapshot()
    done = run(patient)
    assert (done.decision.outcome, done.tried) == ("refused", [])
    assert done.decision.why == (
        "the driver is in use by axllm (PID 763, axllm.service); stop that, or allow it with stop_users: true "
        "(SIGTERM, never SIGKILL)"
    )
    assert (patient.steps(), patient.snapshot()) == ([], before)


@pytest.mark.parametrize("cure", ["stop_users", "card_reboot"])
def test_users_are_stopped_first_and_that_may_be_enough(patient: Patient, cure: str) -> None:
    patient.die(cure)
    patient.use(763)
    patient.use(800, "python3", service="x.scope")
    done = run(patient, stop_users=True)
    assert names(done) == ["stop_users"] + (["card_reboot"] if cure == "card_reboot" else [])
    assert done.decision.outcome == "alive"
    assert [(user.pid, user.service) for user in done.stopped] == [(763, "axllm.service"), (800, None)]
    assert patient.commands.count("kill -TERM 763 800") == 1


def test_user_that_does_not_end(patient: Patient) -> None:
    patient.die("card_reboot")
    patient.use(763, stubborn=True)
    done = run(patient, stop_users=True, stop_timeout_s=7)
    assert (done.decision.outcome, names(done)) == ("refused", ["stop_users"])
    assert "still there after SIGTERM and 7 s, or back again: axllm (PID 763, axllm.service)" in done.decision.why
    assert patient.time.time >= 7
    assert patient.steps() == ["kill -TERM 763"]


def test_user_that_its_service_starts_again(patient: Patient) -> None:
    patient.die("card_reboot")
    patient.use(763)
    patient.time.during = lambda: None if patient.has("/proc/900") else patient.use(900)
    run_before = patient.run

    def restart(argv: Any, timeout_s: float) -> Ran:
        ran = run_before(argv, timeout_s)
        if "-TERM" in " ".join(argv):
            patient.use(900)
        return ran

    patient.run = restart  # type: ignore[method-assign]
    done = run(patient, stop_users=True)
    assert (done.decision.outcome, names(done)) == ("refused", ["stop_users"])
    assert "PID 900" in done.decision.why


def test_load_that_hangs(patient: Patient) -> None:
    patient.die("reload")
    patient.hang_in_load(640)
    done = run(patient, load_timeout_s=60)
    assert (done.decision.outcome, done.tried, patient.steps()) == ("refused", [], [])
    assert patient.time.time >= 60, "it may take that long"
    assert "modprobe (PID 640)" in done.decision.why
    done = run(patient, load_timeout_s=60, stop_users=True)
    assert (done.decision.outcome, names(done)) == ("alive", ["stop_users", "reload"])


def test_load_that_ends_in_time_is_waited_for(patient: Patient) -> None:
    modules = patient.text("/proc/modules")
    patient.hang_in_load(640)

    def end() -> None:
        if patient.time.time > 20:
            patient._terminated(640)
            patient.tree.file("/proc/modules", modules)
            patient.tree.file("/dev/axcl_host")

    patient.time.during = end
    done = run(patient, stop_users=True)
    assert (done.decision.outcome, done.tried, patient.steps()) == ("alive", [], [])


# ---- what else would be hit -----------------------------------------------------------------------------------------


def test_bus_with_something_else_on_it_is_not_reset(patient: Patient) -> None:
    patient.neighbour()
    patient.die("bus_reset")
    done = run(patient)
    assert names(done) == ["card_reboot", "reload", "rescan"]
    assert done.decision.passed_over == (
        (
            "bus_reset",
            "0003:30:00.0, above 0003:31:00.0, has others below it that it would reset, too: 0003:31:00.1 (no driver)",
        ),
    )
    assert patient.has("/sys/bus/pci/devices/0003:31:00.1")
    assert [path for path in patient.kernel.acted if "config" in path] == []


def test_one_of_two_cards_is_rebooted_and_no_more(patient: Patient) -> None:
    other = patient.second_card()
    patient.commands.clear()
    patient.die("reload")
    done = run(patient, cards=(BDF,))
    assert names(done) == ["card_reboot"]
    assert patient.steps() == ["axcl-smi reboot -d 1"]
    assert {step: other in why for step, why in done.decision.passed_over} == {
        "reload": True,
        "rescan": True,
        "bus_reset": True,
    }
    assert done.decision.held_back
    everything = run(patient)
    assert names(everything) == ["card_reboot", "reload"]
    assert [card.life for card in everything.after] == ["alive", "alive"]


@pytest.mark.parametrize("first", [True, False])
def test_the_dead_one_is_rebooted_not_its_neighbour(patient: Patient, first: bool) -> None:
    other = patient.second_card()
    patient.commands.clear()
    patient.die("card_reboot", other if first else BDF)
    assert run(patient).decision.outcome == "alive"
    assert patient.steps() == ["axcl-smi reboot -d %d" % (0 if first else 1)]


def test_both_dead(patient: Patient) -> None:
    other = patient.second_card()
    patient.commands.clear()
    patient.die("card_reboot", other)
    patient.die("rescan")
    done = run(patient)
    assert names(done) == ["card_reboot", "reload", "rescan"]
    assert done.tried[0].cards == (other, BDF)
    assert done.tried[1].cards == (BDF,)
    assert done.decision.outcome == "alive"
    assert patient.steps()[:2] == ["axcl-smi reboot -d 0", "axcl-smi reboot -d 1"]


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_driver_that_is_not_loaded(patient: Patient) -> None:
    for module in reversed(MODULES):
        patient._modprobe(["-r", module])
    done = run(patient)
    assert (names(done), done.decision.outcome) == (["reload"], "alive")
    assert patient.steps() == LOAD


def test_driver_is_loaded_by_its_unit(patient: Patient) -> None:
    texts, _links = files(read_driver_state(patient.root), DriverWishes())
    patient.tree.file(UNIT, texts[UNIT])
    patient.die("reload")
    assert run(patient).decision.outcome == "alive"
    assert patient.steps() == [*REBOOT, *UNLOAD, "systemctl restart edgenpu-axcl-load.service"]


def test_load_that_fails(patient: Patient) -> None:
    patient.die("bus_reset")
    patient.fail["modprobe axcl_host"] = (1, "modprobe: ERROR: could not insert 'axcl_host': Input/output error\n")
    done = run(patient)
    assert names(done) == list(LADDER)
    assert done.tried[1].why.startswith("loading axcl_host failed: modprobe: ERROR: could not insert 'axcl_host'")
    assert (done.decision.outcome, patient.on_bus) == ("exhausted", [BDF])


def test_module_that_cannot_be_unloaded_is_loaded_whole_again(patient: Patient) -> None:
    patient.die("reload")
    patient.fail["modprobe -r axcl_host"] = (1, "modprobe: FATAL: Module axcl_host is in use.")
    done = run(patient)
    assert names(done) == list(LADDER)
    assert done.tried[1].why.startswith("unloading axcl_host failed: modprobe: FATAL: Module axcl_host is in use.")
    assert patient.kernel.acted == [], "nothing is removed under a driver"
    assert set(patient.loaded) == set(MODULES)


def test_removal_that_is_refused(patient: Patient) -> None:
    patient.die("rescan")
    patient.kernel.denied[REMOVE] = "EROFS: x"
    done = run(patient, max_step="rescan")
    assert done.tried[-1].why.startswith("EROFS: x")
    assert (patient.on_bus, patient.loaded, patient.has(RECORD)) == ([BDF], list(MODULES), False)


def test_port_whose_registers_cannot_be_written(patient: Patient) -> None:
    patient.die("bus_reset")
    patient.kernel.denied[CONTROL] = "EPERM: not allowed; root is needed"
    done = run(patient)
    assert done.tried[-1].why.startswith("%s: its bus cannot be reset: EPERM" % PORT)
    assert (patient.on_bus, patient.loaded) == ([BDF], list(MODULES)), "it was looked for all the same"


def test_tool_that_hangs(patient: Patient) -> None:
    patient.die("")
    for words in ("", "reboot -d 0"):
        patient.answers[words] = Ran(124, "")
    done = run(patient)
    assert (names(done), done.decision.outcome) == (list(LADDER), "exhausted")
    assert "axcl-smi gave no answer within its time limit" in done.tried[0].why


@pytest.mark.parametrize("answer", [Ran(76, ""), Ran(75, ""), Ran(127, "not found")])
def test_tool_that_tells_nothing_of_the_card(patient: Patient, answer: Ran) -> None:
    patient.answers[""] = answer
    done = run(patient)
    assert (done.decision.outcome, done.tried, patient.steps()) == ("refused", [], [])
    assert "whether it is alive cannot be told" in done.decision.why


def test_no_tool(patient: Patient) -> None:
    patient.remove(SMI)
    done = run(patient)
    assert (done.decision.outcome, patient.steps()) == ("refused", [])
    assert "axcl-smi is not installed" in done.decision.why


def test_host_that_never_had_a_card(patient: Patient) -> None:
    """In a fleet of all sorts; where a driver is, a card should be."""
    patient.remove("/sys/bus/pci/devices/" + BDF)
    patient.remove(SMI)
    done = run(patient)
    assert (done.decision.outcome, patient.steps()) == ("alive", [])
    assert done.decision.why.endswith("nothing to recover")
    assert run(patient, cards=(BDF,)).decision.outcome == "refused"


def test_no_card(patient: Patient) -> None:
    patient.remove("/sys/bus/pci/devices/" + BDF)
    done = run(patient)
    assert done.decision.outcome == "refused"
    assert "no AX650N is on the PCI bus" in done.decision.why
    named = run(patient, cards=(BDF,))
    assert names(named)[0] == "rescan"
    assert (
        patient.kernel.acted[0] == "/sys/bus/pci/devices/0003:30:00.0/rescan" or "pci/rescan" in patient.kernel.acted[0]
    )


# ---- killed ---------------------------------------------------------------------------------------------------------


class Killer:
    """SIGKILL at the event that comes after LEFT others. It runs no "finally": then nothing is done any more."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, _what: str) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


@pytest.mark.parametrize(("cure", "mute"), [("reload", False), ("bus_reset", True)])
def test_killed_anywhere_and_repeated(tmp_path: Any, cure: str, mute: bool) -> None:
    at, total = 0, 1
    while at < total:
        patient = Patient(Tree(tmp_path / ("%s-%s-%d" % (cure, mute, at))))
        patient.die(cure, mute=mute)
        killer = tick = Killer(at)
        patient.before = tick
        patient.kernel.before_put = tick
        trigger, set_byte = patient.kernel.trigger, patient.kernel.set_byte

        def killed_trigger(path: str, trigger: Any = trigger, tick: Any = tick) -> Any:
            tick(path)
            return trigger(path)

        def killed_set_byte(path: str, offset: int, value: int, set_byte: Any = set_byte, tick: Any = tick) -> Any:
            tick(path)
            return set_byte(path, offset, value)

        patient.kernel.trigger = killed_trigger  # type: ignore[method-assign]
        patient.kernel.set_byte = killed_set_byte  # type: ignore[method-assign]
        try:
            run(patient)
            total = at
        except Killed:
            total = at + 2
        killer.left = -1
        done = run(patient)
        assert done.decision.outcome == "alive", (cure, mute, at)
        assert (patient.on_bus, patient.loaded) == ([BDF], list(MODULES))
        assert not patient.has(RECORD)
        assert not patient._control(PORT) & 0x40
        at += 1
    assert at > 5


# ---- check mode, and what is ours -----------------------------------------------------------------------------------


def test_check_mode_tells_the_first_step_and_touches_nothing(patient: Patient) -> None:
    patient.die("rescan")
    before = patient.snapshot()
    done = run(patient, check=True)
    assert (done.decision.outcome, done.decision.step, done.tried) == ("go", "card_reboot", [])
    assert [change.path for change in recovery.as_changes(done)] == ["card_reboot: " + BDF]
    assert (patient.steps(), patient.kernel.acted, patient.kernel.events) == ([], [], [])
    assert patient.snapshot() == before
    assert not patient.has(RECORD)
    patient.hang_in_load(640)
    run(patient, check=True)
    assert patient.time.time == 0, "nobody waits in check mode"


def test_interrupts_move_and_are_looked_after(patient: Patient) -> None:
    patient.tree.file("/etc/systemd/system/edgenpu-tuning.service", "[Unit]\n")
    patient.wishes("irq_affinity", {"how": "single"})
    patient.die("reload")
    done = run(patient)
    assert [(one.bdf, one.before, one.after) for one in done.moved] == [(BDF, (41,), (42,))]
    assert patient.commands[-2:] == ["udevadm settle --timeout=30", "systemctl start edgenpu-tuning.service"]
    assert done.astray == ["/proc/irq/42/smp_affinity_list is 0-7 and should be 4"]
    patient.irq(42, "4", "4")
    patient.die("card_reboot")
    done = run(patient)
    assert names(done) == ["card_reboot"]
    assert done.astray == []


def test_nothing_of_ours_on_the_host(patient: Patient) -> None:
    patient.die("reload")
    assert run(patient).astray is None
