# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What decides whether the AXCL driver can be installed, and what its packages leave on a host.

Packages, kernels, compilers, Secure Boot, DKMS, and the files of a package that others than its users suffer from.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.apt import NO_APT, Apt, read_apt
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import MODULES as ALL_MODULES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import NODES, Driver, read_driver
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import read_host
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.kernels import (
    Kernel,
    parse_compiler,
    read_compilers,
    read_kernels,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.packages import Package, read_packages
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import DEVICES

MODULES = ALL_MODULES[:5]  # what a working card needs, in the order of loading; the sixth is not loaded
CARD = ("0x1f4b", "0x0650")

SANDBOX = "/etc/apt/apt.conf.d/10sandbox"
SANDBOX_TEXT = 'APT::Sandbox::User "root";'
INSTALL_LOG = "/var/log/axclhost-install.log"
FAILED_LOG = INSTALL_LOG + ".failed"  # the log of an attempt after which another package was installed
SOURCE_TREE = "/usr/src/axcl"  # of the vendor's package
DKMS_TREES = "/var/lib/dkms"
OUR_DKMS = "edgenpu-axcl"  # the name under which DKMS knows the trees that we generate
RECORD = "/var/lib/edgenpu-tuning/axcl_driver.json"
RECORD_SCHEMA = 1
PACKAGES = "/var/lib/edgenpu-tuning/packages"  # the installed .deb, so that a failed upgrade has a way back
TOOLS = ("dkms", "gcc", "make", "patch", "kmod")  # packages that building needs

EFIVARS = "/sys/firmware/efi/efivars"
SECURE_BOOT = EFIVARS + "/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
ENROLLED_KEYS = EFIVARS + "/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"
DKMS_KEYS = ("/var/lib/dkms/mok.pub", "/var/lib/shim-signed/mok/MOK.der")

# A later directory's file is hidden by an earlier one's of the same name.
UDEV_DIRS = (
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
)
AUTOLOAD_DIRS = (
    "/etc/modules-load.d",
    "/run/modules-load.d",
    "/usr/local/lib/modules-load.d",
    "/usr/lib/modules-load.d",
    "/lib/modules-load.d",
)

_AXCL_PACKAGE = re.compile(r"(?:task-)?axclhost(?:-[a-z]+)*|(?:dshanpi-)[a-z0-9-]*axcl[a-z0-9-]*")
_NODE_NAMES = "|".join(node.rpartition("/")[2] for node in NODES)
_RULE = re.compile(r'^[^#\n]*KERNEL=="(?:[^"\n]*\|)?(?:%s)(?:\|[^"\n]*)?"' % _NODE_NAMES, re.MULTILINE)
_HEADERS = re.compile(r"linux-headers-.*")
_LOADERS = ("modprobe", "insmod")
_SERVICE = re.compile(r"/([^/\s]+\.service)(?:/|\s*$)", re.MULTILINE)


class FileThere(NamedTuple):
    """A file that a package or a person has put into one of several directories, by the name under which it counts."""

    name: str
    path: str
    text: str


class DkmsTree(NamedTuple):
    """Sources for DKMS. INSTALLED: releases of the kernels for which it has installed what it built of them.

    REGISTERED: DKMS knows them; a killed run may have left some of ours that it does not (any more). SOURCES: they are
    there; a package that is gone takes them along and may leave the registration.
    """

    name: str
    version: str
    ours: bool
    installed: Tuple[str, ...]
    registered: bool = True
    sources: bool = True


class Holder(NamedTuple):
    """A process that has one of the driver's device nodes open."""

    pid: int
    name: str
    path: str


class Card(NamedTuple):
    """An AX650N card on the PCI bus, and the driver that is bound to it."""

    bdf: str
    driver: Optional[str]


class Record(NamedTuple):
    """What we have installed: the checksum of the .deb file, and what else is ours to remove.

    SHA256 and PACKAGE of a driver in several files: a checksum of theirs all, and the names with blanks between them.
    FAILED: checksum of a file that was to replace it, and the kernel's release for which that did not build.
    """

    sha256: Optional[str]
    package: Optional[str]
    sdk: Optional[str]
    group: Optional[str]  # a group that we have made
    failed: Optional[str]
    held: bool  # the hold is ours
    pin: Optional[str] = None  # what apt's preferences match the repository by that we have set up
    lists: Optional[str] = None  # what the names of the files begin with that apt keeps of it
    unbuilt: Optional[str] = None  # "TREE for RELEASE; ...": what did not build for kernels older than the running one


NO_RECORD = Record(None, None, None, None, None, False)


class DriverState(NamedTuple):
    """One host, as far as the driver goes. None: not known."""

    kernel: Optional[str]
    architecture: Optional[str]  # dpkg's: arm64, amd64
    page_size: Optional[int]  # bytes
    packages: Dict[str, Package]  # those of AXCL
    tools: Dict[str, Package]  # those that building needs, and headers
    kernels: Tuple[Kernel, ...]  # from old to new
    kernel_compiler: Optional[int]  # major version of the gcc that built the running kernel
    compiler: Optional[int]  # of /usr/bin/gcc
    compilers: Tuple[int, ...]
    secure_boot: Optional[bool]
    key_enrolled: bool  # the key with which DKMS signs is one that the firmware accepts
    free_mib: Dict[str, int]  # by directory; empty for a captured tree
    driver: Driver
    cards: Tuple[Card, ...]
    sandbox: Optional[str]
    rules: Tuple[FileThere, ...]  # udev rules for the driver's nodes
    autoload: Tuple[FileThere, ...]  # modules-load.d files that name its modules
    dkms: Tuple[DkmsTree, ...]
    source_tree: bool  # the vendor's, to be built
    groups: Tuple[str, ...]
    stale: Tuple[str, ...]  # srcversions differ: loaded modules that are not the installed ones
    record: Record
    failed_log: bool  # of the build that FAILED in the record tells of
    apt: Apt = NO_APT
    kept: bool = False  # the .deb that the record tells of, for the way back

    @property
    def loaded(self) -> Tuple[str, ...]:
        """The driver's loaded modules, in the order of loading."""
        return tuple(module.name for module in self.driver.modules)


def parse_secure_boot(data: Optional[bytes]) -> Optional[bool]:
    """Return whether an EFI variable SecureBoot says so (four bytes of attributes, then the value); None: no answer."""
    return None if data is None or len(data) != 5 else data[4] == 1


def parse_groups(text: str) -> Tuple[str, ...]:
    """Return the names in /etc/group."""
    return tuple(line.partition(":")[0] for line in text.splitlines() if ":" in line)


def parse_record(text: Optional[str]) -> Record:
    """Return our record of what we have installed; one that cannot be read says nothing."""
    try:
        data: Any = json.loads(text or "")
        if data["schema"] != RECORD_SCHEMA:
            return NO_RECORD
        texts = [data.get(name) for name in Record._fields if name != "held"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return NO_RECORD
    known = [word if isinstance(word, str) else None for word in texts]
    return Record(known[0], known[1], known[2], known[3], known[4], data.get("held") is True, *known[5:])


def is_driver_package(name: str) -> bool:
    """Return True for the name of a package that holds AXCL, or a part of it."""
    return _AXCL_PACKAGE.fullmatch(name) is not None


def names_modules(text: str) -> bool:
    """Return True for a modules-load.d file that loads one of the driver's modules."""
    return any(line.strip() in ALL_MODULES for line in text.splitlines())


def names_nodes(text: str) -> bool:
    """Return True for udev rules that match one of the driver's device nodes."""
    return _RULE.search(text) is not None


def read_effective(root: Root, directories: Sequence[str], ending: str, part: str = "") -> List[FileThere]:
    """Return the files that count in DIRECTORIES, each name once; those with PART in their names."""
    found: Dict[str, FileThere] = {}
    for directory in directories:
        for name in root.names(directory):
            if name.endswith(ending) and part in name and name not in found:
                path = "%s/%s" % (directory, name)
                found[name] = FileThere(name, path, root.text(path) or "")
    return [found[name] for name in sorted(found)]


def read_dkms(root: Root) -> Tuple[DkmsTree, ...]:
    """Return DKMS's versions of the driver, whoever has brought them."""
    trees = []
    for name in root.names(DKMS_TREES):
        directory = "%s/%s" % (DKMS_TREES, name)
        entries = root.names(directory)
        for version in entries:
            if version.startswith("kernel-") or version == "original_module":
                continue
            text = root.text("/usr/src/%s-%s/dkms.conf" % (name, version))
            if text is None:
                text = root.text("%s/%s/source/dkms.conf" % (directory, version))
            # A package that is gone may have left a tree without its sources.
            if name != OUR_DKMS and (MODULES[3] not in text if text is not None else "axcl" not in name):
                continue
            # "kernel-6.1.118-aarch64 -> 3.6.4/6.1.118/aarch64" stands for "installed".
            links = (root.link_target("%s/%s" % (directory, entry)) for entry in entries if entry.startswith("kernel-"))
            parts = [link.split("/")[-3:] for link in links if link is not None]
            installed = tuple(sorted(release for owner, release, _machine in parts if owner == version))
            trees.append(DkmsTree(name, version, name == OUR_DKMS, installed, sources=text is not None))
    known = {tree.version for tree in trees if tree.ours}
    for directory in root.names("/usr/src"):
        version = directory[len(OUR_DKMS) + 1 :]
        if directory.startswith(OUR_DKMS + "-") and version not in known:
            trees.append(DkmsTree(OUR_DKMS, version, True, (), registered=False))
    return tuple(trees)


def read_holders(root: Root, paths: Sequence[str] = NODES) -> Tuple[Holder, ...]:
    """Return the processes that have one of PATHS open. Only root sees those of others."""
    found = []
    for pid in root.names("/proc"):
        if not pid.isdigit():
            continue
        directory = "/proc/%s/fd" % pid
        targets = {root.link_target("%s/%s" % (directory, number)) for number in root.names(directory)}
        for path in sorted(targets.intersection(paths), key=str):
            found.append(Holder(int(pid), root.text("/proc/%s/comm" % pid) or "?", str(path)))
    return tuple(sorted(found))


def read_loaders(root: Root) -> Tuple[Holder, ...]:
    """Return the processes that are loading one of the driver's modules now."""
    found = []
    for pid in root.names("/proc"):
        if pid.isdigit() and root.text("/proc/%s/comm" % pid) in _LOADERS:
            words = (root.text("/proc/%s/cmdline" % pid) or "").split("\0")
            named = [module for module in ALL_MODULES if any(module == _module_of(word) for word in words)]
            found += [Holder(int(pid), root.text("/proc/%s/comm" % pid) or "?", module) for module in named[:1]]
    return tuple(sorted(found))


def _module_of(word: str) -> str:
    return word.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def service_of(root: Root, pid: int) -> Optional[str]:
    """Return the systemd service that a process belongs to; None if it belongs to none."""
    match = _SERVICE.search(root.text("/proc/%d/cgroup" % pid) or "")
    return None if match is None else match.group(1)


def read_cards(root: Root) -> Tuple[Card, ...]:
    """Return the AX650N cards on the PCI bus."""
    found = []
    for bdf in root.names(DEVICES):
        path = "%s/%s/" % (DEVICES, bdf)
        if (root.text(path + "vendor"), root.text(path + "device")) == CARD:
            found.append(Card(bdf, root.link(path + "driver")))
    return tuple(found)


def _free_mib(root: Root, paths: Iterable[str]) -> Dict[str, int]:
    if not root.is_live:
        return {}
    free = {}
    for path in paths:
        try:
            stat = os.statvfs(path)
        except OSError:
            continue
        free[path] = stat.f_bavail * stat.f_frsize >> 20
    return free


def _key_enrolled(root: Root) -> bool:
    enrolled = root.data(ENROLLED_KEYS) or b""
    keys = [root.data(path) or b"" for path in DKMS_KEYS]
    return any(len(key) > 64 and key in enrolled for key in keys)


def read_stale(root: Root, kernels: Sequence[Kernel]) -> Tuple[str, ...]:
    """Return the loaded modules whose source is not that of the installed file, where both tell."""
    found = []
    for kernel in kernels:
        for module in kernel.modules if kernel.running else ():
            loaded = root.text("/sys/module/%s/srcversion" % module.name)
            if loaded and module.srcversion and loaded != module.srcversion:
                found.append(module.name)
    return tuple(found)


def read_driver_state(root: Root) -> DriverState:
    """Return everything that the driver's installation rests on."""
    packages = read_packages(root, is_driver_package)
    tools = read_packages(root, lambda name: name in TOOLS or name == "dpkg" or _HEADERS.fullmatch(name) is not None)
    host = read_host(root)
    kernels = read_kernels(root, ALL_MODULES)
    compiler, compilers = read_compilers(root)
    record = parse_record(root.text(RECORD))
    kept = [name for name in root.names(PACKAGES) if record.sha256 and name.startswith(record.sha256)]
    return DriverState(
        kernel=host.kernel,
        architecture=tools["dpkg"].architecture if "dpkg" in tools else None,
        page_size=host.page_size,
        packages=packages,
        tools=tools,
        kernels=kernels,
        kernel_compiler=parse_compiler(root.text("/proc/version") or ""),
        compiler=compiler,
        compilers=compilers,
        secure_boot=parse_secure_boot(root.data(SECURE_BOOT)),
        key_enrolled=_key_enrolled(root),
        free_mib=_free_mib(root, ("/usr", "/var", "/lib/modules")),
        driver=read_driver(root),
        cards=read_cards(root),
        sandbox=root.text(SANDBOX),
        rules=tuple(one for one in read_effective(root, UDEV_DIRS, ".rules") if names_nodes(one.text)),
        autoload=tuple(one for one in read_effective(root, AUTOLOAD_DIRS, ".conf") if names_modules(one.text)),
        dkms=read_dkms(root),
        source_tree=root.exists(SOURCE_TREE + "/drv/pcie/driver"),
        groups=parse_groups(root.text("/etc/group") or ""),
        stale=read_stale(root, kernels),
        record=record,
        failed_log=root.exists(FAILED_LOG),
        apt=read_apt(root),
        kept=any(name.endswith(".deb") for name in kept),
    )
