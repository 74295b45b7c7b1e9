# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import cpumask
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree


class TestRoot:
    def test_text_and_numbers(self, tree: Tree) -> None:
        tree.files("/sys", {"number": " 42", "hex": "0x1f4b", "text": "yes\0", "empty": ""})
        root = tree.root
        assert (root.number("/sys/number"), root.number("/sys/hex", 16), root.number("/sys/text")) == (42, 0x1F4B, None)
        assert (root.text("/sys/text"), root.text("/sys/empty"), root.text("/sys/none")) == ("yes", "", None)
        assert root.data("/sys/hex", 4) == b"0x1f"
        assert root.names("/sys") == ["empty", "hex", "number", "text"]
        assert root.names("/none") == []
        assert (root.exists("/sys"), root.exists("/sys/none"), root.is_live) == (True, False, False)

    def test_missing_is_not_unread(self, tree: Tree) -> None:
        tree.file("/sys/file", "x")
        assert tree.root.text("/sys/none") is None
        assert tree.root.text("/sys/file/below") is None
        assert tree.root.unread == []

    def test_unreadable_is_noted(self, tmp_path: pathlib.Path) -> None:
        root = Root("/")
        assert root.data(str(tmp_path / "missing")) is None
        assert root.data(str(tmp_path)) is None
        assert root.unread == [(str(tmp_path), "EISDIR")]

    def test_links_stay_beneath_the_root(self, tree: Tree) -> None:
        tree.file("/etc/passwd", "inside")
        tree.link("/some/where/absolute", "/etc/passwd")
        tree.link("/climbing", "../../../../../etc/passwd")
        assert tree.root.text("/some/where/absolute") == "inside"
        assert tree.root.text("/climbing") == "inside"
        assert tree.root.real("/climbing") == "/etc/passwd"

    def test_link_ring_ends(self, tree: Tree) -> None:
        tree.link("/a", "b")
        tree.link("/b", "a")
        assert tree.root.real("/a") is None
        assert tree.root.text("/a") is None

    def test_link_names(self, tree: Tree) -> None:
        tree.link("/sys/device/driver", "../../bus/drivers/there")
        tree.link("/sys/class/x", "../device")
        assert tree.root.link("/sys/class/x/driver") == "there"
        assert tree.root.link_target("/sys/class/x/driver") == "/bus/drivers/there"
        assert tree.root.link_target("/sys/device") is None
        assert tree.root.link("/none/driver") is None
        assert not tree.root.exists("/sys/device/driver")

    def test_link_target_climbs_no_further_than_the_root(self, tree: Tree) -> None:
        tree.link("/unit", "../../../dev/null")
        assert tree.root.link_target("/unit") == "/dev/null"

    def test_fifo_in_a_tree_is_not_opened(self, tree: Tree) -> None:
        os.mkfifo(str(tree.path / "fifo"))
        assert tree.root.data("/fifo") is None

    def test_live_system(self) -> None:
        root = Root()
        assert root.is_live
        assert root.text("/proc/self/comm")
        assert root.real("/proc/self") == "/proc/%d" % os.getpid()
        assert root.link_target("/proc/self") == "/proc/%d" % os.getpid()


class TestLists:
    @pytest.mark.parametrize(
        ("text", "cpus"),
        [
            ("0-3,6", (0, 1, 2, 3, 6)),
            ("0", (0,)),
            ("", ()),
            ("\n", ()),
            ("7,1", (1, 7)),
            ("0-1,1-2\n", (0, 1, 2)),
            ("0-7:1/2", (0, 2, 4, 6)),
            ("0-31:2/8", (0, 1, 8, 9, 16, 17, 24, 25)),
            ("1152-1153", (1152, 1153)),
            ("0-3, 6", (0, 1, 2, 3, 6)),
            ("0-15:4/8,20", (0, 1, 2, 3, 8, 9, 10, 11, 20)),
            ("007", (7,)),
        ],
    )
    def test_lists(self, text: str, cpus: tuple[int, ...]) -> None:
        assert cpumask.parse_list(text) == cpus

    @pytest.mark.parametrize(
        "text",
        [
            "3-1",
            "-1",
            "1-",
            "a",
            "0,,1",
            "1,",
            "(null)",
            "0-3:1",
            "0-3:0/2",
            "0-3:3/2",
            "0-99999999",
            "1_0",
            "+1",
            "0x3",
            "\u0663",
            "0 1",
        ],
    )
    def test_no_lists(self, text: str) -> None:
        assert cpumask.parse_list(text) is None

    def test_lists_with_blanks(self) -> None:
        assert cpumask.parse_blank_list("0 1 2 3 \n") == (0, 1, 2, 3)
        assert cpumask.parse_blank_list(" ") == ()
        assert cpumask.parse_blank_list("0 x") is None

    @pytest.mark.parametrize(
        ("text", "cpus"),
        [
            ("f0", (4, 5, 6, 7)),
            ("1,00000000", (32,)),
            ("00000000,00000003\n", (0, 1)),
            ("0", ()),
            ("F", (0, 1, 2, 3)),
            ("8,0,0", (67,)),
            ("00000000," * 255 + "0000000F\n", (0, 1, 2, 3)),  # a kernel for 8192 CPUs
            ("80000000," + "00000000," * 254 + "00000000", (8191,)),
            ("  ff\t", tuple(range(8))),
            ("1" + "0" * 8, (32,)),
        ],
    )
    def test_masks(self, text: str, cpus: tuple[int, ...]) -> None:
        assert cpumask.parse_mask(text) == cpus

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "g",
            "0x3",
            "0X3",
            "f,",
            ",1",
            "1,,1",
            "1,123456789",
            "-1",
            "1 1",
            "1_1",
            "1," * 3000 + "1",
        ],
    )
    def test_no_masks(self, text: str) -> None:
        assert cpumask.parse_mask(text) is None

    def test_shortest_form(self) -> None:
        assert cpumask.format_list([7, 4, 5, 6, 0, 6]) == "0,4-7"
        assert cpumask.format_list([]) == ""
