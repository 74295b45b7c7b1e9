# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any, Dict, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import read_host
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.raspberry_pi import (
    Models,
    RaspberryPi,
    Running,
    parse_config,
    read_raspberry_pi,
)
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import pis
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.hosts import STEADY
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

PI5 = Models(frozenset({"pi5"}), 0x17)
CM5 = Models(frozenset({"pi5", "cm5"}), 0x18)
MAYBE = "?"  # in expectations: set, but not for certain


def settings(text: str, models: Models = PI5, **files: str) -> Dict[str, Any]:
    """Return the values that a config.txt sets; those that are not certain behind a question mark."""
    inner = {name.replace("_", "."): content.encode() for name, content in files.items()}
    found = parse_config("config.txt", text.encode(), models, inner.get)
    return {key: one.value if one.certain else (MAYBE, one.value) for key, one in found.items()}


@pytest.mark.parametrize(
    "line",
    [
        "dtparam=pciex1",
        "dtparam=pciex1=on",
        "dtparam=pciex1=okay",
        "dtparam=nvme",
        "dtparam=nvme=on",
        "dtparam=audio=on,pciex1",
        "dtparam=pciex1\r",
        "  dtparam=pciex1  ",
        "device_tree_param=pciex1",
        "dtoverlay=vc4-kms-v3d\ndtparam=pciex1",
        "dtparam=%spciex1,xxx" % ("audio=on," * 9),
        "dtparam=pciex1=off\ndtparam=pciex1",
        "[pi4]\n[all]\ndtparam=pciex1",
        "[pi4]\n[pi5]\ndtparam=pciex1",
        "[board-type=0x17]\ndtparam=pciex1",
        "[board-type=23]\ndtparam=pciex1",
        "dtparam=pciex1\n[gpio4=1]\ndtparam=pciex1=on",
    ],
)
def test_slot_is_on_in_any_spelling(line: str) -> None:
    assert settings(line)["pcie"] is True


@pytest.mark.parametrize(
    "line",
    ["dtparam=pciex1=off", "dtparam=nvme=disabled", "dtparam=pciex1\ndtparam=nvme=0"],
)
def test_slot_is_off(line: str) -> None:
    assert settings(line)["pcie"] is False


@pytest.mark.parametrize(
    "line",
    [
        "",
        "#dtparam=pciex1",
        "  # dtparam=pciex1",
        "dtparam=pciex10",
        "dtparam=pcie",
        "DTPARAM=pciex1",
        "dtparam",
        "[pi4]\ndtparam=pciex1",
        "[cm5]\ndtparam=pciex1",
        "[pi4]\n[gpio4=1]\ndtparam=pciex1",
        "[none]\ndtparam=pciex1",
        "[board-type=0x18]\ndtparam=pciex1",
        "dtparam=" + "audio=on," * 10 + "pciex1",  # beyond the 98th character nothing is read
    ],
)
def test_nothing_is_said_of_the_slot(line: str) -> None:
    assert "pcie" not in settings(line)


@pytest.mark.parametrize(
    "line",
    [
        "[gpio4=1]\ndtparam=pciex1",
        "[0x12345678]\ndtparam=pciex1",
        "[EDID=VSC-TD2220]\ndtparam=pciex1",
        "[tryboot]\ndtparam=pciex1",
        "[gpio4=1]\n[pi5]\ndtparam=pciex1",
        "[none]\n[pi5]\ndtparam=pciex1",
        "[pi4\ndtparam=pciex1",
        "[pi500]\ndtparam=pciex1",  # another board's name that begins as ours does: may be ours, too
        "[ALL]\ndtparam=pciex1",
        "dtparam=pciex1 # with a remark",
        "dtparam = pciex1",
    ],
)
def test_what_cannot_be_seen_is_not_certain(line: str) -> None:
    assert settings(line)["pcie"] == (MAYBE, True)


def test_a_doubtful_line_makes_a_certain_one_doubtful() -> None:
    assert settings("dtparam=pciex1\n[gpio4=1]\ndtparam=pciex1=off")["pcie"] == (MAYBE, False)
    assert settings("dtparam=pciex1\n[gpio4=1]\ndtparam=pciex1=off\n[all]\ndtparam=pciex1")["pcie"] is True


def test_value_that_is_none() -> None:
    assert settings("dtparam=pciex1=maybe")["pcie"] is None
    assert settings("dtparam=pciex1_gen=fast")["generation"] is None


@pytest.mark.parametrize(("text", "expected"), [("3", 3), ("2", 2), ("0x3", 3)])
def test_generation(text: str, expected: int) -> None:
    assert settings("dtparam=pciex1,pciex1_gen=" + text) == {"pcie": True, "generation": expected}


def test_filters_of_a_compute_module() -> None:
    assert settings("[cm5]\ndtparam=pciex1\n[pi5]\ndtparam=pciex1_gen=3", CM5) == {"pcie": True, "generation": 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dtoverlay=pciex1-compat-pi5,no-mip", {"no_mip": True}),
        ("dtoverlay=pciex1-compat-pi5,l1ss,no-mip=on,mmio-hi", {"no_mip": True}),
        ("dtoverlay=pciex1-compat-pi5\ndtparam=no-mip", {"no_mip": True}),
        ("dtoverlay=pciex1-compat-pi5\ndtparam=l1ss,no-mip", {"no_mip": True}),
        ("dtoverlay=pciex1-compat-pi5:no-mip", {"no_mip": True}),
        ("dtoverlay=pciex1-compat-pi5,no-mip=off", {}),
        ("dtoverlay=pciex1-compat-pi5,l1ss", {}),
        ("dtoverlay=pciex1-compat-pi5\ndtoverlay=\ndtparam=no-mip", {}),
        ("dtoverlay=pciex1-compat-pi5\ndtoverlay=vc4-kms-v3d,no-mip", {}),
        ("dtparam=no-mip", {}),
        ("[pi4]\ndtoverlay=pciex1-compat-pi5\n[all]\ndtparam=no-mip", {}),
        ("[gpio2=0]\ndtoverlay=pciex1-compat-pi5\n[all]\ndtparam=no-mip", {"no_mip": (MAYBE, True)}),
        ("dtoverlay=pcie-32bit-dma-pi5", {"dma_32bit": True}),
        ("dtoverlay=pcie-32bit-dma", {"dma_32bit": True}),
        ("device_tree_overlay=pcie-32bit-dma", {"dma_32bit": True}),
        ("kernel=kernel8.img", {"kernel": "kernel8.img"}),
        ("kernel=a.img\nkernel=kernel8.img\n[pi4]\nkernel=b.img", {"kernel": "kernel8.img"}),
        ("os_prefix=current/", {"os_prefix": "current/"}),
    ],
)
def test_overlays_and_kernels(text: str, expected: Dict[str, Any]) -> None:
    assert settings(text) == expected


def test_included_files() -> None:
    """They may hold, and what is in force below them is known again after [all]."""
    included = settings("include more.txt\n", more_txt="dtparam=pciex1\n[pi4]\nkernel=x\n")
    assert included == {"pcie": (MAYBE, True)}
    assert settings("include more.txt\ndtparam=pciex1\n", more_txt="[pi4]\n") == {}
    assert settings("include more.txt\n[all]\ndtparam=pciex1\n", more_txt="[pi4]\n") == {"pcie": True}
    assert settings("[pi4]\ninclude more.txt\n", more_txt="dtparam=pciex1\n") == {}
    assert settings("include none.txt\ndtparam=pciex1") == {"pcie": True}
    assert settings("dtparam=pciex1\ninclude config.txt\n", config_txt="include config.txt\n") == {"pcie": True}


def test_files_that_include_each_other_come_to_an_end() -> None:
    asked = []

    def read(name: str) -> bytes:
        asked.append(name)
        return b"include x\n" * 8

    assert parse_config("config.txt", read("config.txt"), PI5, read) == {}
    assert len(asked) <= 33


def test_where_it_was_said() -> None:
    found = parse_config("config.txt", b"\xff\xfe\ndtparam=pciex1 \r\n", PI5)
    assert found["pcie"] == (True, True, "config.txt", "dtparam=pciex1")


LINES = st.sampled_from(
    [
        *("[all]", "[pi4]", "[pi5]", "[none]", "[gpio1=1]", "[broken", "[", "]", "", "#", "=", "include x", "dtparam="),
        *("dtparam=pciex1", "dtparam=pciex1=off", "dtoverlay=pciex1-compat-pi5,no-mip", "dtparam=no-mip"),
        "kernel=kernel8.img",
    ]
)


@STEADY
@given(st.lists(LINES | st.text(max_size=120)))
def test_any_file_can_be_read(lines: list[str]) -> None:
    text = "\n".join(lines)
    found = parse_config("c", text.encode("utf-8", "surrogatepass"), PI5, lambda name: text.encode("utf-8", "replace"))
    assert set(found) <= {"pcie", "generation", "no_mip", "dma_32bit", "kernel", "os_prefix", "overlay_prefix"}


@STEADY
@given(st.lists(LINES))
def test_the_last_line_below_all_wins(lines: list[str]) -> None:
    assert settings("\n".join([*lines, "[all]", "dtparam=pciex1"]))["pcie"] is True


def look(pi: pis.Pi) -> Optional[RaspberryPi]:
    return read_raspberry_pi(pi.root, read_host(pi.root))


def seen(pi: pis.Pi) -> RaspberryPi:
    found = look(pi)
    assert found is not None
    return found


def test_pi_5(tree: Tree) -> None:
    pi = seen(pis.Pi(tree))
    assert (pi.model, pi.has_port, pi.config) == ("Raspberry Pi 5 Model B Rev 1.0", True, pis.CONFIG)
    assert pi.models == PI5
    assert pi.content == pis.RASPBERRY_PI_OS
    assert pi.settings == {}
    assert pi.running == Running(False, 2, False, False)
    assert pi.files == {"kernel8.img", "pciex1-compat-pi5", "pcie-32bit-dma-pi5"}
    assert (pi.bootloader_date, pi.supply_ma, pi.page_size, pi.read_only) == ("2025-05-08", 5000, 16384, False)


def test_what_the_boot_was_given(tree: Tree) -> None:
    pi = pis.Pi(tree)
    pi.boots(pcie=True, generation=3, no_mip=True, dma_32bit=True)
    assert seen(pi).running == Running(True, 3, True, True)


def test_older_kernels_name_the_port_otherwise(tree: Tree) -> None:
    pi = pis.Pi(tree)
    (tree.path / "proc/device-tree/__symbols__/pciex1").unlink()
    (tree.path / "proc/device-tree/axi/pcie@1000110000").rename(tree.path / "proc/device-tree/axi/pcie@110000")
    assert seen(pi).running == Running(False, 2, False, False)


def test_nothing_but_names(tree: Tree) -> None:
    """A captured tree may lack the rest: unknown is None."""
    tree.file("/proc/device-tree/compatible", pis.PI5)
    pi = read_raspberry_pi(tree.root, read_host(tree.root))
    assert pi is not None
    assert (pi.config, pi.content, pi.bootloader_date, pi.supply_ma, pi.has_port) == (None, None, None, None, False)
    assert (pi.running, pi.read_only, pi.models.board_type) == (Running(None, None, None, None), None, None)


def test_compute_module_5(tree: Tree) -> None:
    pi = pis.Pi(tree, pis.CM5)
    tree.file("/proc/device-tree/system/linux,revision", pis.cell(0xC04180))
    assert seen(pi).models == CM5


def test_pi_4(tree: Tree) -> None:
    pi = seen(pis.Pi(tree, pis.PI4, "Raspberry Pi 4 Model B Rev 1.4"))
    assert (pi.has_port, pi.models.names) == (False, frozenset())


def test_another_board(tree: Tree) -> None:
    assert look(pis.Pi(tree, b"friendlyelec,cm3588-nas\0rockchip,rk3588\0")) is None


def test_mounted_read_only(tree: Tree) -> None:
    pi = pis.Pi(tree)
    tree.file("/proc/self/mounts", "/dev/mmcblk0p1 /boot/firmware vfat ro,relatime 0 0\n")
    assert seen(pi).read_only is True


def test_older_system(tree: Tree) -> None:
    pi = pis.Pi(tree)
    (tree.path / "boot/firmware/config.txt").rename(tree.path / "boot/config.txt")
    assert seen(pi).config == "/boot/config.txt"


@pytest.mark.parametrize("link", [True, False])
def test_boot_partition_not_mounted(tree: Tree, link: bool) -> None:
    pi = pis.Pi(tree)
    (tree.path / "boot/firmware/config.txt").unlink()
    if link:
        tree.link("/boot/config.txt", "firmware/config.txt")
    else:
        tree.file("/boot/config.txt", "DO NOT EDIT\n\nThe file has moved to /boot/firmware/config.txt\n")
    assert seen(pi).config is None


def test_files_below_a_prefix(tree: Tree) -> None:
    pi = pis.Pi(tree)
    (tree.path / "boot/firmware/kernel8.img").unlink()
    (tree.path / "boot/firmware/overlays").rename(tree.path / "boot/firmware/mine")
    assert seen(pi).files == set()
    pi.write(b"os_prefix=current/\noverlay_prefix=mine/\n")
    assert seen(pi).files == {"pciex1-compat-pi5", "pcie-32bit-dma-pi5"}
    tree.file("/boot/firmware/current/kernel8.img")
    assert "kernel8.img" in seen(pi).files


def test_included_file_is_found_beside_it(tree: Tree) -> None:
    pi = pis.Pi(tree)
    pi.write(b"include more.txt\ninclude ../../etc/passwd\n")
    tree.file("/boot/firmware/more.txt", "dtparam=pciex1\n")
    tree.file("/etc/passwd", "kernel=x\n")
    found = seen(pi).settings
    assert set(found) == {"pcie"}
    assert found["pcie"].certain is False
