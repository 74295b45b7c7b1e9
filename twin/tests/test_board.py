# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The board's description: what it says about the CM3588, and what it must refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from twin.board import BOARDS, FUNCTION_BYTES, BoardError, load, load_named


def _changed(tmp_path: Path, **changes: object) -> Path:
    data = yaml.safe_load((BOARDS / "cm3588.yml").read_text(encoding="utf-8"))
    data.update(changes)
    path = tmp_path / "board.yml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_cm3588_has_its_card_in_domain_three() -> None:
    board = load_named("cm3588")
    controller = board.outside_endpoint
    assert controller is not None
    assert (controller.address, controller.port_bdf, controller.endpoint_bdf) == (
        0xFE180000,
        "0003:30:00.0",
        "0003:31:00.0",
    )
    assert board.cpu_count == 8


def test_registers_lie_in_hidden_ram_and_do_not_overlap() -> None:
    board = load_named("cm3588")
    end = board.hidden_base
    for controller in board.controllers:
        assert controller.config_base >= end
        end = controller.config_base + controller.config_bytes
    assert end <= board.hidden_base + board.hidden_bytes
    assert board.machine_memory_mb << 20 == (board.memory_mb << 20) + board.hidden_bytes


def test_functions_are_found_by_address() -> None:
    board = load_named("cm3588")
    controller, port = board.function_at("0003:30:00.0")
    assert board.function_at("0003:31:00.0") == (controller, port + FUNCTION_BYTES)
    with pytest.raises(KeyError):
        board.function_at("0002:21:00.0")


def test_unknown_board_names_the_known_ones() -> None:
    with pytest.raises(BoardError, match="cm3588"):
        load_named("cm9999")


def test_a_cpu_in_two_clusters_is_refused(tmp_path: Path) -> None:
    data = yaml.safe_load((BOARDS / "cm3588.yml").read_text(encoding="utf-8"))
    data["clusters"][1]["cpus"] = [3, 5]
    with pytest.raises(BoardError, match="every CPU"):
        load(_changed(tmp_path, clusters=data["clusters"]))


def test_two_controllers_of_one_domain_are_refused(tmp_path: Path) -> None:
    data = yaml.safe_load((BOARDS / "cm3588.yml").read_text(encoding="utf-8"))
    data["controllers"][1]["domain"] = 0
    with pytest.raises(BoardError, match="share a PCI domain"):
        load(_changed(tmp_path, controllers=data["controllers"]))


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="TypeError"):
        load(_changed(tmp_path, clusters=None))
