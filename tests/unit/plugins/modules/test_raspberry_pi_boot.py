# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, Dict

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger
from ansible_collections.edgenpu.tuning.plugins.modules import raspberry_pi_boot
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import pis
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree
from ansible_collections.edgenpu.tuning.tests.unit.plugins.modules.running import Modules, Result

COMPAT = "dtoverlay=pciex1-compat-pi5,no-mip"


class Box:
    """A Raspberry Pi that the module runs on."""

    def __init__(self, modules: Modules, pi: pis.Pi) -> None:
        self.pi = pi
        self._modules = modules

    def run(self, check: bool = False, **arguments: Any) -> Result:
        """Run the module; the board of the fixture is another one."""
        self._modules.board = self.pi  # type: ignore[assignment]
        return self._modules.run(raspberry_pi_boot, check, **arguments)

    def lines(self, **arguments: Any) -> list[str]:
        """Run the module and return the settings in its block."""
        result = self.run(**arguments)
        assert result.status == 0, result.data["msg"]
        added = (self.pi.content or b"").partition(b"# BEGIN edgenpu.tuning")[2].splitlines()[2:-1]
        return [line.decode() for line in added]


@pytest.fixture
def box(modules: Modules, tmp_path: pathlib.Path) -> Box:
    (tmp_path / "pi").mkdir()
    return Box(modules, pis.Pi(Tree(tmp_path / "pi")))


def test_slot_is_switched_on(box: Box) -> None:
    result = box.run()
    assert (result.status, result.data["changed"]) == (0, True)
    assert result.data["msg"] == "/boot/firmware/config.txt was changed"
    assert box.pi.content == pis.RASPBERRY_PI_OS + (
        b"# BEGIN edgenpu.tuning: change the variables of its role, not these lines\n"
        b"[all]\ndtparam=pciex1\n# END edgenpu.tuning\n"
    )
    assert result.data["settings"] == {
        "pcie": {"value": True, "certain": True, "file": pis.CONFIG, "line": "dtparam=pciex1"}
    }
    assert result.data["running"] == {"pcie": False, "generation": 2, "no_mip": False, "dma_32bit": False}
    assert (result.data["bootloader_date"], result.data["page_size"]) == ("2025-05-08", 16384)
    assert (result.data["config"], result.data["supply_ma"]) == (pis.CONFIG, 5000)
    assert result.data["reboot_required"] is True
    assert result.data["reboot_reason"] == (
        "dtparam=pciex1 (/boot/firmware/config.txt), but until a reboot its PCIe slot is off"
    )
    [change] = result.data["changes"]
    assert (change["path"], change["why"]) == (pis.CONFIG, "dtparam=pciex1: the PCIe slot is switched on")
    [shown] = result.data["diff"]
    assert shown["after"] == shown["before"] + (box.pi.content or b"")[len(pis.RASPBERRY_PI_OS) :].decode()


def test_second_run_changes_nothing_and_still_wants_the_reboot(box: Box) -> None:
    box.run(generation=3, compat_overlay="always", dma_32bit=True, kernel_4k_pages=True)
    before = box.pi.content
    again = box.run(generation=3, compat_overlay="always", dma_32bit=True, kernel_4k_pages=True)
    assert (again.data["changed"], again.data["msg"]) == (False, "config.txt needs no change")
    assert (box.pi.content, again.data["reboot_required"], again.data["diff"]) == (before, True, [])
    box.pi.boots(pcie=True, generation=3, no_mip=True, dma_32bit=True)
    assert "pages have 16 KiB" in box.run(generation=3, kernel_4k_pages=True, dma_32bit=True).data["reboot_reason"]
    box.pi.pages(4096)
    booted = box.run(generation=3, compat_overlay="always", dma_32bit=True, kernel_4k_pages=True)
    assert (booted.data["changed"], booted.data["reboot_required"]) == (False, False)
    assert booted.data["reboot_reason"] is None
    assert box.pi.content == before


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"generation": 3, "dma_32bit": True, "kernel_4k_pages": True, "compat_overlay": "always"},
        {"state": "absent"},
    ],
)
@pytest.mark.parametrize("made", [True, False])
def test_check_mode_predicts(box: Box, made: bool, arguments: Dict[str, Any]) -> None:
    if made:
        box.run(driver="3.6.4")
    before = box.pi.content
    predicted = box.run(check=True, **arguments)
    assert box.pi.content == before
    done = box.run(**arguments)
    assert predicted.data.pop("msg").replace("would be", "was") == done.data.pop("msg")
    assert [data.pop("invocation", None) and None for data in (predicted.data, done.data)] == [None, None]
    assert predicted.data == done.data


def test_check_mode_needs_no_root(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert box.run(check=True).data["changed"] is True
    status, data = box.run()
    assert (status, data["msg"]) == (1, "user id 1000 may not write config.txt; run as root (become: true)")


@pytest.mark.parametrize(
    "said",
    [
        b"dtparam=pciex1\n",
        b"dtparam=pciex1=on\r\n",
        b"dtparam=nvme\n",
        b"[pi5]\ndtparam=audio=on,pciex1",
        b"[cm4]\ndtparam=pciex1=off\n[pi5]\ndtparam=nvme=on\n",
    ],
)
def test_what_is_in_force_is_left_alone(box: Box, said: bytes) -> None:
    box.pi.write(said)
    result = box.run()
    assert (result.data["changed"], box.pi.content) == (False, said)
    assert Ledger(box.pi.kernel).entries() == []


def test_a_line_for_another_board_or_a_doubtful_one_is_not_enough(box: Box) -> None:
    for said in (b"[cm5]\ndtparam=pciex1\n", b"[gpio4=1]\ndtparam=pciex1\n", b"include pcie.txt\n"):
        box.pi.write(said)
        assert box.lines() == ["dtparam=pciex1"]


def test_only_what_is_missing_is_added(box: Box) -> None:
    box.pi.write(b"[all]\ndtparam=pciex1\n")
    assert box.lines(generation=3) == ["dtparam=pciex1_gen=3"]
    assert box.lines(generation=2) == []
    assert box.pi.content == b"[all]\ndtparam=pciex1\n"
    box.pi.write(b"[all]\ndtparam=pciex1,pciex1_gen=3\n")
    assert box.lines(generation=2) == ["dtparam=pciex1_gen=2"]
    assert box.lines(generation=3) == []


def test_generation_3_only_if_asked_for(box: Box) -> None:
    assert box.lines() == ["dtparam=pciex1"]
    result = box.run(generation=3)
    assert "not certified for this board" in result.data["changes"][0]["why"]
    status, data = box.run(generation=4)
    assert (status, "value of generation must be one of: 2, 3" in data["msg"]) == (1, True)


class TestOverlay:
    def test_not_for_a_driver_that_is_content_with_one_msi(self, box: Box) -> None:
        assert box.lines(driver="3.10.2") == ["dtparam=pciex1"]
        assert box.lines(driver="axcl_host_aarch64_V3.16.0.deb") == ["dtparam=pciex1"]
        assert box.lines() == ["dtparam=pciex1"]

    @pytest.mark.parametrize(
        "driver", ["3.6.4", "3.6.5-m5stack1", "axcl_host_aarch64_V3.6.4_20250822020158_NO4873.deb"]
    )
    def test_for_one_that_wants_several(self, box: Box, driver: str) -> None:
        assert box.lines(driver=driver) == ["dtparam=pciex1", COMPAT]

    def test_the_installed_driver_counts(self, box: Box) -> None:
        record = {"schema": 1, "sha256": "0", "package": "axclhost", "sdk": "3.6.4", "held": False}
        box.pi.tree.file("/var/lib/edgenpu-tuning/axcl_driver.json", json.dumps(record))
        assert box.lines() == ["dtparam=pciex1", COMPAT]
        assert box.lines(driver="3.10.2") == ["dtparam=pciex1", COMPAT], "it is there, and nothing says that it hurts"
        assert box.lines(driver="3.10.2", compat_overlay="never") == ["dtparam=pciex1"]

    def test_for_a_card_without_msi(self, box: Box) -> None:
        box.pi.boots(pcie=True)
        box.pi.card(msi=False)
        result = box.run()
        assert "0001:01:00.0 has its driver, but no MSI" in result.data["changes"][0]["why"]
        assert box.lines() == ["dtparam=pciex1", COMPAT]

    def test_not_where_the_card_has_its_msi_from_the_mip(self, box: Box) -> None:
        box.pi.boots(pcie=True)
        box.pi.card()
        assert box.lines(driver="3.6.4") == ["dtparam=pciex1"]

    def test_not_for_a_card_that_has_no_driver_yet(self, box: Box) -> None:
        box.pi.boots(pcie=True)
        box.pi.card(driver=None, msi=False)
        assert box.lines() == ["dtparam=pciex1"]

    def test_it_stays_once_the_card_works_with_it(self, box: Box) -> None:
        box.pi.boots(pcie=True)
        box.pi.card(msi=False)
        box.run()
        box.pi.boots(pcie=True, no_mip=True)
        box.pi.tree.file("/sys/bus/pci/devices/0001:01:00.0/msi_irqs/38", "msi\n")
        result = box.run()
        assert (result.data["changed"], result.data["reboot_required"]) == (False, False)

    def test_it_goes_only_if_asked_for(self, box: Box) -> None:
        assert box.lines(compat_overlay="always") == ["dtparam=pciex1", COMPAT]
        box.pi.boots(pcie=True, no_mip=True)
        result = box.run(compat_overlay="never")
        assert result.data["reboot_reason"] == (
            COMPAT + " is taken out, but until a reboot the slot's own interrupt controller serves it: yes"
        )

    def test_the_user_s_own_is_left(self, box: Box) -> None:
        said = b"dtparam=pciex1\ndtoverlay=pciex1-compat-pi5\ndtparam=no-mip\n"
        box.pi.write(said)
        box.run(compat_overlay="always")
        box.run(compat_overlay="never")
        assert box.pi.content == said

    def test_driver_without_a_version(self, box: Box) -> None:
        """That the installed one is old says nothing of the next."""
        record = {"schema": 1, "sha256": "0", "package": "axclhost", "sdk": "3.6.4", "held": False}
        box.pi.tree.file("/var/lib/edgenpu-tuning/axcl_driver.json", json.dumps(record))
        assert box.lines(driver="axclhost.deb") == ["dtparam=pciex1"]


class TestAbsent:
    def test_byte_for_byte(self, box: Box) -> None:
        for original in (pis.RASPBERRY_PI_OS, pis.UBUNTU, b"\xff\xfe[all\r\n[pi4]", b"", b"a\r\nb"):
            box.pi.write(original)
            box.run(generation=3)
            result = box.run(state="absent")
            assert (result.status, result.data["changed"], box.pi.content) == (0, True, original)
            assert box.run(state="absent").data["msg"] == "nothing of ours was in config.txt"
            assert Ledger(box.pi.kernel).entries() == []

    def test_what_the_user_wrote_since_stays(self, box: Box) -> None:
        box.run()
        box.pi.write((box.pi.content or b"").replace(b"audio=on", b"audio=off") + b"dtparam=spi=on\n")
        box.run(state="absent")
        assert box.pi.content == pis.RASPBERRY_PI_OS.replace(b"audio=on", b"audio=off") + b"dtparam=spi=on\n"

    def test_the_running_boot_still_has_it(self, box: Box) -> None:
        box.run()
        box.pi.boots(pcie=True)
        result = box.run(state="absent")
        assert (result.data["reboot_required"], result.data["settings"]) == (True, {})
        assert result.data["reboot_reason"] == "dtparam=pciex1 is taken out, but until a reboot its PCIe slot is on"

    def test_what_cannot_be_given_back_fails(self, box: Box) -> None:
        box.run()
        broken = (box.pi.content or b"").replace(b"# END edgenpu.tuning\n", b"")
        box.pi.write(broken)
        status, data = box.run(state="absent")
        assert (status, box.pi.content) == (1, broken)
        assert data["msg"].startswith(
            "not given back: /boot/firmware/config.txt: its marks of edgenpu.tuning (line 23)"
        )

    def test_where_the_ledger_was_lost(self, box: Box) -> None:
        box.run()
        (box.pi.tree.path / "var/lib/edgenpu-tuning/ledger.json").unlink()
        assert box.run(state="absent").data["changed"] is True
        assert box.pi.content == pis.RASPBERRY_PI_OS
        assert Ledger(box.pi.kernel).entries() == []

    def test_what_is_recorded_is_the_user_s(self, box: Box) -> None:
        """Not the file with a block in it that an earlier run had put there."""
        box.run()
        (box.pi.tree.path / "var/lib/edgenpu-tuning/ledger.json").unlink()
        box.run(generation=3)
        (box.pi.tree.path / "boot/firmware/config.txt").unlink()
        box.run(state="absent")
        assert box.pi.content == pis.RASPBERRY_PI_OS

    def test_nothing_of_ours_anywhere(self, box: Box) -> None:
        result = box.run(state="absent")
        assert (result.data["changed"], box.pi.content) == (False, pis.RASPBERRY_PI_OS)


class TestBlockThatSomebodyElseTouched:
    def test_contradicted_below_it_moves_to_the_end(self, box: Box) -> None:
        box.run()
        box.pi.write((box.pi.content or b"") + b"dtparam=pciex1=off\n")
        assert box.run().data["changed"] is True
        assert (box.pi.content or b"").startswith(pis.RASPBERRY_PI_OS + b"dtparam=pciex1=off\n# BEGIN")
        assert box.run().data["changed"] is False

    def test_not_contradicted_it_stays_in_its_place(self, box: Box) -> None:
        box.run()
        written = (box.pi.content or b"") + b"dtparam=spi=on\n"
        box.pi.write(written)
        assert (box.run().data["changed"], box.pi.content) == (False, written)

    def test_a_line_changed_in_it_is_put_right(self, box: Box) -> None:
        box.run()
        made = box.pi.content
        box.pi.write((made or b"").replace(b"dtparam=pciex1", b"dtparam=pciex1=off"))
        assert (box.run().data["changed"], box.pi.content) == (True, made)

    def test_damaged_marks(self, box: Box) -> None:
        box.run()
        broken = (box.pi.content or b"").replace(b"# BEGIN edgenpu.tuning", b"# BEGIN")
        box.pi.write(broken)
        status, data = box.run()
        assert (status, box.pi.content) == (1, broken)
        assert data["msg"].startswith("/boot/firmware/config.txt: its marks of edgenpu.tuning (line 26) are no longer")

    def test_gone_with_the_file_it_comes_back(self, box: Box) -> None:
        """As after a power cut while it was written."""
        box.run()
        made = box.pi.content
        (box.pi.tree.path / "boot/firmware/config.txt").unlink()
        assert box.run(check=True).data["changed"] is True
        assert (box.run().data["changed"], box.pi.content) == (True, made)
        (box.pi.tree.path / "boot/firmware/config.txt").unlink()
        assert box.lines(compat_overlay="always") == ["dtparam=pciex1", COMPAT]
        box.run(state="absent")
        assert box.pi.content == pis.RASPBERRY_PI_OS


class TestBoards:
    def test_no_raspberry_pi(self, modules: Modules) -> None:
        for state in ("present", "absent"):
            result = modules.run(raspberry_pi_boot, state=state)
            assert (result.status, result.data["changed"], result.data["reboot_required"]) == (0, False, False)
            assert result.data["msg"] == "FriendlyElec CM3588 NAS is no Raspberry Pi, so there is nothing to set"
            assert result.data["config"] is None

    @pytest.mark.parametrize(
        ("compatible", "model"),
        [
            (pis.PI4, "Raspberry Pi 4 Model B Rev 1.4"),
            (b"raspberrypi,4-compute-module\0brcm,bcm2711\0", "Raspberry Pi Compute Module 4 Rev 1.0"),
            (b"raspberrypi,3-model-b\0brcm,bcm2837\0", "Raspberry Pi 3 Model B Rev 1.2"),
        ],
    )
    def test_without_the_slot(self, modules: Modules, tmp_path: pathlib.Path, compatible: bytes, model: str) -> None:
        (tmp_path / "other").mkdir()
        box = Box(modules, pis.Pi(Tree(tmp_path / "other"), compatible, model))
        status, data = box.run()
        assert (status, box.pi.content) == (1, pis.RASPBERRY_PI_OS)
        assert data["msg"].startswith(model + " has no PCIe slot that config.txt could switch on")
        assert box.run(state="absent").status == 0

    def test_compute_module_5(self, modules: Modules, tmp_path: pathlib.Path) -> None:
        (tmp_path / "other").mkdir()
        box = Box(modules, pis.Pi(Tree(tmp_path / "other"), pis.CM5, "Raspberry Pi Compute Module 5 Rev 1.0"))
        box.pi.write(b"[cm5]\ndtparam=pciex1\n")
        assert box.run().data["changed"] is False

    def test_booted_with_a_foreign_device_tree(self, box: Box) -> None:
        (box.pi.tree.path / "proc/device-tree/axi").rename(box.pi.tree.path / "proc/device-tree/other")
        status, data = box.run()
        assert (status, "the device tree that it was booted with does not know it" in data["msg"]) == (1, True)

    def test_old_boot_loader_is_told_of(self, box: Box) -> None:
        box.pi.tree.file("/proc/device-tree/chosen/bootloader/build-timestamp", pis.cell(pis.OLD))
        result = box.run()
        assert (result.status, result.data["bootloader_date"]) == (0, "2023-09-28")
        assert (
            "the boot loader in the EEPROM is of 2023-09-28, and cards need one of 2023-12-06 or later; run "
            "`rpi-eeprom-update -a` and reboot"
        ) in str(result.data["warnings"])


class TestBootPartition:
    """Each trouble in one sentence, the same in check mode, and nothing is changed."""

    def refused(self, box: Box, **arguments: Any) -> str:
        before = box.pi.content
        checked, done = box.run(check=True, **arguments), box.run(**arguments)
        assert (checked.status, done.status, box.pi.content) == (1, 1, before)
        assert checked.data["msg"] == done.data["msg"]
        assert Ledger(box.pi.kernel).entries() == []
        return str(done.data["msg"])

    def test_not_mounted(self, box: Box) -> None:
        (box.pi.tree.path / "boot/firmware/config.txt").unlink()
        assert self.refused(box) == (
            "config.txt is neither in /boot/firmware nor in /boot; mount the boot partition and run again"
        )

    def test_mounted_read_only(self, box: Box) -> None:
        box.pi.tree.file("/proc/self/mounts", "/dev/mmcblk0p1 /boot/firmware vfat ro 0 0\n")
        assert "is on a partition that is mounted read-only; mount it to be written to" in self.refused(box)

    def test_unreadable(self, box: Box) -> None:
        path = box.pi.tree.path / "boot/firmware/config.txt"
        path.unlink()
        path.mkdir()
        (path / "x").touch()
        assert self.refused(box).startswith("/boot/firmware/config.txt cannot be read; run as root (become: true)")

    def test_full(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        class Full:
            f_bavail, f_frsize = 0, 4096

        monkeypatch.setattr(os, "statvfs", lambda path: Full())
        assert "has 0 bytes free, and" in self.refused(box)

    @pytest.mark.parametrize(
        ("gone", "arguments"),
        [
            ("kernel8.img", {"kernel_4k_pages": True}),
            ("overlays/pciex1-compat-pi5.dtbo", {"compat_overlay": "always"}),
            ("overlays/pcie-32bit-dma-pi5.dtbo", {"dma_32bit": True}),
        ],
    )
    def test_a_file_that_is_not_there_is_not_named(self, box: Box, gone: str, arguments: Dict[str, Any]) -> None:
        (box.pi.tree.path / "boot/firmware" / gone).unlink()
        assert "is not on the boot partition beside /boot/firmware/config.txt" in self.refused(box, **arguments)
        assert box.lines() == ["dtparam=pciex1"]

    def test_another_kernel_is_the_user_s(self, box: Box) -> None:
        box.pi.write(pis.UBUNTU)
        assert "boots the kernel vmlinuz (kernel=vmlinuz), so nothing was changed" in self.refused(
            box, kernel_4k_pages=True
        )
        box.pi.pages(4096)
        assert box.lines(kernel_4k_pages=True) == ["dtparam=pciex1"]


def test_4k_pages(box: Box) -> None:
    assert box.lines(kernel_4k_pages=True) == ["dtparam=pciex1", "kernel=kernel8.img"]
    box.pi.boots(pcie=True)
    box.pi.pages(4096)
    assert box.run(kernel_4k_pages=True).data["changed"] is False
    result = box.run(kernel_4k_pages=False)
    assert result.data["reboot_reason"] == "kernel=kernel8.img is taken out, but until a reboot pages have 4 KiB"
