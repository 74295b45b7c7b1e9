# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which PCI devices are NPU cards: identities as data, never names.

Sources of the identities: the drivers' own PCI id tables (ax_pcie_host_dev, hailo_pci and hailo1x_pci, amdxdna,
intel_vpu, gasket/apex). The AX8860's is what its maker's tool prints of such a card; its driver was not at hand.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PciDevice


class CardKind(NamedTuple):
    """One entry of the catalogue. None in an identity field means "any".

    CLASS_CODE: two, four or six hexadecimal digits, the beginning of the device's class ("12": any processing
    accelerator). DRIVERS: names in /sys/bus/pci/drivers; MODULES: kernel modules whose loading gives the card its
    interrupts. INTERNAL: part of the processor, so that the registers of its link tell nothing.
    """

    name: str
    vendor: int
    device: int
    subsystem_vendor: Optional[int] = None
    subsystem_device: Optional[int] = None
    drivers: Tuple[str, ...] = ()
    modules: Tuple[str, ...] = ()
    class_code: Optional[str] = None
    internal: bool = False

    @property
    def identity(self) -> Tuple[Any, ...]:
        """What it is recognised by."""
        return (*self[1:5], self.class_code)


AX650N = (0x1F4B, 0x0650)
_XDNA: Dict[str, Any] = {"drivers": ("amdxdna",), "modules": ("amdxdna",), "internal": True}
_IVPU: Dict[str, Any] = {"drivers": ("intel_vpu",), "modules": ("intel_vpu",), "internal": True}
BUILT_IN: Tuple[CardKind, ...] = (
    CardKind("Axera AX650N", *AX650N, drivers=("ax_pcie_dev_host",), modules=("ax_pcie_host_dev",)),  # and AX8850
    CardKind("Axera AX8860", 0x1F4B, 0x8860),  # another driver, and nothing that is said of the AX650N holds for it
    CardKind("Hailo-8", 0x1E60, 0x2864, drivers=("hailo",), modules=("hailo_pci",)),  # and Hailo-8L
    CardKind("Hailo-10H", 0x1E60, 0x45C4, drivers=("hailo", "hailo1x")),
    CardKind("Hailo-15L", 0x1E60, 0x43A2, drivers=("hailo", "hailo1x")),
    CardKind("AMD XDNA (Phoenix, Hawk Point)", 0x1022, 0x1502, **_XDNA),
    CardKind("AMD XDNA 2 (Strix)", 0x1022, 0x17F0, **_XDNA),
    CardKind("Intel NPU (Meteor Lake)", 0x8086, 0x7D1D, **_IVPU),
    CardKind("Intel NPU (Arrow Lake)", 0x8086, 0xAD1D, **_IVPU),
    CardKind("Intel NPU (Lunar Lake)", 0x8086, 0x643E, **_IVPU),
    CardKind("Intel NPU (Panther Lake)", 0x8086, 0xB03E, **_IVPU),
    CardKind("Google Coral Edge TPU", 0x1AC1, 0x089A, drivers=("apex",), modules=("apex",)),
)
# Makers of nothing but NPUs, and the base classes that these have: another device of theirs is probably one, too. It is
# told of, and left alone until somebody names it.
MAKERS = {0x1F4B: ("Axera", ("04", "12")), 0x1E60: ("Hailo", ("0b", "12"))}

_NUMBERS = ("vendor", "device", "subsystem_vendor", "subsystem_device")
# Four digits, no fewer: YAML reads an unquoted 0650 as an octal number and hands over 424.
_IDENTITY = re.compile(r"(?:0x)?([0-9a-fA-F]{4})")
_CLASS = re.compile(r"(?:0x)?((?:[0-9a-fA-F]{2}){1,3})")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")  # of a driver or module; it stands in files that modprobe reads


def _identity(entry: Dict[str, Any], field: str, where: str) -> Optional[int]:
    text = entry.get(field)
    if text is None:
        return None
    match = _IDENTITY.fullmatch(str(text))
    if match is None:
        eaten = str(text).isdecimal() and len("%o" % int(text)) == 3
        hint = "; was it 0%o without quotes? YAML takes that for an octal number" % int(text) if eaten else ""
        raise WishError(
            '%s: %s %r is no PCI identity; write four hexadecimal digits in quotes, such as "1f4b"%s'
            % (where, field, text, hint)
        )
    return int(match.group(1), 16)


def _class_code(entry: Dict[str, Any], where: str) -> Optional[str]:
    text = entry.get("class_code")
    if text is None:
        return None
    match = _CLASS.fullmatch(str(text))
    if match is None:
        raise WishError(
            "%s: class_code %r is no PCI class; write its first two, four or six hexadecimal digits in quotes, such as "
            '"0b40"' % (where, text)
        )
    return match.group(1).lower()


def _vendor_and_device(entry: Dict[str, Any], where: str) -> Tuple[int, int]:
    vendor, device = _identity(entry, "vendor", where), _identity(entry, "device", where)
    if vendor is None or device is None:
        if entry.get("class_code") is not None:
            raise WishError("%s: a class is no identity; name the vendor and the device, too" % where)
        raise WishError("%s: vendor and device are needed, each four hexadecimal digits in quotes" % where)
    if vendor in (0, 0xFFFF) or device == 0xFFFF:
        raise WishError("%s: %04x:%04x is what a slot with no device reads as" % (where, vendor, device))
    if (device, vendor) in {(kind.vendor, kind.device) for kind in BUILT_IN}:
        raise WishError("%s: vendor %04x and device %04x have changed places" % (where, vendor, device))
    return vendor, device


def _internal(entry: Dict[str, Any], where: str) -> bool:
    internal = entry.get("internal")
    if internal not in (None, True, False):
        raise WishError("%s: internal %r is neither true nor false" % (where, internal))
    return bool(internal)


def _names(entry: Dict[str, Any], field: str, where: str) -> Tuple[str, ...]:
    names = entry.get(field) or ()
    if not isinstance(names, (list, tuple)) or not all(_NAME.fullmatch(str(name)) for name in names):
        raise WishError("%s: %s %r is no list of names" % (where, field, names))
    return tuple(str(name) for name in names)


def resolve(extra: Any) -> Tuple[CardKind, ...]:
    """Return the built-in catalogue with the user's entries in front (they win over ours of the same identity).

    EXTRA is a list of dicts, or None, and may come out of a file that a person has edited. Raises WishError for
    anything else, and for an entry that identifies no device, or one that another entry has identified.
    """
    kinds: List[CardKind] = []
    if extra is not None and not isinstance(extra, (list, tuple)):
        raise WishError("devices: %r is no list of devices" % (extra,))
    for position, entry in enumerate(extra or (), 1):
        where = "devices, entry %d" % position
        if not isinstance(entry, dict):
            raise WishError("%s: %r is no device; write vendor and device" % (where, entry))
        vendor, device = _vendor_and_device(entry, where)
        kind = CardKind(
            name=str(entry.get("name") or "%04x:%04x" % (vendor, device)),
            vendor=vendor,
            device=device,
            subsystem_vendor=_identity(entry, "subsystem_vendor", where),
            subsystem_device=_identity(entry, "subsystem_device", where),
            drivers=_names(entry, "drivers", where),
            modules=_names(entry, "modules", where),
            class_code=_class_code(entry, where),
            internal=_internal(entry, where),
        )
        twin = next((at for at, other in enumerate(kinds, 1) if other.identity == kind.identity), None)
        if twin is not None:
            raise WishError("%s: it has the identity of entry %d; make one of them" % (where, twin))
        kinds.append(kind)
    mine = {kind.identity for kind in kinds}
    return tuple(kinds) + tuple(kind for kind in BUILT_IN if kind.identity not in mine)


def to_data(kinds: Iterable[CardKind]) -> List[Dict[str, Any]]:
    """Return the catalogue in the form that `resolve` takes, for the wishes kept on the box."""
    data = []
    for kind in kinds:
        entry: Dict[str, Any] = {"name": kind.name, "drivers": list(kind.drivers), "modules": list(kind.modules)}
        for field in _NUMBERS:
            number = getattr(kind, field)
            if number is not None:
                entry[field] = "%04x" % number
        if kind.class_code is not None:
            entry["class_code"] = kind.class_code
        if kind.internal:
            entry["internal"] = True
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
        if kind.class_code is not None and not _is_of_class(device, kind.class_code):
            continue
        return kind
    return None


def _is_of_class(device: PciDevice, beginning: str) -> bool:
    return device.class_code is not None and ("%06x" % device.class_code).startswith(beginning)


def relatives(devices: Iterable[PciDevice], kinds: Sequence[CardKind]) -> List[Tuple[str, PciDevice]]:
    """Return (maker, device) of devices that are in no catalogue, but look like an NPU of a maker of NPUs."""
    found = []
    for device in devices:
        maker, classes = MAKERS.get(device.vendor or 0, ("", ()))
        if any(_is_of_class(device, beginning) for beginning in classes) and kind_of(device, kinds) is None:
            found.append((maker, device))
    return found


def cards(devices: Iterable[PciDevice], kinds: Sequence[CardKind]) -> List[PciDevice]:
    """Return the NPU cards among DEVICES, in their order (by address)."""
    return [device for device in devices if kind_of(device, kinds) is not None]
