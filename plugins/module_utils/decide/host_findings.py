# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of the host itself an AXCL card suffers from: sleep, IOMMU, page size, modules that may not be loaded. Pure."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import INFO, WARNING, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import LAST_MODULE
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl_host import AxclHost
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import Host
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.kernels import Kernel
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.packages import number_of

SDK_FOR_IOMMU = (3, 4, 0)  # older drivers hand the card addresses that an IOMMU does not know
# systemd's target -> what the kernel needs for it, one of them
_SLEEP = {"suspend": ("mem", "freeze", "standby"), "hibernate": ("disk",)}


def _sleep(axcl: AxclHost) -> Optional[Finding]:
    """A host that may sleep; one that has slept since boot has shown that something makes it."""
    can = [name for name, states in _SLEEP.items() if set(states) & set(axcl.sleep_states)]
    may = [name for name in can if not {"sleep", name} & set(axcl.masked)]
    if not may:
        return None
    evidence: Dict[str, Any] = {"/sys/power/state": " ".join(axcl.sleep_states)}
    evidence.update(("/etc/systemd/system/%s.target" % name, "not masked") for name in ("sleep", *may))
    severity, summary = INFO, "this host may be put to sleep (%s), which the card does not survive" % ", ".join(may)
    if axcl.slept:
        severity = WARNING
        summary = "this host has slept %d time%s since boot, which the card does not survive" % (
            axcl.slept,
            "" if axcl.slept == 1 else "s",
        )
        evidence["/sys/power/suspend_stats/success"] = axcl.slept
    remedy = "Run `systemctl mask sleep.target suspend.target hibernate.target`, or the role axcl_driver."
    return Finding("host_may_sleep", severity, summary, evidence, remedy, "axcl_driver")


def _iommu(axcl: AxclHost, sdk: Optional[str]) -> List[Finding]:
    """A translating IOMMU costs a little with a new driver; with an old one it breaks the transfers."""
    number = number_of(sdk)
    old = number is not None and number < SDK_FOR_IOMMU
    found = []
    for bdf, kind in axcl.iommu:
        if not kind.startswith("DMA"):
            continue
        evidence: Dict[str, Any] = {"/sys/bus/pci/devices/%s/iommu_group/type" % bdf: kind}
        summary = "the IOMMU translates every address that %s uses (%s)" % (bdf, kind)
        remedy = "Nothing has to be done; if transfers matter, iommu=pt on the kernel's command line saves the work."
        if old:
            evidence["driver"] = sdk
            summary += ", which drivers before 3.4.0 do not bear: theirs is %s" % sdk
            remedy = "Install a driver of 3.4.0 or newer, or boot with iommu=pt."
        found.append(
            Finding(
                "iommu_translates", WARNING if old else INFO, summary, evidence, remedy, "axcl_driver" if old else None
            )
        )
    return found


def _page_size(host: Host) -> Optional[Finding]:
    if host.page_size in (None, 4096):
        return None
    kib = (host.page_size or 0) // 1024
    told = "it was reported to work" if kib == 16 else "nobody has told of a working card"
    return Finding(
        "page_size_untested",
        INFO if kib == 16 else WARNING,
        "the kernel's pages have %d KiB; Axera's driver is used with 4 KiB, and of %d KiB %s" % (kib, kib, told),
        {"/proc/self/auxv": "AT_PAGESZ %s" % host.page_size},
        "If the card gives trouble, boot a kernel with pages of 4 KiB (kernel=kernel8.img on a Raspberry Pi 5).",
        None,
    )


def _signatures(axcl: AxclHost, kernels: Sequence[Kernel]) -> Optional[Finding]:
    """A kernel that takes signed modules only, and a driver that is not signed and therefore not loaded."""
    locked = axcl.lockdown in ("integrity", "confidentiality")
    loaded = {module.name for module in axcl.driver.modules}
    unsigned = [
        module.path for kernel in kernels if kernel.running for module in kernel.modules if module.signed is False
    ]
    if not unsigned or LAST_MODULE in loaded or not (locked or axcl.signatures_enforced):
        return None
    evidence: Dict[str, Any] = dict.fromkeys(unsigned, "no signature")
    if locked:
        evidence["/sys/kernel/security/lockdown"] = axcl.lockdown
    if axcl.signatures_enforced:
        evidence["/sys/module/module/parameters/sig_enforce"] = "Y"
    return Finding(
        "driver_not_signed",
        WARNING,
        "this kernel loads signed modules only (Secure Boot), and the card's driver is not signed",
        evidence,
        "Let DKMS sign it with a key of yours and enrol that (mokutil --import), or switch Secure Boot off.",
        None,
    )


def host_findings(host: Host, axcl: AxclHost, kernels: Sequence[Kernel], sdk: Optional[str]) -> List[Finding]:
    """Return the findings on a host with an AXCL card. SDK: the driver's version, as far as it is known."""
    found = [_sleep(axcl), *_iommu(axcl, sdk), _page_size(host), _signatures(axcl, kernels)]
    return [one for one in found if one is not None]
