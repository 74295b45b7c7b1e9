# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
from typing import Any, Dict, List, Tuple

import pytest
from ansible.module_utils import basic

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import recovery
from ansible_collections.edgenpu.tuning.plugins.modules import axcl_recover
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.hosts import BDF
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.patients import PORT, Patient
from ansible_collections.edgenpu.tuning.tests.unit.plugins.modules.running import Modules, Result


class Host:
    """Runs the module on a patient."""

    def __init__(self, patient: Patient, modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patient = patient
        self.modules = modules

        def run_command(module: basic.AnsibleModule, argv: List[str], **more: Any) -> Tuple[int, str, str]:
            assert argv[:3] == ["timeout", "-k", "5"]
            ran = patient.run(argv[4:], float(argv[3]))
            return ran.status, ran.output, ""

        monkeypatch.setattr(basic.AnsibleModule, "run_command", run_command)
        monkeypatch.setattr(recovery, "Clock", patient.time.clock)

    def run(self, check: bool = False, **arguments: Any) -> Result:
        return self.modules.run(axcl_recover, check, **arguments)


@pytest.fixture
def patient(board: Any, tmp_path: pathlib.Path) -> Patient:
    return Patient(Tree(tmp_path / "box"))


@pytest.fixture
def host(patient: Patient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Host:
    return Host(patient, Modules(patient, monkeypatch, capsys), monkeypatch)


def test_living_card(host: Host) -> None:
    result = host.run()
    assert (result.status, result.data["changed"], result.data["alive"]) == (0, False, True)
    assert result.data["msg"].startswith("%s is alive: it is bound" % BDF)
    assert (result.data["tried"], result.data["diff"], result.data["astray"]) == ([], [], None)
    assert host.patient.steps() == []


def test_recovered(host: Host) -> None:
    host.patient.die("reload")
    result = host.run()
    assert (result.status, result.data["changed"], result.data["alive"]) == (0, True, True)
    assert result.data["msg"].startswith("alive again after reload. ")
    assert result.data["cards"] == [
        {
            "bdf": BDF,
            "before": "dead",
            "after": "alive",
            "why": "it is bound, its firmware is up, and it has a plausible row in axcl-smi",
            "port": PORT,
        }
    ]
    assert [(one["step"], one["cards"], one["helped"]) for one in result.data["tried"]] == [
        ("card_reboot", [BDF], False),
        ("reload", [BDF], True),
    ]
    assert "could not be rebooted" in result.data["tried"][0]["why"]
    assert result.paths == ["card_reboot: " + BDF, "reload: " + BDF]
    assert [change["after"] for change in result.data["changes"]] == ["not alive", "alive"]
    assert result.data["interrupts"] == [{"bdf": BDF, "before": [41], "after": [42]}]
    assert (result.data["reboot_required"], result.data["reboot_reason"]) == (False, None)
    again = host.run()
    assert (again.status, again.data["changed"]) == (0, False)


def test_check_mode(host: Host) -> None:
    host.patient.die("rescan")
    before = host.patient.snapshot()
    result = host.run(check=True)
    assert (result.status, result.data["changed"], result.data["alive"]) == (0, True, False)
    assert result.data["msg"].startswith("card_reboot would be tried first for %s: " % BDF)
    assert result.data["unknown"] == [
        "whether card_reboot helps, and what comes after it: unknown until it has been tried"
    ]
    assert (host.patient.snapshot(), host.patient.steps()) == (before, [])


def test_nothing_helps(host: Host) -> None:
    host.patient.die("")
    result = host.run()
    assert (result.status, result.data["changed"], result.data["reboot_required"]) == (1, True, True)
    assert result.data["msg"] == result.data["reboot_reason"]
    lenient = host.run(strict=False)
    assert (lenient.status, lenient.data["alive"], lenient.data["reboot_required"]) == (0, False, True)
    assert lenient.data["warnings"]


def test_stronger_step_that_is_not_allowed_comes_before_a_reboot(host: Host) -> None:
    host.patient.die("rescan")
    result = host.run(max_step="card_reboot")
    assert (result.status, result.data["reboot_required"]) == (1, False)
    assert [one["step"] for one in result.data["passed_over"]] == ["reload", "rescan", "bus_reset"]
    assert "max_step: card_reboot allows no more" in result.data["msg"]


def test_users(host: Host) -> None:
    host.patient.die("card_reboot")
    host.patient.use(763)
    refused = host.run()
    assert (refused.status, refused.data["changed"], refused.data["reboot_required"]) == (1, False, False)
    assert "stop_users: true" in refused.data["msg"]
    result = host.run(stop_users=True)
    assert (result.status, result.data["alive"]) == (0, True)
    assert result.data["stopped"] == [
        {"pid": 763, "name": "axllm", "path": "/dev/axcl_host", "service": "axllm.service"}
    ]


def test_wish_that_is_not_in_force_any_more(host: Host) -> None:
    host.patient.tree.file("/etc/systemd/system/edgenpu-tuning.service", "[Unit]\n")
    host.patient.wishes("irq_affinity", {"how": "single"})
    host.patient.die("reload")
    result = host.run()
    assert result.data["astray"] == ["/proc/irq/42/smp_affinity_list is 0-7 and should be 4"]
    assert any("not in force any more: /proc/irq/42" in str(warning) for warning in result.data["warnings"])


WRONG: List[Tuple[Dict[str, Any], str]] = [
    ({"cards": ["31:00.0"]}, "cards: '31:00.0' is no PCI address; write one such as 0003:31:00.0"),
    (
        {"cards": [PORT]},
        "cards: %s is another device and no AX650N; `lspci -d 1f4b:0650` tells their addresses" % PORT,
    ),
    ({"stop_timeout": 0}, "stop_timeout: 0 s is no time to end in; write 1 to 600"),
    ({"load_timeout": 5}, "load_timeout: 5 s is no limit for one card; write 10 to 3600"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG)
def test_bad_input_gets_one_sentence(host: Host, arguments: Dict[str, Any], sentence: str) -> None:
    host.patient.die("card_reboot")
    for check in (True, False):
        result = host.run(check=check, **arguments)
        assert (result.status, result.data["msg"]) == (1, sentence)
    assert host.patient.commands == []


def test_addresses_in_capitals(host: Host) -> None:
    host.patient.second_card("0001:1a:00.0")
    host.patient.die("card_reboot", "0001:1a:00.0")
    assert host.run(cards=["0001:1A:00.0"]).data["alive"] is True


def test_container(host: Host) -> None:
    host.patient.tree.file("/run/systemd/container", "lxc\n")
    result = host.run()
    assert (result.status, result.data["msg"]) == (
        1,
        "this is a container: lxc, and its cards are the host's; run this there",
    )
    assert host.patient.commands == []
