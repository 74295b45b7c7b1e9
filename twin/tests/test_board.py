# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The board's description: what it says about the CM3588, and what it must refuse."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from twin.board import BOARDS, FUNCTION_BYTES, BoardError, Kind, described, files, load, load_named, names


def _described(name: str) -> dict[str, Any]:
    """A board's own data with what it is based on, to be changed."""
    return copy.deepcopy(dict(described(BOARDS / f"{name}.yml")))


def _written(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "board.yml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def _changed(tmp_path: Path, **changes: object) -> Path:
    return _written(tmp_path, {**_described("cm3588"), **changes})


def test_cm3588_has_its_card_in_domain_three() -> None:
    board = load_named("cm3588")
    card = board.outside_endpoint
    assert card is not None
    assert (card.bdf, card.parent) == ("0003:31:00.0", "0003:30:00.0")
    assert [c.address for c in board.controllers if card in c.functions] == [0xFE180000]
    assert board.cpu_count == 8


@pytest.mark.parametrize("name", names())
def test_registers_lie_in_hidden_ram_and_do_not_overlap(name: str) -> None:
    board = load_named(name)
    end = board.hidden_base
    for controller in board.controllers:
        assert controller.config_base >= end
        end = controller.config_base + controller.config_bytes
    assert end <= board.hidden_base + board.hidden_bytes
    assert board.machine_memory_mb << 20 == (board.memory_mb << 20) + board.hidden_bytes


def test_functions_are_found_by_address() -> None:
    board = load_named("cm3588")
    port = board.function_at("0003:30:00.0")
    card = board.function_at("0003:31:00.0")
    assert card.config_base == port.config_base + FUNCTION_BYTES
    assert board.link_ends(card) == board.link_ends(port) == [port, card]
    with pytest.raises(KeyError):
        board.function_at("0002:21:00.0")


def test_a_switch_numbers_its_buses_depth_first() -> None:
    functions = [f for f in load_named("switch").functions if f.domain == 3]
    assert [(f.bdf[5:], f.kind, f.parent and f.parent[5:], f.buses) for f in functions] == [
        ("30:00.0", Kind.ROOT_PORT, None, (0x31, 0x36)),
        ("31:00.0", Kind.UPSTREAM_PORT, "30:00.0", (0x32, 0x36)),
        ("32:00.0", Kind.DOWNSTREAM_PORT, "31:00.0", (0x33, 0x33)),
        ("33:00.0", Kind.ENDPOINT, "32:00.0", (0, 0)),
        ("32:01.0", Kind.DOWNSTREAM_PORT, "31:00.0", (0x34, 0x34)),
        ("32:02.0", Kind.DOWNSTREAM_PORT, "31:00.0", (0x35, 0x35)),
        ("35:00.0", Kind.ENDPOINT, "32:02.0", (0, 0)),
        ("32:03.0", Kind.DOWNSTREAM_PORT, "31:00.0", (0x36, 0x36)),
        ("36:00.0", Kind.ENDPOINT, "32:03.0", (0, 0)),
    ]


@pytest.mark.parametrize(
    "bdf, ends",
    [
        ("0003:31:00.0", ["0003:30:00.0", "0003:31:00.0"]),
        ("0003:30:00.0", ["0003:30:00.0", "0003:31:00.0"]),
        ("0003:35:00.0", ["0003:32:02.0", "0003:35:00.0"]),
        ("0003:32:01.0", ["0003:32:01.0"]),
    ],
)
def test_a_link_has_two_ends_or_an_empty_slot(bdf: str, ends: list[str]) -> None:
    board = load_named("switch")
    assert [end.bdf for end in board.link_ends(board.function_at(bdf))] == ends


def test_a_switch_inside_a_switch_is_counted(tmp_path: Path) -> None:
    data = _described("switch")
    ports = data["controllers"][0xFE180000]["slot"]["ports"]
    ports[0]["slot"] = {"device": "asm2824", "link": {"speed_gt_s": 8, "width": 2}, "ports": [dict(p) for p in ports]}
    board = load(_written(tmp_path, data))
    assert board.function_at("0003:30:00.0").buses == (0x31, 0x3B)
    assert [f.bdf[5:7] for f in board.functions if f.device.event_counter] == ["35", "37", "38", "3a", "3b"]


def test_more_buses_than_the_controller_has_are_refused(tmp_path: Path) -> None:
    data = _described("switch")
    slot = data["controllers"][0xFE180000]["slot"]
    slot["ports"] = 13 * slot["ports"][1:2]
    assert load(_written(tmp_path, data)).function_at("0003:30:00.0").buses == (0x31, 0x3F)
    slot["ports"] = 14 * slot["ports"][:1]
    with pytest.raises(BoardError, match="domain 3 needs more than 16 buses"):
        load(_written(tmp_path, data))


def test_a_board_takes_over_what_it_does_not_say() -> None:
    one, two = load_named("cm3588"), load_named("two-cards")
    assert [f.bdf for f in two.functions if f.device.event_counter] == ["0002:21:00.0", "0003:31:00.0"]
    assert two.function_at("0002:21:00.0").device == one.function_at("0003:31:00.0").device
    assert (two.clusters, two.release, two.controllers[3:]) == (one.clusters, "bookworm", one.controllers[3:])
    assert [path.stem for path in files(BOARDS / "two-cards.yml")] == ["two-cards", "cm3588"]


def test_null_takes_away_what_the_base_says(tmp_path: Path) -> None:
    shutil.copy(BOARDS / "cm3588.yml", tmp_path)
    changes = {"base": "cm3588", "controllers": {0xFE160000: None, 0xFE150000: {"slot": None}}}
    board = load(_written(tmp_path, changes))
    assert [c.domain for c in board.controllers] == [0, 2, 3, 4]
    assert [f.bdf for f in board.functions if f.domain == 0] == ["0000:00:00.0"]


@pytest.mark.parametrize("base", ["board", "nowhere"])
def test_a_base_that_is_not_there_is_named(base: str, tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=f"based on {base}"):
        load(_written(tmp_path, {"base": base}))


@pytest.mark.parametrize("text", ["", "just words"])
def test_a_file_without_data_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "board.yml").write_text(text, encoding="utf-8")
    with pytest.raises(BoardError, match="no description of a board"):
        load(tmp_path / "board.yml")


def test_a_release_that_nobody_tried_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=r"'sid'.*bookworm, trixie"):
        load(_changed(tmp_path, release="sid"))


def test_a_device_that_nobody_described_is_refused(tmp_path: Path) -> None:
    data = _described("cm3588")
    data["controllers"][0xFE180000]["slot"]["device"] = "ax9000"
    with pytest.raises(BoardError, match="ax9000"):
        load(_written(tmp_path, data))


def test_unknown_board_names_the_known_ones() -> None:
    with pytest.raises(BoardError, match="cm3588"):
        load_named("cm9999")


def test_a_cpu_in_two_clusters_is_refused(tmp_path: Path) -> None:
    data = _described("cm3588")
    data["clusters"][1]["cpus"] = [3, 5]
    with pytest.raises(BoardError, match="every CPU"):
        load(_written(tmp_path, data))


def test_two_controllers_of_one_domain_are_refused(tmp_path: Path) -> None:
    data = _described("cm3588")
    data["controllers"][0xFE160000]["domain"] = 0
    with pytest.raises(BoardError, match="share a PCI domain"):
        load(_written(tmp_path, data))


def test_two_endpoints_of_one_device_id_are_refused(tmp_path: Path) -> None:
    data = _described("two-cards")
    data["controllers"][0xFE170000]["slot"]["its_device_id"] = 0
    with pytest.raises(BoardError, match="share an ITS DeviceID"):
        load(_written(tmp_path, data))


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="TypeError"):
        load(_changed(tmp_path, clusters=None))
