# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Raspberry Pi's boot configuration: what config.txt sets for this model, and what the running boot was given.

config.txt is read by the firmware: one setting a line, the last one counts, and lines in brackets are filters that
say for which boards the lines below them are (raspberrypi.com/documentation/computers/config_txt.html). Names of
parameters and overlays: arch/arm64/boot/dts/broadcom/bcm2712-rpi.dtsi and overlays/README of Raspberry Pi's kernel.
"""

from __future__ import annotations

import os
import re
import time
from typing import Callable, Dict, FrozenSet, NamedTuple, Optional, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.board import BOOT_CONFIGS, DEVICE_TREES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import Host, parse_mounts, writable

COMPAT_OVERLAY = "pciex1-compat-pi5"
DMA_OVERLAY = "pcie-32bit-dma-pi5"
KERNEL_4K = "kernel8.img"
# The firmware takes the short name, too, and finds the one for this processor (overlays/overlay_map.dts).
_OVERLAYS = {"pcie-32bit-dma": DMA_OVERLAY}
_MOST = 98  # characters of a line that the firmware reads
_MOST_FILES = 32  # included ones; they may include each other
_ON = ("on", "okay", "true", "yes", "y", "1", "")
_OFF = ("off", "disabled", "false", "no", "n", "0")
_MODEL = re.compile(r"(?:pi|cm)\d[0-9a-z+]*")
_INTEGER = re.compile(r"0x[0-9a-fA-F]+|0|[1-9][0-9]*")
_LINE = re.compile(rb"[^\n]+")
_PORTS = ("/axi/pcie@1000110000", "/axi/pcie@110000")  # the name changed with Linux 6.12
_MOVED = b"/boot/firmware/config.txt"  # /boot/config.txt says so where it only points to the other one


class Setting(NamedTuple):
    """What config.txt says of one thing, at FILE and LINE (its text).

    CERTAIN: false where that hangs on what cannot be seen from here (a pin's level, an included file).
    """

    value: str | bool | int | None
    certain: bool
    file: str
    line: str


Settings = Dict[str, Setting]


class Models(NamedTuple):
    """How filters name this board. BOARD_TYPE: of its revision code; None for unknown."""

    names: frozenset[str]
    board_type: int | None


class Running(NamedTuple):
    """What the running boot's device tree says of the slot's port; None for unknown."""

    pcie: bool | None
    generation: int | None  # the fastest that the port may go
    no_mip: bool | None  # the port's own interrupt controller serves the slot instead of the MIP
    dma_32bit: bool | None  # the card sees memory below 4 GiB


class RaspberryPi(NamedTuple):
    """A Raspberry Pi. SETTINGS has the keys pcie, generation, no_mip, dma_32bit, kernel, os_prefix, overlay_prefix."""

    model: str | None
    has_port: bool  # a PCIe port that config.txt switches
    models: Models
    config: str | None  # the path; None: not found, or the boot partition is not mounted
    content: bytes | None  # None: not there or not readable
    read_only: bool | None  # the partition that it is on; None for unknown
    settings: Settings
    running: Running
    files: frozenset[str]  # those of the firmware's files that we may name, and that are there
    bootloader_date: str | None  # of the EEPROM, "2023-12-06"
    supply_ma: int | None  # what the power supply can give, as it told the firmware
    page_size: int | None  # bytes


class _Parser:
    """Reads config.txt from top to bottom, as the firmware does."""

    def __init__(self, models: Models, read: Callable[[str], Optional[bytes]]) -> None:
        self.settings: Settings = {}
        self._models = models
        self._read = read
        self._included = 0
        self._filters: Dict[str, Optional[bool]] = {}  # by kind: one takes the place of another of its kind
        self._overlay = ""  # the one that lines with dtparam= are about
        self._overlay_certain: Optional[bool] = True

    def file(self, name: str, content: bytes, depth: int = 0) -> None:
        """Read a file, and what it includes."""
        for raw in _LINE.findall(content):
            line = raw[:_MOST].decode("latin-1").strip(" \t\r\0")
            if not line or line.startswith("#"):
                continue
            if line.startswith("["):
                self._filter(line)
            elif line.split(" ")[0] == "include":
                inner = line[len("include") :].strip()
                self._included += 1
                content_inside = self._read(inner) if self._included <= _MOST_FILES else None
                if content_inside is not None:
                    self.file(inner, content_inside, depth + 1)
            else:
                self._setting(name, line, depth)

    def _filter(self, line: str) -> None:
        if line == "[all]":
            self._filters = {}
        elif line == "[none]":
            self._filters["none"] = False
        elif not line.endswith("]"):
            self._filters["damaged"] = None
        elif _MODEL.fullmatch(line[1:-1]):
            self._filters["model"] = self._is_model(line[1:-1])
            if "none" in self._filters:
                self._filters["none"] = None  # whether a model ends it is not documented
        else:
            kind, _equals, value = line[1:-1].partition("=")
            known = self._models.board_type
            self._filters[kind] = None
            if kind == "board-type" and known is not None and _INTEGER.fullmatch(value):
                self._filters[kind] = int(value, 0) == known

    def _is_model(self, name: str) -> Optional[bool]:
        if name in self._models.names:
            return True
        # A newer board's name may be one of this board's, too, of which we do not know yet.
        return None if any(name.startswith(mine) for mine in self._models.names) else False

    def _applies(self, depth: int) -> Optional[bool]:
        states = self._filters.values()
        if False in states:
            return False
        # Not all stages of the firmware read included files, so what stands there only may hold.
        return None if None in states or depth else True

    def _setting(self, name: str, line: str, depth: int) -> None:
        applies = self._applies(depth)
        if applies is False:
            return
        key, equals, value = line.partition("=")
        state = applies
        if key != key.strip() or value != value.strip() or " " in value.strip():
            key, value, state = key.strip(), value.split()[0] if value.split() else "", None
        if not equals:
            return
        if key in ("dtparam", "device_tree_param"):
            for word in value.split(","):
                self._parameter(word, state, name, line)
        elif key in ("dtoverlay", "device_tree_overlay"):
            first, _comma, rest = value.replace(":", ",", 1).partition(",")
            self._overlay, self._overlay_certain = _OVERLAYS.get(first, first), state
            if self._overlay == DMA_OVERLAY:
                self._set("dma_32bit", True, state, name, line)
            for word in rest.split(",") if rest else ():
                self._overlay_parameter(word, state, name, line)
        elif key in ("kernel", "os_prefix", "overlay_prefix"):
            self._set(key, value, state, name, line)

    def _parameter(self, word: str, state: Optional[bool], name: str, line: str) -> None:
        parameter, _equals, value = word.partition("=")
        if parameter in ("pciex1", "nvme"):
            on = True if value in _ON else False if value in _OFF else None
            self._set("pcie", on, state, name, line)
        elif parameter == "pciex1_gen":
            self._set("generation", int(value, 0) if _INTEGER.fullmatch(value) else None, state, name, line)
        else:
            self._overlay_parameter(word, state if self._overlay_certain else None, name, line)

    def _overlay_parameter(self, word: str, state: Optional[bool], name: str, line: str) -> None:
        parameter, _equals, value = word.partition("=")
        if self._overlay == COMPAT_OVERLAY and parameter == "no-mip" and value in _ON:
            self._set("no_mip", True, state, name, line)

    def _set(self, key: str, value: str | bool | int | None, state: Optional[bool], name: str, line: str) -> None:
        before = self.settings.get(key)
        same = before is not None and before.certain and before.value == value
        self.settings[key] = Setting(value, bool(state) or same, name, line)


def parse_config(
    name: str, content: bytes, models: Models, read: Callable[[str], Optional[bytes]] = lambda name: None
) -> Settings:
    """Return what a config.txt sets for a board, by key (see RaspberryPi). READ returns an included file."""
    parser = _Parser(models, read)
    parser.file(name, content)
    return parser.settings


def _number(root: Root, path: str) -> Optional[int]:
    """Return a device tree's 32-bit cell."""
    raw = root.data(path)
    return int.from_bytes(raw, "big") if raw is not None and len(raw) == 4 else None


def _running(root: Root, tree: str, node: Optional[str]) -> Running:
    if node is None:
        return Running(None, None, None, None)
    base = tree + node
    parent, own = _number(root, base + "/msi-parent"), _number(root, base + "/phandle")
    ranges = root.data(base + "/dma-ranges") or b""
    return Running(
        pcie=(root.text(base + "/status") or "okay") in ("okay", "ok"),
        generation=_number(root, base + "/max-link-speed"),
        no_mip=None if parent is None or own is None else parent == own,
        # The first entry: one cell of flags, two of the address that the card sees
        dma_32bit=ranges[4:12] == bytes(8) if len(ranges) >= 12 else None,
    )


def _models(root: Root, tree: str, compatible: Tuple[str, ...]) -> Models:
    names: FrozenSet[str] = frozenset()
    if "brcm,bcm2712" in compatible:
        names = frozenset({"pi5"})
        for mark, name in (("raspberrypi,5-compute-module", "cm5"), ("raspberrypi,500", "pi500")):
            if any(one.startswith(mark) for one in compatible):
                names |= {name}
    revision = _number(root, tree + "/system/linux,revision")
    new_style = revision is not None and revision >> 23 & 1
    return Models(names, revision >> 4 & 0xFF if revision is not None and new_style else None)


def _config(root: Root) -> Tuple[Optional[str], Optional[bytes]]:
    for path in BOOT_CONFIGS:
        real = root.real(path)
        if real is not None:
            content = root.data(real)
            if path == BOOT_CONFIGS[1] and content is not None and len(content) < 1024 and _MOVED in content:
                return None, None  # the boot partition is not mounted: this one only says where the other is
            return real, content
    return None, None


def included(root: Root, config: str) -> Callable[[str], Optional[bytes]]:
    """Return what reads a file that the config.txt at CONFIG includes, by its name there."""

    def read(name: str) -> Optional[bytes]:
        inside = os.path.normpath("/" + name).lstrip("/")
        return root.data("%s/%s" % (os.path.dirname(config), inside)) if inside else None

    return read


def boot_files(root: Root, config: str, settings: Settings) -> FrozenSet[str]:
    """Return those of the firmware's files that we may name and that are there, beside CONFIG or where it says."""
    said = {key: str(settings[key].value) for key in ("os_prefix", "overlay_prefix") if key in settings}
    prefixes = {"", said.get("os_prefix", "")}
    folders = {"overlays/", said.get("overlay_prefix", "overlays/")}
    wanted = {prefix + KERNEL_4K: KERNEL_4K for prefix in prefixes}
    for overlay in (COMPAT_OVERLAY, DMA_OVERLAY):
        wanted.update({prefix + folder + overlay + ".dtbo": overlay for prefix in prefixes for folder in folders})
    directory = os.path.dirname(config)
    return frozenset(name for path, name in wanted.items() if root.exists("%s/%s" % (directory, path)))


def read_raspberry_pi(root: Root, host: Host) -> Optional[RaspberryPi]:
    """Return the boot configuration of HOST; None for another board."""
    if not any(name.startswith("raspberrypi,") for name in host.compatible):
        return None
    tree = next((path for path in DEVICE_TREES if root.exists(path + "/compatible")), DEVICE_TREES[0])
    models = _models(root, tree, host.compatible)
    node: Optional[str] = None
    if models.names:
        candidates = (root.text(tree + "/__symbols__/pciex1"), *_PORTS)
        node = next((path for path in candidates if path and root.exists(tree + path)), None)
    path, content = _config(root)
    settings: Settings = {}
    read_only: Optional[bool] = None
    files: FrozenSet[str] = frozenset()
    if path is not None:
        mounts = root.text("/proc/self/mounts")
        may_write = writable(parse_mounts((root.text("/proc/mounts") if mounts is None else mounts) or ""), path)
        read_only = None if may_write is None else not may_write
    if path is not None and content is not None:
        settings = parse_config(path, content, models, included(root, path))
        files = boot_files(root, path, settings)
    built = _number(root, tree + "/chosen/bootloader/build-timestamp")
    date = time.strftime("%Y-%m-%d", time.gmtime(built)) if built else None
    return RaspberryPi(
        model=host.model,
        has_port=node is not None,
        models=models,
        config=path,
        content=content,
        read_only=read_only,
        settings=settings,
        running=_running(root, tree, node),
        files=files,
        bootloader_date=date,
        supply_ma=_number(root, tree + "/chosen/power/max_current"),
        page_size=host.page_size,
    )
