# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The board that a twin imitates, as its YAML file describes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

BOARDS = Path(__file__).parent / "boards"

#: The machine's RAM starts here (QEMU's virt machine).
RAM_BASE = 0x40000000
#: Bytes of hidden RAM per PCIe function: its registers, two write masks and a header (see kernel/twin_pcie.c).
FUNCTION_BYTES = 0x4000
#: Windows of hidden RAM start at multiples of this, so that no two share a page of any size the kernel uses.
WINDOW_ALIGN = 0x10000
#: The ITS sees the emulator's host as this DeviceID (writes that carry no requester id).
OUTSIDE_DEVICE_ID = 0


class BoardError(ValueError):
    """The board's description contradicts itself or lacks something; the message says what."""


@dataclass(frozen=True)
class Link:
    """Speed in GT/s per lane, width in lanes."""

    speed_gt_s: float
    width: int


@dataclass(frozen=True)
class Bar:
    index: int
    kind: str
    size: int


@dataclass(frozen=True)
class Device:
    """What an endpoint's configuration space says about it; ``link`` is its capability."""

    vendor: int
    device: int
    subsystem_vendor: int
    subsystem_device: int
    class_code: int
    revision: int
    link: Link
    max_payload: int
    msi_vectors: int
    bars: tuple[Bar, ...]
    event_counter: bool


@dataclass(frozen=True)
class Slot:
    device: Device
    link: Link
    its_device_id: int | None
    of_node: bool


@dataclass(frozen=True)
class Controller:
    """A PCIe controller with one root port. ``config_base`` is where its functions' registers lie in hidden RAM."""

    address: int
    domain: int
    first_bus: int
    port: Link
    io_window: tuple[int, int]
    memory_window: tuple[int, int]
    slot: Slot | None
    config_base: int

    @property
    def config_bytes(self) -> int:
        return FUNCTION_BYTES * (2 if self.slot else 1)

    @property
    def port_bdf(self) -> str:
        return f"{self.domain:04x}:{self.first_bus:02x}:00.0"

    @property
    def endpoint_bdf(self) -> str:
        return f"{self.domain:04x}:{self.first_bus + 1:02x}:00.0"


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
    name: str
    model: str
    compatible: tuple[str, ...]
    hostname: str
    memory_mb: int
    clusters: tuple[Cluster, ...]
    controllers: tuple[Controller, ...]

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
    def outside_endpoint(self) -> Controller | None:
        """The controller whose endpoint takes MSIs from outside the machine, if any does."""
        for controller in self.controllers:
            if controller.slot and controller.slot.its_device_id == OUTSIDE_DEVICE_ID:
                return controller
        return None

    def function_at(self, bdf: str) -> tuple[Controller, int]:
        """The controller of a BDF address and where the function's registers lie. KeyError: no such function."""
        for controller in self.controllers:
            if bdf == controller.port_bdf:
                return controller, controller.config_base
            if bdf == controller.endpoint_bdf and controller.slot:
                return controller, controller.config_base + FUNCTION_BYTES
        raise KeyError(bdf)


def load(path: Path) -> Board:
    """Read a board's description. BoardError: it is not a usable one."""
    import yaml  # here, since `requirements` runs before there is an environment that has it

    with path.open(encoding="utf-8") as stream:
        data = yaml.safe_load(stream)
    try:
        return _board(data)
    except (KeyError, TypeError) as error:
        raise BoardError(f"{path}: {type(error).__name__}: {error}") from error
    except BoardError as error:
        raise BoardError(f"{path}: {error}") from error


def load_named(name: str) -> Board:
    """The board of this name among those that come with the project."""
    path = BOARDS / f"{name}.yml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in BOARDS.glob("*.yml")))
        raise BoardError(f"no board called {name}; there are: {known}")
    return load(path)


def _board(data: Mapping[str, Any]) -> Board:
    clusters = tuple(_cluster(entry) for entry in data["clusters"])
    cpus = [cpu for cluster in clusters for cpu in cluster.cpus]
    if cpus != list(range(len(cpus))):
        raise BoardError(f"the clusters must hold every CPU from 0 on, once and in order, not {cpus}")
    devices = {name: _device(entry) for name, entry in data["devices"].items()}
    base = RAM_BASE + (data["memory_mb"] << 20)
    controllers: list[Controller] = []
    for entry in data["controllers"]:
        controllers.append(_controller(entry, devices, base))
        base += -(-controllers[-1].config_bytes // WINDOW_ALIGN) * WINDOW_ALIGN
    board = Board(
        name=data["name"],
        model=data["model"],
        compatible=tuple(data["compatible"]),
        hostname=data["hostname"],
        memory_mb=data["memory_mb"],
        clusters=clusters,
        controllers=tuple(controllers),
    )
    _check_unique(board)
    return board


def _check_unique(board: Board) -> None:
    domains = [controller.domain for controller in board.controllers]
    if len(set(domains)) != len(domains):
        raise BoardError(f"two controllers share a PCI domain: {domains}")
    device_ids = [c.slot.its_device_id for c in board.controllers if c.slot and c.slot.its_device_id is not None]
    if len(set(device_ids)) != len(device_ids):
        raise BoardError(f"two endpoints share an ITS DeviceID: {device_ids}")


def _link(entry: Mapping[str, Any]) -> Link:
    return Link(speed_gt_s=float(entry["speed_gt_s"]), width=entry["width"])


def _device(entry: Mapping[str, Any]) -> Device:
    return Device(
        vendor=entry["vendor"],
        device=entry["device"],
        subsystem_vendor=entry["subsystem_vendor"],
        subsystem_device=entry["subsystem_device"],
        class_code=entry["class"],
        revision=entry["revision"],
        link=_link(entry),
        max_payload=entry["max_payload"],
        msi_vectors=entry["msi_vectors"],
        bars=tuple(Bar(index, kind, size) for index, (kind, size) in entry["bars"].items()),
        event_counter=entry.get("event_counter", False),
    )


def _controller(entry: Mapping[str, Any], devices: Mapping[str, Device], config_base: int) -> Controller:
    slot = entry.get("slot")
    return Controller(
        address=entry["address"],
        domain=entry["domain"],
        first_bus=entry["first_bus"],
        port=_link(entry["port"]),
        io_window=(entry["windows"]["io"][0], entry["windows"]["io"][1]),
        memory_window=(entry["windows"]["memory"][0], entry["windows"]["memory"][1]),
        slot=None
        if slot is None
        else Slot(
            device=devices[slot["device"]],
            link=_link(slot["link"]),
            its_device_id=slot.get("its_device_id"),
            of_node=slot.get("of_node", False),
        ),
        config_base=config_base,
    )


def _cluster(entry: Mapping[str, Any]) -> Cluster:
    return Cluster(
        cpus=tuple(entry["cpus"]),
        core=entry["core"],
        capacity_dmips_mhz=entry["capacity_dmips_mhz"],
        power_coefficient=entry["power_coefficient"],
        clock=entry["clock"],
        opp_mhz=tuple(entry["opp_mhz"]),
    )
