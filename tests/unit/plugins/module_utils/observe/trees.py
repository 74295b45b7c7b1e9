# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small trees of /proc and /sys to read from, and configuration space put together register by register."""

from __future__ import annotations

import pathlib
import struct
from typing import Dict, Sequence, Tuple, Union

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

FIXTURES = pathlib.Path(__file__).resolve().parents[3] / "fixtures"


def captured(name: str) -> str:
    """Return a fixture's text."""
    return (FIXTURES / name).read_text(encoding="utf-8")


def hex_dump(name: str) -> bytes:
    """Return the bytes of a fixture made by lspci -xxx."""
    rows = [line.partition(": ") for line in captured(name).splitlines()]
    return b"".join(bytes.fromhex(row[2]) for row in rows if len(row[0]) == 2)


class Tree:
    """A directory to be used as a root."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.root = Root(str(path))

    def file(self, path: str, content: Union[str, bytes] = "") -> None:
        """Write a file."""
        target = self.path / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())

    def files(self, directory: str, contents: Dict[str, str]) -> None:
        """Write several files, each ended by a newline as sysfs does."""
        for name, content in contents.items():
            self.file("%s/%s" % (directory, name), content + "\n")

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        link = self.path / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)

    def listing(self, text: str) -> None:
        """Write what a listing of "path:value" and "path -> target" lines holds."""
        for line in text.splitlines():
            if not line.startswith("/"):
                continue
            path, arrow, target = line.partition(" -> ")
            if arrow:
                self.link(path, target)
            else:
                path, _colon, value = line.partition(":")
                self.file(path, value + "\n")

    def pci(self, real: str, config: bytes = b"", contents: Union[Dict[str, str], None] = None) -> str:
        """Make a PCI device at its real path below /sys/devices; return that path."""
        path = "/sys/devices/" + real
        bdf = real.rpartition("/")[2]
        self.file(path + "/config", config)
        self.files(path, contents or {})
        self.link("/sys/bus/pci/devices/" + bdf, "../../../devices/" + real)
        return path

    def cpus(self, count: int, online: str, capacities: Sequence[int] = ()) -> None:
        """Make CPUs 0 to COUNT - 1."""
        self.files("/sys/devices/system/cpu", {"present": "0-%d" % (count - 1), "online": online, "isolated": ""})
        for number, capacity in enumerate(capacities):
            self.files("/sys/devices/system/cpu/cpu%d" % number, {"cpu_capacity": str(capacity)})

    def policy(self, number: int, cpus: str, affected: str, contents: Dict[str, str]) -> None:
        """Make a cpufreq policy; CPUs are listed with blanks."""
        directory = "/sys/devices/system/cpu/cpufreq/policy%d" % number
        self.files(directory, {"related_cpus": cpus + " ", "affected_cpus": affected + " " if affected else ""})
        self.files(directory, contents)


def pcie(
    port: int,
    capable: Tuple[int, int],
    negotiated: Tuple[int, int],
    payload: Tuple[int, int] = (0, 0),
    read_request: int = 2,
    aspm: Tuple[int, int] = (0, 0),
    version: int = 2,
    speeds: int = 0,
) -> Tuple[int, bytes]:
    """Return a PCI Express capability; speeds, payloads and so on are the registers' codes."""
    body = struct.pack("<H", version | port << 4)
    body += struct.pack("<IHH", payload[0], payload[1] << 5 | read_request << 12, 0)
    body += struct.pack("<IH", capable[0] | capable[1] << 4 | aspm[0] << 10, aspm[1])
    body += struct.pack("<H", negotiated[0] | negotiated[1] << 4)
    body += bytes(24)
    body += struct.pack("<I", speeds << 1)
    return 0x10, body


def config_space(
    ids: Tuple[int, int],
    class_code: int,
    capabilities: Sequence[Tuple[int, bytes]] = (),
    extended: Sequence[Tuple[int, bytes]] = (),
    header_type: int = 0,
    subsystem: Tuple[int, int] = (0, 0),
    revision: int = 1,
) -> bytes:
    """Return 4096 bytes of configuration space."""
    data = bytearray(4096)
    struct.pack_into("<HHHH", data, 0, ids[0], ids[1], 0, 0x10 if capabilities else 0)
    struct.pack_into("<I", data, 8, revision | class_code << 8)
    data[0x0E] = header_type
    if header_type == 0:
        struct.pack_into("<HH", data, 0x2C, *subsystem)
    pointer, offset = 0x34, 0x40
    for number, body in capabilities:
        data[pointer] = offset
        data[offset] = number
        data[offset + 2 : offset + 2 + len(body)] = body
        pointer, offset = offset + 1, (offset + 2 + len(body) + 3) & ~3
    offset = 0x100
    for at, (number, body) in enumerate(extended):
        following = (offset + 4 + len(body) + 3) & ~3 if at + 1 < len(extended) else 0
        struct.pack_into("<I", data, offset, number | 1 << 16 | following << 20)
        data[offset + 4 : offset + 4 + len(body)] = body
        offset = following
    return bytes(data)
