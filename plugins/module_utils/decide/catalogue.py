# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which PCI devices are NPU cards: identities as data, never names.

Sources of the identities: the drivers' own PCI id tables (ax_pcie_host_dev, hailo_pci, amdxdna, gasket/apex).
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PciDevice


class CardKind(NamedTuple):
    """One entry of the catalogue. None in an identity field means "any".

    DRIVERS: names in /sys/bus/pci/drivers; MODULES: kernel modules whose loading gives the card its interrupts.
    """

    name: str
    vendor: int
    device: int
    subsystem_vendor: Optional[int] = None
    subsystem_device: Optional[int] = None
    drivers: Tuple[str, ...] = ()
    modules: Tuple[str, ...] = ()


BUILT_IN: Tuple[CardKind, ...] = (
    CardKind("Axera AX650N", 0x1F4B, 0x0650, drivers=("ax_pcie_dev_host",), modules=("ax_pcie_host_dev",)),
    CardKind("Axera AX8860", 0x1F4B, 0x8860),
    CardKind("Hailo-8", 0x1E60, 0x2864, drivers=("hailo",), modules=("hailo_pci",)),
    CardKind("AMD XDNA (Phoenix, Hawk Point)", 0x1022, 0x1502, drivers=("amdxdna",), modules=("amdxdna",)),
    CardKind("AMD XDNA 2 (Strix)", 0x1022, 0x17F0, drivers=("amdxdna",), modules=("amdxdna",)),
    CardKind("Google Coral Edge TPU", 0x1AC1, 0x089A, drivers=("apex",), modules=("apex",)),
)

_NUMBERS = ("vendor", "device", "subsystem_vendor", "subsystem_device")
# Four digits, no fewer: YAML reads an unquoted 0650 as an octal number and hands over 424.
_IDENTITY = re.compile(r"(?:0x)?([0-9a-fA-F]{4})")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")  # of a driver or module; it stands in files that modprobe reads


def _identity(entry: Dict[str, Any], field: str, where: str) -> Optional[int]:
    text = entry.get(field)
    if text is None:
        return None
    match = _IDENTITY.fullmatch(str(text))
    if match is None:
        raise WishError(
            '%s: %s %r is no PCI identity; write four hexadecimal digits in quotes, such as "1f4b"'
            % (where, field, text)
        )
    return int(match.group(1), 16)


def _names(entry: Dict[str, Any], field: str, where: str) -> Tuple[str, ...]:
    names = entry.get(field) or ()
    if not isinstance(names, (list, tuple)) or not all(_NAME.fullmatch(str(name)) for name in names):
        raise WishError("%s: %s %r is no list of names" % (where, field, names))
    return tuple(str(name) for name in names)


def resolve(extra: Any) -> Tuple[CardKind, ...]:
    """Return the built-in catalogue with the user's entries in front (they win over ours of the same identity).

    EXTRA is a list of dicts, or None, and may come out of a file that a person has edited. Raises WishError for
    anything else, and for an entry without a vendor and device of four hexadecimal digits.
    """
    kinds: List[CardKind] = []
    if extra is not None and not isinstance(extra, (list, tuple)):
        raise WishError("devices: %r is no list of devices" % (extra,))
    for position, entry in enumerate(extra or (), 1):
        where = "devices, entry %d" % position
        if not isinstance(entry, dict):
            raise WishError("%s: %r is no device; write vendor and device" % (where, entry))
        numbers = [_identity(entry, field, where) for field in _NUMBERS]
        vendor, device = numbers[0], numbers[1]
        if vendor is None or device is None:
            raise WishError("%s: vendor and device are needed, each four hexadecimal digits in quotes" % where)
        name = str(entry.get("name") or "%04x:%04x" % (vendor, device))
        drivers, modules = _names(entry, "drivers", where), _names(entry, "modules", where)
        kinds.append(CardKind(name, vendor, device, numbers[2], numbers[3], drivers, modules))
    mine = {kind[1:5] for kind in kinds}
    return tuple(kinds) + tuple(kind for kind in BUILT_IN if kind[1:5] not in mine)


def to_data(kinds: Iterable[CardKind]) -> List[Dict[str, Any]]:
    """Return the catalogue in the form that `resolve` takes, for the wishes kept on the box."""
    data = []
    for kind in kinds:
        entry: Dict[str, Any] = {"name": kind.name, "drivers": list(kind.drivers), "modules": list(kind.modules)}
        for field in _NUMBERS:
            number = getattr(kind, field)
            if number is not None:
                entry[field] = "%04x" % number
        data.append(entry)
    return data


def kind_of(device: PciDevice, kinds: Iterable[CardKind]) -> Optional[CardKind]:
    """Return the catalogue's entry for a PCI device; None if it is no NPU card."""
    for kind in kinds:
        if (device.vendor, device.device) != (kind.vendor, kind.device):
            continue
        if kind.subsystem_vendor not in (None, device.subsystem_vendor):
            continue
        if kind.subsystem_device not in (None, device.subsystem_device):
            continue
        return kind
    return None


def cards(devices: Iterable[PciDevice], kinds: Sequence[CardKind]) -> List[PciDevice]:
    """Return the NPU cards among DEVICES, in their order (by address)."""
    return [device for device in devices if kind_of(device, kinds) is not None]
