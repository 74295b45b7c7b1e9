# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The board that a twin imitates, as its YAML file describes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

BOARDS = Path(__file__).parent / "boards"
#: Debian releases that a twin has been seen to run.
RELEASES = ("bookworm", "trixie")

#: The machine's RAM starts here (QEMU's virt machine).
RAM_BASE = 0x40000000
#: Bytes of hidden RAM per PCIe function: its registers, two write masks and a header (see kernel/twin_pcie.c).
FUNCTION_BYTES = 0x4000
#: Windows of hidden RAM start at multiples of this, so that no two share a page of any size the kernel uses.
WINDOW_ALIGN = 0x10000
#: Buses that a controller may number, its root port's included.
BUSES = 16
#: The ITS sees the emulator's host as this DeviceID (writes that carry no requester id).
OUTSIDE_DEVICE_ID = 0


class BoardError(ValueError):
    """The board's description contradicts itself or lacks something; the message says what."""


class Kind(IntEnum):
    """What a function is: the port type of its PCI Express capability."""

    ENDPOINT = 0
    ROOT_PORT = 4
    UPSTREAM_PORT = 5
    DOWNSTREAM_PORT = 6


@dataclass(frozen=True)
class Link:
    """Speed in GT/s per lane, width in lanes. Width 0 is no link."""

    speed_gt_s: float
    width: int


#: What a port with nothing behind it shows.
NO_LINK = Link(2.5, 0)


@dataclass(frozen=True)
class Bar:
    index: int
    kind: str
    size: int


@dataclass(frozen=True)
class Device:
    """What a function's configuration space says about it; ``link`` is its capability. Ports have no BARs."""

    vendor: int
    device: int
    class_code: int
    revision: int
    link: Link
    max_payload: int
    msi_vectors: int
    subsystem_vendor: int = 0
    subsystem_device: int = 0
    bars: tuple[Bar, ...] = ()
    event_counter: bool = False


ROOT_PORT = Device(0x1D87, 0x3588, 0x060400, 0x01, Link(8, 4), max_payload=256, msi_vectors=32)


@dataclass(frozen=True)
class Function:
    """A PCIe function in its place.

    ``link`` is the negotiated one: below a root or downstream port, above an upstream port or endpoint. ``buses`` are
    the first and last bus behind a port, ``parent`` is the BDF address of the port above. ``config_base`` is where its
    registers lie in hidden RAM.
    """

    kind: Kind
    domain: int
    bus: int
    slot: int
    device: Device
    link: Link
    parent: str | None
    buses: tuple[int, int] = (0, 0)
    config_base: int = 0
    its_device_id: int | None = None
    of_node: bool = False

    @property
    def devfn(self) -> int:
        return self.slot << 3

    @property
    def requester_id(self) -> int:
        return self.bus << 8 | self.devfn

    @property
    def bdf(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.0"

    @property
    def is_port(self) -> bool:
        return self.kind is not Kind.ENDPOINT

    @property
    def leads_down(self) -> bool:
        """Whether the function's link is the one below it."""
        return self.kind in (Kind.ROOT_PORT, Kind.DOWNSTREAM_PORT)


@dataclass(frozen=True)
class Controller:
    """A PCIe controller: its root port first, then all that is behind it, in the order of hidden RAM."""

    address: int
    domain: int
    first_bus: int
    io_window: tuple[int, int]
    memory_window: tuple[int, int]
    functions: tuple[Function, ...]

    @property
    def config_base(self) -> int:
        return self.functions[0].config_base

    @property
    def config_bytes(self) -> int:
        return FUNCTION_BYTES * len(self.functions)


@dataclass(frozen=True)
class Cluster:
    cpus: tuple[int, ...]
    core: str
    capacity_dmips_mhz: int
    power_coefficient: int
    clock: str
    opp_mhz: tuple[int, ...]


@dataclass(frozen=True)
class Board:
    """What a twin imitates. ``driver``: the card's is installed. ``packages`` are there besides what every twin has."""

    name: str
    release: str
    model: str
    compatible: tuple[str, ...]
    hostname: str
    memory_mb: int
    clusters: tuple[Cluster, ...]
    controllers: tuple[Controller, ...]
    driver: bool = True
    packages: tuple[str, ...] = ()

    @property
    def cpu_count(self) -> int:
        return sum(len(cluster.cpus) for cluster in self.clusters)

    @property
    def hidden_base(self) -> int:
        """First address of the RAM that backs registers and that Linux must not use."""
        return RAM_BASE + (self.memory_mb << 20)

    @property
    def hidden_bytes(self) -> int:
        end = max((c.config_base + c.config_bytes for c in self.controllers), default=self.hidden_base)
        return -(-(end - self.hidden_base) // (2 << 20)) * (2 << 20)

    @property
    def machine_memory_mb(self) -> int:
        return self.memory_mb + (self.hidden_bytes >> 20)

    @property
    def functions(self) -> Iterator[Function]:
        """All functions of all controllers."""
        for controller in self.controllers:
            yield from controller.functions

    @property
    def outside_endpoint(self) -> Function | None:
        """The endpoint that takes MSIs from outside the machine, if any does."""
        for function in self.functions:
            if function.its_device_id == OUTSIDE_DEVICE_ID:
                return function
        return None

    def function_at(self, bdf: str) -> Function:
        """The function at a BDF address. KeyError: there is none."""
        for function in self.functions:
            if function.bdf == bdf:
                return function
        raise KeyError(bdf)

    def link_ends(self, function: Function) -> list[Function]:
        """Both ends of a function's link: the port above, and what is at its other end, if anything is."""
        upper = function if function.leads_down else self.function_at(function.parent or "")
        below = [other for other in self.functions if other.parent == upper.bdf]
        return [upper, *below]


def load(path: Path) -> Board:
    """Read a board's description. BoardError: it is not a usable one."""
    try:
        return _board(path.stem, described(path))
    except (AttributeError, KeyError, TypeError) as error:
        raise BoardError(f"{path}: {type(error).__name__}: {error}") from error
    except BoardError as error:
        raise BoardError(f"{path}: {error}") from error


def files(path: Path) -> list[Path]:
    """The files that a board is described by: its own, and those of the boards that it is based on."""
    base = _read(path).get("base")
    return [path, *(files(_base_path(path, base)) if base else ())]


def load_named(name: str) -> Board:
    """The board of this name among those that come with the project."""
    path = BOARDS / f"{name}.yml"
    if not path.exists():
        raise BoardError(f"no board called {name}; there are: {', '.join(names())}")
    return load(path)


def names() -> list[str]:
    """The boards that come with the project."""
    return sorted(path.stem for path in BOARDS.glob("*.yml"))


def _read(path: Path) -> dict[str, Any]:
    import yaml  # here, since `requirements` runs before there is an environment that has it

    with path.open(encoding="utf-8") as stream:
        data = yaml.safe_load(stream)
    if not isinstance(data, dict):
        raise BoardError(f"{path}: is no description of a board")
    return data


def described(path: Path) -> Mapping[str, Any]:
    """A board's data, with what it takes over from the board that it is based on."""
    data = _read(path)
    base = data.pop("base", None)
    return _merged(described(_base_path(path, base)), data) if base else data


def _base_path(path: Path, base: str) -> Path:
    found = path.with_name(f"{base}.yml")
    if not found.exists() or found == path:
        raise BoardError(f"{path}: is based on {base}, but there is no such board beside it")
    return found


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged, key by key; anything else replaces what was there; null takes a key away."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result


def _board(name: str, data: Mapping[str, Any]) -> Board:
    clusters = tuple(_cluster(entry) for entry in data["clusters"])
    cpus = [cpu for cluster in clusters for cpu in cluster.cpus]
    if cpus != list(range(len(cpus))):
        raise BoardError(f"the clusters must hold every CPU from 0 on, once and in order, not {cpus}")
    if data["release"] not in RELEASES:
        raise BoardError(f"release is {data['release']!r}, but a twin runs one of {', '.join(RELEASES)}")
    devices = {key: _device(entry) for key, entry in data["devices"].items()}
    base = RAM_BASE + (data["memory_mb"] << 20)
    controllers: list[Controller] = []
    for address, entry in data["controllers"].items():
        functions = _functions(entry, devices, base)
        controllers.append(
            Controller(
                address=address,
                domain=entry["domain"],
                first_bus=entry["first_bus"],
                io_window=(entry["windows"]["io"][0], entry["windows"]["io"][1]),
                memory_window=(entry["windows"]["memory"][0], entry["windows"]["memory"][1]),
                functions=functions,
            )
        )
        base += -(-controllers[-1].config_bytes // WINDOW_ALIGN) * WINDOW_ALIGN
    board = Board(
        name=name,
        release=data["release"],
        model=data["model"],
        compatible=tuple(data["compatible"]),
        hostname=data["hostname"],
        memory_mb=data["memory_mb"],
        clusters=clusters,
        controllers=tuple(controllers),
        driver=data.get("driver", True),
        packages=tuple(data.get("packages", ())),
    )
    _check_unique(board)
    return board


def _check_unique(board: Board) -> None:
    domains = [controller.domain for controller in board.controllers]
    if len(set(domains)) != len(domains):
        raise BoardError(f"two controllers share a PCI domain: {domains}")
    device_ids = [function.its_device_id for function in board.functions if function.its_device_id is not None]
    if len(set(device_ids)) != len(device_ids):
        raise BoardError(f"two endpoints share an ITS DeviceID: {device_ids}")


def _link(entry: Mapping[str, Any]) -> Link:
    return Link(speed_gt_s=float(entry["speed_gt_s"]), width=entry["width"])


def _device(entry: Mapping[str, Any]) -> Device:
    return Device(
        vendor=entry["vendor"],
        device=entry["device"],
        class_code=entry["class"],
        revision=entry["revision"],
        link=_link(entry),
        max_payload=entry["max_payload"],
        msi_vectors=entry["msi_vectors"],
        subsystem_vendor=entry.get("subsystem_vendor", 0),
        subsystem_device=entry.get("subsystem_device", 0),
        bars=tuple(Bar(index, kind, size) for index, (kind, size) in entry.get("bars", {}).items()),
        event_counter=entry.get("event_counter", False),
    )


def _functions(entry: Mapping[str, Any], devices: Mapping[str, Device], config_base: int) -> tuple[Function, ...]:
    """A controller's root port and all that is behind it, numbered as firmware does: depth first."""
    domain, first_bus = entry["domain"], entry["first_bus"]
    root_port = Function(Kind.ROOT_PORT, domain, first_bus, 0, ROOT_PORT, NO_LINK, parent=None)
    tree = _port(root_port, entry, devices, first_bus + 1)
    if tree[0].buses[1] >= first_bus + BUSES:
        raise BoardError(f"domain {domain} needs more than {BUSES} buses")
    return tuple(replace(function, config_base=config_base + i * FUNCTION_BYTES) for i, function in enumerate(tree))


def _port(port: Function, entry: Mapping[str, Any], devices: Mapping[str, Device], bus: int) -> list[Function]:
    """A port that leads down to a bus, and all that is behind it."""
    slot = entry.get("slot")
    behind = _plugged(port, slot, devices, bus) if slot else []
    return [
        replace(
            port,
            device=replace(port.device, link=_link(entry["port"])),
            link=behind[0].link if behind else NO_LINK,
            buses=(bus, max([bus, *(function.bus for function in behind), *(f.buses[1] for f in behind)])),
        ),
        *behind,
    ]


def _plugged(port: Function, slot: Mapping[str, Any], devices: Mapping[str, Device], bus: int) -> list[Function]:
    """What is in a slot: an endpoint, or a switch (it has ``ports``) and all that is behind it."""
    name = slot["device"]
    if name not in devices:
        raise BoardError(f"a slot holds {name}, which is none of {', '.join(devices)}")
    first = Function(
        Kind.UPSTREAM_PORT if "ports" in slot else Kind.ENDPOINT,
        port.domain,
        bus,
        0,
        devices[name],
        _link(slot["link"]),
        parent=port.bdf,
        its_device_id=slot.get("its_device_id"),
        of_node=slot.get("of_node", False),
    )
    behind: list[Function] = []
    next_bus = bus + 2
    for number, entry in enumerate(slot.get("ports", ())):
        below = Function(Kind.DOWNSTREAM_PORT, port.domain, bus + 1, number, first.device, NO_LINK, parent=first.bdf)
        behind += _port(below, entry, devices, next_bus)
        next_bus = max(function.buses[1] for function in behind) + 1
    return [replace(first, buses=(bus + 1, next_bus - 1)) if behind else first, *behind]


def _cluster(entry: Mapping[str, Any]) -> Cluster:
    return Cluster(
        cpus=tuple(entry["cpus"]),
        core=entry["core"],
        capacity_dmips_mhz=entry["capacity_dmips_mhz"],
        power_coefficient=entry["power_coefficient"],
        clock=entry["clock"],
        opp_mhz=tuple(entry["opp_mhz"]),
    )
