# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What surrounds a running twin: its ssh configuration, and whose process it is."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from twin import host, instance, pciconfig, twins
from twin.board import FUNCTION_BYTES, Board, Function, load_named
from twin.instance import Instance


@pytest.fixture(name="checkout")
def _checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(host, "CHECKOUT", tmp_path / "checkout")
    # Not below tmp_path, whose name is too long for sockets.
    with tempfile.TemporaryDirectory(prefix="twin-") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        yield tmp_path / "checkout"


def _instance(name: str, port: int) -> Instance:
    return Instance(name, load_named("cm3588"), Path("/cache/built"), host.runtime_root() / name, port)


def test_ssh_config_has_one_block_per_twin(checkout: Path) -> None:
    path = instance.write_ssh_config([_instance("one", 2201), _instance("two", 2202)])
    text = path.read_text(encoding="utf-8")
    assert path == checkout / ".cache/twin/ssh_config"
    blocks = text.split("Host ")[1:]
    assert [block.splitlines()[0] for block in blocks] == ["one", "two"]
    assert "    Port 2202\n" in blocks[1] and "    IdentityFile /cache/built/id_ed25519\n" in blocks[1]
    assert "Control" not in text


def test_a_process_that_is_not_ours_is_not_alive_and_not_killed(checkout: Path) -> None:
    twin = _instance("one", 2201)
    twin.run.mkdir()
    state = {"name": "one", "board": "cm3588", "built": "/b", "port": 1, "pid": os.getpid(), "started": 1, "disk": "/d"}
    (twin.run / instance.STATE_FILE).write_text(json.dumps(state), encoding="utf-8")
    assert not twin.is_alive()
    assert [found.name for found in twins.known()] == ["one"] and twins.running() == []
    twin.stop()
    assert not twin.run.exists()


def test_a_folder_that_others_may_read_is_refused(checkout: Path) -> None:
    host.runtime_root().chmod(0o755)
    with pytest.raises(host.TwinError, match="yours alone"):
        host.runtime_root()


@pytest.mark.parametrize("base", ["", "long"])
def test_sockets_fit_into_their_address(base: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", base and f"/run/{'long/' * 30}")
    root = host.runtime_root()
    root.rmdir()
    assert len(str(root / ("n" * 24) / "qtest.sock")) < 108


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 25, ".build"])
def test_names_that_would_be_paths_are_refused(checkout: Path, name: str) -> None:
    with pytest.raises(host.TwinError, match="cannot name a twin"):
        twins.Twin.start(name)


def test_an_impossible_speed_is_refused_before_anything_is_touched(checkout: Path) -> None:
    with pytest.raises(host.TwinError, match="no PCIe speed"):
        _instance("one", 2201).set_link("0003:31:00.0", 3.0, 1)


@pytest.mark.parametrize(
    "link, asked, into",
    [
        ("/boot/vmlinuz-6.1.0-56-arm64", "", ""),
        ("/boot/vmlinuz-6.1.0-57-arm64", "", "6.1.0-57-arm64"),
        ("/boot/vmlinuz-6.1.0-57-arm64", "6.1.0-56-arm64", ""),
        ("/boot/vmlinuz-6.1.0-56-arm64", "6.1.0-56-rt-arm64", "6.1.0-56-rt-arm64"),
        ("", "", ""),
    ],
)
def test_a_reboot_is_into_the_kernel_that_a_boot_loader_would_take(
    link: str, asked: str, into: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but another kernel needs another QEMU."""
    answer = subprocess.CompletedProcess([], 0, f"6.1.0-56-arm64\n{link}\n", "")
    done: list[str] = []
    monkeypatch.setattr(Instance, "ssh", lambda self, command, **_more: answer)
    monkeypatch.setattr(Instance, "reboot_and_wait", lambda self, timeout_s: done.append(""))
    monkeypatch.setattr(Instance, "power_cycle", lambda self, boot, timeout_s: done.append(boot.name))
    monkeypatch.setattr(twins, "ensure_kernel", lambda instance, release: Path("/cache") / release)
    twin = twins.Twin(_instance("one", 2201), started_here=False)
    assert twin.reboot_and_wait(kernel=asked) == (into or "6.1.0-56-arm64")
    assert done == [into]


class Memory:
    """A board's hidden RAM, reached as through QEMU's test protocol."""

    def __init__(self, board: Board) -> None:
        self.base = board.hidden_base
        self.image = bytearray(pciconfig.board_image(board))

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_unused: object) -> None:
        pass

    def write16(self, address: int, value: int) -> None:
        struct.pack_into("<H", self.image, address - self.base, value)

    def write32(self, address: int, value: int) -> None:
        struct.pack_into("<I", self.image, address - self.base, value)

    def read32(self, address: int) -> int:
        return int(struct.unpack_from("<I", self.image, address - self.base)[0])

    def fill(self, address: int, size: int, value: int) -> None:
        self.image[address - self.base : address - self.base + size] = bytes([value]) * size

    def function(self, function: Function) -> bytes:
        start = function.config_base - self.base
        return bytes(self.image[start : start + FUNCTION_BYTES])


@pytest.fixture(name="machine")
def _machine(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Instance, Memory]:
    board = load_named("switch")
    memory = Memory(board)
    twin = Instance("one", board, Path("/cache/built"), host.runtime_root() / "one", 2201)
    monkeypatch.setattr(twin, "_memory", lambda: memory)
    return twin, memory


def changed(machine: tuple[Instance, Memory]) -> list[str]:
    """Which functions are no longer as the board describes them."""
    twin, memory = machine
    return [f.bdf for f in twin.board.functions if memory.function(f) != pciconfig.function_image(f)]


def test_a_link_changes_at_both_ends_and_nowhere_else(machine: tuple[Instance, Memory]) -> None:
    twin, memory = machine
    twin.set_link("0003:35:00.0", 2.5, 1)
    assert changed(machine) == ["0003:32:02.0", "0003:35:00.0"]
    states = [memory.function(twin.board.function_at(bdf))[0x82:0x84] for bdf in changed(machine)]
    assert states == [b"\x11\x30", b"\x11\x10"], "2.5 GT/s x1, and the port says that its link is active"


def test_a_dead_card_reads_all_ones_and_takes_no_write(machine: tuple[Instance, Memory]) -> None:
    twin, memory = machine
    twin.kill("0003:33:00.0")
    assert changed(machine) == ["0003:33:00.0"]
    card = twin.board.function_at("0003:33:00.0")
    registers, writable, clears, header = (memory.function(card)[i : i + 0x1000] for i in range(0, 0x4000, 0x1000))
    assert set(registers) == {0xFF} and set(writable) == set(clears) == {0}
    assert header == pciconfig.function_image(card)[0x3000:], "the controller still finds it"


def test_only_functions_that_there_are_die(machine: tuple[Instance, Memory]) -> None:
    with pytest.raises(KeyError):
        machine[0].kill("0003:34:00.0")
    assert changed(machine) == []


def test_a_dead_card_comes_back_as_it_was(machine: tuple[Instance, Memory]) -> None:
    machine[0].kill("0003:33:00.0")
    machine[0].revive("0003:33:00.0")
    assert changed(machine) == []


def test_a_dead_card_comes_back_when_its_own_bus_is_reset(machine: tuple[Instance, Memory]) -> None:
    twin, memory = machine
    twin.kill("0003:33:00.0")
    other, own = (twin.board.function_at(bdf).config_base + 0x3C for bdf in ("0003:32:02.0", "0003:32:00.0"))
    as_made = memory.read32(other)
    memory.write32(other, as_made | 0x00400000)
    with pytest.raises(host.TwinError, match=r"nobody has reset the bus of 0003:33:00\.0 "):
        twin.revive("0003:33:00.0", after_reset=True, patience_s=0.02)
    memory.write32(other, as_made)
    assert changed(machine) == ["0003:33:00.0"]
    memory.write32(own, memory.read32(own) | 0x00400000)
    twin.revive("0003:33:00.0", after_reset=True, patience_s=0.02)
    assert changed(machine) == ["0003:32:00.0"], "that is the port, which is held in reset still"
