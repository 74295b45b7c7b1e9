# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to stand in a Raspberry Pi's config.txt so that a card in its PCIe slot works, and why. Pure."""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.raspberry_pi import (
    COMPAT_OVERLAY,
    DMA_OVERLAY,
    KERNEL_4K,
    RaspberryPi,
    Running,
    Settings,
)

OLDEST_BOOTLOADER = "2023-12-06"  # earlier ones do not bring the slot up reliably
DEFAULT_GENERATION = 2  # what the board is certified for
PAGES_4K = 4096
ONE_VECTOR = (3, 10, 2)  # AXCL that is content with one interrupt
AUTO, ALWAYS, NEVER = "auto", "always", "never"
_PCIE = "dtparam=pciex1"
_COMPAT = "dtoverlay=%s,no-mip" % COMPAT_OVERLAY
_DMA = "dtoverlay=%s" % DMA_OVERLAY
_KERNEL = "kernel=%s" % KERNEL_4K


class BootWishes(NamedTuple):
    """GENERATION: None leaves it as it is. SDK: of the driver that is (about to be) installed ("3.6.4")."""

    generation: Optional[int] = None
    compat_overlay: str = AUTO
    dma_32bit: bool = False
    kernel_4k_pages: bool = False
    sdk: Optional[str] = None


class Bound(NamedTuple):
    """A card that has its driver, and whether that one was given an MSI."""

    bdf: str
    has_msi: bool


class Line(NamedTuple):
    """A line for config.txt, what it gives (a key of its settings), and why it is needed."""

    text: str
    key: str
    why: str


def refusal(pi: RaspberryPi) -> Optional[str]:
    """Return in one sentence why this board's boot configuration cannot be changed and what to do; None if it can."""
    model = pi.model or "this Raspberry Pi"
    if not pi.models.names:
        return (
            "%s has no PCIe slot that config.txt could switch on (the Raspberry Pi 5, 500 and Compute Module 5 have "
            "one; that of a Compute Module 4 is always on), so there is nothing to set; take it out of the hosts "
            "that this is for" % model
        )
    if not pi.has_port:
        return (
            "%s has a PCIe port, but the device tree that it was booted with does not know it; boot it from its own "
            "firmware and kernel" % model
        )
    if pi.config is None:
        return "config.txt is neither in /boot/firmware nor in /boot; mount the boot partition and run again"
    if pi.content is None:
        return "%s cannot be read; run as root (become: true), and check that partition if that does not help" % (
            pi.config
        )
    if pi.read_only:
        return "%s is on a partition that is mounted read-only; mount it to be written to and run again" % pi.config
    return None


def _says(settings: Settings, key: str, value: object) -> bool:
    """Return whether it is certain that the file sets KEY to VALUE."""
    setting = settings.get(key)
    return setting is not None and setting.certain and setting.value == value


def _version(sdk: Optional[str]) -> Optional[Tuple[int, ...]]:
    parts = (sdk or "").split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else None


def _compat_reason(pi: RaspberryPi, wishes: BootWishes, cards: List[Bound], kept: bool) -> Optional[str]:
    """Return why the slot needs its own interrupt controller instead of the MIP; None if it does not, as far as known.

    The MIP can be steered to a CPU and the other one cannot, so it is given up only for a driver that it fails.
    """
    if wishes.compat_overlay != AUTO:
        return "wished so" if wishes.compat_overlay == ALWAYS else None
    starved = [card.bdf for card in cards if not card.has_msi]
    if starved and pi.running.no_mip is False:
        return "%s has its driver, but no MSI: the MIP has not enough for it" % starved[0]
    if kept:
        return "it is there, and the card works with it"
    if cards and pi.running.no_mip is False:
        return None  # the card has its interrupt from the MIP
    version = _version(wishes.sdk)
    if version is not None and version < ONE_VECTOR:
        return "AXCL %s asks for several MSIs at once, and the MIP gives it none" % wishes.sdk
    return None


def needed_lines(
    pi: RaspberryPi, settings: Settings, wishes: BootWishes, cards: List[Bound], ours: List[str]
) -> List[Line]:
    """Return what has to be added to a file with these SETTINGS (of others). OURS: the lines of ours in it now."""
    lines = []
    if not _says(settings, "pcie", True):
        lines.append(Line(_PCIE, "pcie", "the PCIe slot is switched on"))
    generation = wishes.generation
    is_default = generation == DEFAULT_GENERATION and "generation" not in settings
    if generation is not None and not is_default and not _says(settings, "generation", generation):
        why = "the slot's speed as wished" + (", not certified for this board" if generation > 2 else "")
        lines.append(Line("dtparam=pciex1_gen=%d" % generation, "generation", why))
    # Another kernel of the user's, or of a distribution, may have these pages already.
    has_them = _says(settings, "kernel", KERNEL_4K) or (pi.page_size == PAGES_4K and _KERNEL not in ours)
    if wishes.kernel_4k_pages and not has_them:
        lines.append(Line(_KERNEL, "kernel", "the kernel with 4 KiB pages"))
    if wishes.dma_32bit and not _says(settings, "dma_32bit", True):
        lines.append(Line(_DMA, "dma_32bit", "the card reaches only 4 GiB, so it sees memory from there"))
    reason = _compat_reason(pi, wishes, cards, _COMPAT in ours)
    if reason is not None and not _says(settings, "no_mip", True):
        lines.append(Line(_COMPAT, "no_mip", reason))
    return lines


def missing_file(pi: RaspberryPi, settings: Settings, lines: List[Line]) -> Optional[str]:
    """Return in one sentence which file of the boot partition LINES need and is not there; None if all are."""
    for key, name, what in (
        ("kernel", KERNEL_4K, "kernel"),
        ("dma_32bit", DMA_OVERLAY, "overlay"),
        ("no_mip", COMPAT_OVERLAY, "overlay"),
    ):
        if not any(line.key == key for line in lines):
            continue
        theirs = settings.get(key)
        if key == "kernel" and theirs is not None:
            return (
                "%s boots the kernel %s (%s), so nothing was changed; 4 KiB pages would need %s instead: take that "
                "line out yourself if that is what you want" % (pi.config, theirs.value, theirs.line, KERNEL_4K)
            )
        if name not in pi.files:
            return (
                "the %s %s is not on the boot partition beside %s, and without it the setting would be ignored or the "
                "board not boot, so nothing was changed; upgrade the firmware and kernel packages"
                % (what, name, pi.config)
            )
    return None


def old_bootloader(pi: RaspberryPi) -> Optional[str]:
    """Return a sentence if the EEPROM's boot loader is too old for the slot; None if not, or unknown."""
    date = pi.bootloader_date
    if date is None or date >= OLDEST_BOOTLOADER:
        return None
    return "the boot loader in the EEPROM is of %s, and cards need one of %s or later" % (date, OLDEST_BOOTLOADER)


_SHOWN = {
    "pcie": "its PCIe slot is %s",
    "generation": "the slot runs at generation %s at most",
    "no_mip": "the slot's own interrupt controller serves it: %s",
    "dma_32bit": "the card sees memory below 4 GiB: %s",
}


def _shown(key: str, value: object) -> str:
    words = ("on", "off") if key == "pcie" else ("yes", "no")
    return _SHOWN[key] % (value if key == "generation" else words[0] if value else words[1])


def pending(pi: RaspberryPi, settings: Settings) -> List[str]:
    """Return, in words, what SETTINGS ask for with certainty and the running boot does not have."""
    found = []
    for key in Running._fields:
        setting, now = settings.get(key), getattr(pi.running, key)
        if setting is not None and setting.certain and None not in (setting.value, now) and setting.value != now:
            found.append("%s (%s), but until a reboot %s" % (setting.line, setting.file, _shown(key, now)))
    if _says(settings, "kernel", KERNEL_4K) and pi.page_size not in (None, PAGES_4K):
        setting = settings["kernel"]
        found.append(
            "%s (%s), but until a reboot pages have %d KiB" % (setting.line, setting.file, (pi.page_size or 0) >> 10)
        )
    return found


def given_up(pi: RaspberryPi, before: Settings, after: Settings) -> List[str]:
    """Return, in words, what the file no longer sets and the running boot still has."""
    found = []
    for key in Running._fields:
        now = getattr(pi.running, key)
        if key in before and key not in after and now is not None and before[key].value == now:
            found.append("%s is taken out, but until a reboot %s" % (before[key].line, _shown(key, now)))
    if _says(before, "kernel", KERNEL_4K) and "kernel" not in after and pi.page_size == PAGES_4K:
        found.append("%s is taken out, but until a reboot pages have 4 KiB" % before["kernel"].line)
    return found
