# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done so that a host has the AXCL driver, for each of its kernels, or has nothing of it any more.

Pure. A plan follows from what is seen alone, so a run that was killed anywhere is made up for by the next one: it sees
how far the other came, and plans the rest.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.repository import (
    Repository,
    is_set_up,
    repository_obstacles,
    wrong_repository,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import (
    CRITICAL,
    INFO,
    OK,
    WARNING,
    Finding,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.apt import SOURCES, parse_sources
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import (
    NODES,
    PCI_DRIVER,
    Event,
    Table,
    compare,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import (
    FAILED_LOG,
    MODULES,
    NO_RECORD,
    OUR_DKMS,
    SANDBOX,
    SANDBOX_TEXT,
    TOOLS,
    DkmsTree,
    DriverState,
    Holder,
    is_driver_package,
    names_modules,
    names_nodes,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.kernels import Kernel, release_key, version_of
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.packages import Package, number_of

UNIT_NAME = "edgenpu-axcl-load.service"
UNIT = "/etc/systemd/system/" + UNIT_NAME
ENABLED = "/etc/systemd/system/multi-user.target.wants/" + UNIT_NAME
UDEV_RULES = "/etc/udev/rules.d/95-edgenpu-axcl.rules"
SLEEP_TARGETS = tuple(
    "/etc/systemd/system/%s.target" % name
    for name in ("sleep", "suspend", "hibernate", "hybrid-sleep", "suspend-then-hibernate")
)

FIRST_SDK_FOR_6_13 = (3, 10, 2)  # the import namespace's macro takes a string since that kernel
OLDEST_GCC = 9
NEEDED_MIB = 600  # of a package that does not tell its size: firmware, libraries and tools
BUILD_MIB = 150
WORKS = "works"
_HOSTS = {"arm64": "arm64", "riscv64": "riscv", "loong64": "loongarch64"}  # how the vendor's makefiles call them
_NAMED_FOR = (("aarch64", "arm64"), ("x86_64", "amd64"), ("loongarch64", "loong64"))  # in names of files
_ERROR = re.compile(
    r"^E: |error:|\berror \d|error!|\bfatal\b|\bfail(?:ed|ure)?\b|no such file|not found|no rule to make", re.IGNORECASE
)

_UNIT_TEXT = """\
# Written by edgenpu.tuning. Loading the last but one of these modules hands each card its firmware and waits until it
# is up: minutes. systemd-modules-load has no time for that, and keeps the boot waiting.
[Unit]
Description=Driver of Axera NPU cards; hands each card its firmware
# Without default dependencies multi-user.target does not wait for this unit. What needs the card says After= its name.
DefaultDependencies=no
After=local-fs.target systemd-udevd.service systemd-modules-load.service
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
%(loads)sTimeoutStartSec=%(limit_s)d
# A card whose start is broken off by force may need its power switched off and on.
SendSIGKILL=no

[Install]
WantedBy=multi-user.target
"""

_RULES_TEXT = """\
# Written by edgenpu.tuning: the card is for the members of one group, not for everybody.
KERNEL=="%s", GROUP="%s", MODE="0660"
"""

_INSTEAD = "# Written by edgenpu.tuning, which has taken out what is now in %s.\n"

_DKMS_TEXT = """\
# Written by edgenpu.tuning: the package builds for the running kernel only; with this DKMS builds for all.
PACKAGE_NAME="%(name)s"
PACKAGE_VERSION="%(version)s"
MAKE[0]="cd drv/pcie/driver && make host=%(host)s KERNEL_VER=$kernelver KERNEL_DIR=/lib/modules/$kernelver \
KERNEL_BUILD=$kernel_source_dir clean all install"
AUTOINSTALL="yes"
"""


class Offer(NamedTuple):
    """What a source offers. SHA256 of the .deb at PATH; both None for a package that apt gets from a repository.

    PACKAGE and the rest are None as long as the file has not been looked at. SDK: the vendor's version ("3.6.4").
    PARTS: the offers of a driver's files, where it comes in several, in the order of installation; SHA256 is of all
    then, PACKAGE the names of all. REPOSITORY: where apt gets the package, if we set that up.
    """

    sha256: Optional[str] = None
    path: Optional[str] = None
    file_name: str = ""
    package: Optional[str] = None
    version: Optional[str] = None
    architecture: Optional[str] = None
    depends: str = ""
    size_mib: Optional[int] = None
    sdk: Optional[str] = None
    problem: Optional[str] = None
    provides: str = ""
    parts: Tuple[Offer, ...] = ()
    repository: Optional[Repository] = None

    @property
    def packages(self) -> List[str]:
        """Names of the packages, as far as they are known."""
        return (self.package or "").split()


class DriverWishes(NamedTuple):
    """How the driver should be. FAMILY: "auto", "vendor", "dkms". LOAD_TIMEOUT_S: for each card."""

    family: str = "auto"
    hold: bool = True
    group: str = "axcl"
    load_timeout_s: int = 300
    prepare: bool = True
    headers_package: Optional[str] = None
    prevent_sleep: bool = True


class Step(NamedTuple):
    """One thing to do. KIND is what act knows; TARGET and WHY are for people, too."""

    kind: str
    target: str
    before: Optional[str]
    after: Optional[str]
    why: str


class Plan(NamedTuple):
    """Steps in their order; LATER: those that will follow, as far as can be told. OBSTACLES: nothing may be done."""

    steps: List[Step]
    later: List[Step]
    obstacles: List[str]
    warnings: List[str]
    unknown: List[str]


_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_GROUP = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_PLACES = ("file", "path", "url")
_SOURCES = (*_PLACES, "files", "package")


def wrong_source(source: Mapping[str, Any]) -> Optional[str]:
    """Return what is wrong with a source as the user wrote it, in one sentence; None if it can be used."""
    given = [name for name in _SOURCES if source.get(name)]
    if len(given) != 1:
        return "source: give one of file, path, url, files and package; %s given" % (" and ".join(given) or "none is")
    (kind,) = given
    sha256 = source.get("sha256")
    if kind == "package":
        if sha256:
            return "source: sha256 is for files; apt checks packages of a repository itself"
        if not is_driver_package(source["package"]):
            return (
                "source: package %r is no AXCL driver; write the name of its package, such as axclhost"
                % (source["package"])
            )
        return wrong_repository(source["repository"]) if source.get("repository") else None
    if source.get("repository"):
        return "source: repository is for a package; write package: axclhost beside it"
    if source.get("version"):
        return "source: version is for packages of a repository; a %s has its own" % kind
    if kind == "files":
        if sha256:
            return "source: sha256 stands with each of the files"
        wrong = (_wrong_file(one, bool(source.get("checksum_none_accepted"))) for one in source["files"])
        return next((trouble for trouble in wrong if trouble is not None), None)
    return _wrong_file(source, bool(source.get("checksum_none_accepted")))


def _wrong_file(source: Mapping[str, Any], unchecked: bool) -> Optional[str]:
    """Return what is wrong with one .deb file as the user wrote it; UNCHECKED: it may come without a checksum."""
    given = [name for name in _PLACES if source.get(name)]
    if len(given) != 1:
        return "source: files: give one of file, path and url for each; %s given" % (" and ".join(given) or "none is")
    (kind,) = given
    sha256 = source.get("sha256")
    if sha256 and not _SHA256.fullmatch(sha256):
        return "source: sha256 %r is no checksum; it has 64 hexadecimal digits" % sha256
    if kind == "url" and not re.match(r"(?:https?|ftp|file)://", source["url"]):
        return "source: url %r is no address; write https://..." % source["url"]
    if not sha256 and not unchecked:
        return (
            "source: %s needs sha256, so that what is built into the kernel is what you mean; "
            "or set checksum_none_accepted: true" % kind
        )
    return None


def wrong_wishes(wishes: DriverWishes) -> Optional[str]:
    """Return what is wrong with the wishes, in one sentence; None if they can be granted."""
    if not _GROUP.fullmatch(wishes.group):
        return "group: %r is no name of a group; write one such as axcl" % wishes.group
    if not 10 <= wishes.load_timeout_s <= 3600:
        return "load_timeout: %d s is no limit for one card; write 10 to 3600" % wishes.load_timeout_s
    return None


def drivers_of(state: DriverState) -> List[Package]:
    """Return the packages of AXCL of which anything is on the host, by name."""
    return [package for name, package in sorted(state.packages.items()) if package.present]


def is_installed(state: DriverState, offer: Optional[Offer]) -> bool:
    """Tell whether what the source offers is what is installed, whole. Without a source, any whole driver is right."""
    present = drivers_of(state)
    if not present or not all(package.sound for package in present):
        return False
    if offer is None:
        return True
    if offer.sha256 is not None:
        names = (state.record.package or "").split()
        return state.record.sha256 == offer.sha256 and bool(names) and all(name in state.packages for name in names)
    package = state.packages.get(offer.package or "")
    return package is not None and offer.version in (None, package.version)


def sha256_of_all(checksums: Sequence[str]) -> str:
    """Return by what a driver in these files is recognised, in whatever order they are: one file's own checksum."""
    if len(checksums) == 1:
        return checksums[0]
    return hashlib.sha256("".join(one + "\n" for one in sorted(checksums)).encode("ascii")).hexdigest()


def _relations(depends: str) -> List[List[str]]:
    """Return the names in a control field of relations: a list of alternatives for each."""
    return [
        [re.split(r"[\s(:\[<]", one.strip(), maxsplit=1)[0] for one in relation.split("|")]
        for relation in depends.split(",")
        if relation.strip()
    ]


def _brings(part: Offer) -> List[str]:
    return [str(part.package), *(name for names in _relations(part.provides) for name in names)]


def all_of(parts: Sequence[Offer]) -> Offer:
    """Return the offer of a driver in several files: whole if each is, in an order in which dpkg can unpack them."""
    sha256 = sha256_of_all([str(part.sha256) for part in parts])
    bad = next((part for part in parts if part.problem is not None), None)
    if bad is not None:
        return bad._replace(sha256=sha256)
    left, ordered = sorted(parts, key=lambda part: str(part.package)), []  # type: List[Offer], List[Offer]
    while left:
        waits = {name: part for part in left for name in _brings(part)}
        ready = [
            part
            for part in left
            if not any(waits.get(name, part) is not part for names in _relations(part.depends) for name in names)
        ]
        ordered += ready or left  # a ring of them is dpkg's to break
        left = [part for part in left if part not in ordered]
    sizes = [part.size_mib for part in ordered]
    return Offer(
        sha256=sha256,
        file_name=", ".join(part.file_name for part in ordered),
        package=" ".join(sorted(str(part.package) for part in ordered)),
        version=next((part.version for part in ordered), None),
        depends=", ".join(part.depends for part in ordered if part.depends),
        size_mib=None if None in sizes else sum(size or 0 for size in sizes),
        sdk=next((part.sdk for part in ordered if part.sdk is not None), None),
        parts=tuple(ordered),
    )


def failure(sha256: Optional[str], release: Optional[str]) -> str:
    """Return what our record says of a package that did not build for a kernel."""
    return "%s for %s" % (sha256, release)


def is_older(state: DriverState, release: str) -> bool:
    """Tell whether a kernel is older than the running one: nobody waits for the driver there."""
    return state.kernel is not None and release_key(release) < release_key(state.kernel)


def gave_up(state: DriverState, name: str) -> List[str]:
    """Return the older kernels for which DKMS's tree NAME is known not to build."""
    pairs = [one.partition(" for ") for one in (state.record.unbuilt or "").split("; ")]
    return [release for tree, _for, release in pairs if tree == name and is_older(state, release)]


def builds_for(sdk: Optional[str], release: str) -> bool:
    """Return False for a pair of driver and kernel that is known not to build."""
    numbers, kernel = number_of(sdk), version_of(release)
    return numbers is None or kernel is None or kernel < (6, 13) or numbers >= FIRST_SDK_FOR_6_13


def brings_dkms(state: DriverState, offer: Optional[Offer], wishes: DriverWishes) -> bool:
    """Tell whether the package registers itself with DKMS."""
    if wishes.family != "auto":
        return wishes.family == "dkms"
    if offer is not None and not is_installed(state, offer):
        return re.search(r"\bdkms\b", offer.depends) is not None or offer.sha256 is None
    return any(not tree.ours and tree.sources for tree in state.dkms) or not state.source_tree


def tree_version(package_version: Optional[str], sdk: Optional[str], sha256: Optional[str]) -> str:
    """Return the version under which DKMS knows a tree of ours: another package is another version."""
    plain = re.sub(r"[^0-9A-Za-z.+~]", ".", sdk or package_version or "0")
    return plain if sha256 is None else "%s-%s" % (plain, sha256[:8])


def our_tree(state: DriverState) -> str:
    """Return the version of the tree that we generate from what is installed now."""
    package = state.packages.get(state.record.package or "") or next(iter(drivers_of(state)), None)
    return tree_version(None if package is None else package.version, state.record.sdk, state.record.sha256)


def dkms_host(architecture: Optional[str]) -> str:
    """Return how the vendor's makefiles call an architecture of dpkg's."""
    return _HOSTS.get(architecture or "", "x86")


def dkms_text(version: str, architecture: Optional[str]) -> str:
    """Return the dkms.conf for the vendor's source tree. The build is serial: in parallel its rules race."""
    host = dkms_host(architecture)
    text = _DKMS_TEXT % {"name": OUR_DKMS, "version": version, "host": host}
    for at, module in enumerate(MODULES):
        text += 'BUILT_MODULE_NAME[%d]="%s"\n' % (at, module)
        text += 'BUILT_MODULE_LOCATION[%d]="out/axcl_linux_%s/ko/"\n' % (at, host)
        text += 'DEST_MODULE_LOCATION[%d]="/updates"\n' % at
    return text


def limit_s(state: DriverState, wishes: DriverWishes) -> int:
    """Return how long loading the modules may take, all cards together, in seconds."""
    return wishes.load_timeout_s * max(1, len(state.cards))


def without(text: str, nodes: bool, path: str) -> str:
    """Return a file's text without the lines about the driver: about its device nodes with NODES, else its modules."""
    about = names_nodes if nodes else names_modules
    kept = [line for line in text.splitlines() if not about(line)]
    return _INSTEAD % path + "".join(line + "\n" for line in kept)


def files(state: DriverState, wishes: DriverWishes) -> Tuple[Dict[str, str], Dict[str, str]]:
    """Return the files that should be there, and the links: text and target by path."""
    loads = "".join("ExecStart=/sbin/modprobe %s\n" % module for module in MODULES)
    nodes = "|".join(node.rpartition("/")[2] for node in NODES)
    texts = {
        UNIT: _UNIT_TEXT % {"loads": loads, "limit_s": limit_s(state, wishes)},
        UDEV_RULES: _RULES_TEXT % (nodes, wishes.group),
    }
    for there in state.rules:
        if there.path != UDEV_RULES:
            texts["/etc/udev/rules.d/" + there.name] = without(there.text, True, UDEV_RULES)
    for there in state.autoload:
        texts["/etc/modules-load.d/" + there.name] = without(there.text, False, UNIT)
    links = {ENABLED: "../" + UNIT_NAME}
    if wishes.prevent_sleep:
        links.update((path, "/dev/null") for path in SLEEP_TARGETS)
    return texts, links


def has_driver(kernel: Kernel, places: Sequence[str] = ("updates", "extra")) -> bool:
    """Tell whether a kernel has all the driver's modules, built for it; compressed ones are taken at their name."""
    right = {
        module.name.replace("-", "_")
        for module in kernel.modules
        if module.path.split("/")[4] in places
        and (module.vermagic is None or module.vermagic.split(" ")[0] == kernel.release)
    }
    return right.issuperset(MODULES)


def _obstacles(state: DriverState, offer: Optional[Offer], wishes: DriverWishes) -> List[str]:
    """Return what speaks against installing what the source offers, before anything has been touched."""
    found: List[str] = []
    release = state.kernel or "?"
    if state.architecture is None:
        return [
            "dpkg's database tells no architecture, and only Debian packages can be installed here; install it by hand"
        ]
    if offer is None:
        half = [package for package in drivers_of(state) if not package.sound]
        if half:
            return [
                "package %s is %s and there is no source to install it from again; give one"
                % (half[0].name, half[0].state)
            ]
        return ["no AXCL driver is installed and there is no source to install one from; give one"]
    if offer.problem is not None:
        return ["%s: %s; get it again" % (offer.path or offer.file_name, offer.problem)]
    for part in offer.parts or (offer,):
        found += _wrong_part(part, str(state.architecture), offer.parts)
    if offer.repository is not None:
        found += repository_obstacles(state.apt, offer.repository, state.architecture)
    if state.secure_boot and not (brings_dkms(state, offer, wishes) and state.key_enrolled):
        found.append(
            "Secure Boot is on, so this kernel takes only signed modules; switch it off in the firmware, or take a "
            "package that builds through DKMS and enrol DKMS's key (mokutil --import /var/lib/dkms/mok.pub)"
        )
    if not builds_for(offer.sdk, release):
        found.append(
            "driver %s does not build for kernel %s: from 6.13 on it takes %s or newer"
            % (offer.sdk, release, ".".join(map(str, FIRST_SDK_FOR_6_13)))
        )
    if state.failed_log and state.record.failed == failure(offer.sha256, state.kernel):
        # Trying again would cost the working driver's users minutes, at every run.
        found.append(
            "%s did not build for kernel %s before, and the driver that was there was put back; see %s, and remove "
            "that file to try again" % (offer.file_name or offer.path, release, FAILED_LOG)
        )
    oldest = max(OLDEST_GCC, state.kernel_compiler or 0)
    if state.compiler is not None and state.compiler < oldest:
        found.append(
            "kernel %s was built with gcc %d and /usr/bin/gcc is %d, which does not know its options; install gcc-%d "
            "and make it the default (update-alternatives --install /usr/bin/gcc gcc /usr/bin/gcc-%d 100)"
            % (release, oldest, state.compiler, oldest, oldest)
        )
    needed = (NEEDED_MIB if offer.size_mib is None else offer.size_mib) + BUILD_MIB
    for path, free in sorted(state.free_mib.items()):
        if free < (needed if path == "/usr" else BUILD_MIB):
            wanted = needed if path == "/usr" else BUILD_MIB
            found.append("%s has %d MiB free and about %d are needed; make room" % (path, free, wanted))
    missing = _missing(state, wishes)
    if missing and not wishes.prepare:
        found.append("not installed, and prepare is off: %s; install that first" % ", ".join(missing))
    return found


def _wrong_part(offer: Offer, architecture: str, parts: Sequence[Offer]) -> List[str]:
    """Return what speaks against installing one file of a driver that comes in all PARTS."""
    found: List[str] = []
    what = offer.path or offer.file_name or offer.package
    if offer.package is not None and offer.sha256 is not None and not is_driver_package(offer.package):
        told = "%s holds the package %s, which is no AXCL driver; give the driver's package"
        found.append(told % (what, offer.package))
    wrong = offer.architecture not in (None, "all", architecture)
    named = [machine for word, machine in _NAMED_FOR if word in offer.file_name]
    if wrong or (named and architecture not in named):
        found.append(
            "%s is built for %s and this host is %s; take the package for %s"
            % (what, offer.architecture if wrong else named[0], architecture, architecture)
        )
    twins = [part for part in parts if part.package == offer.package]
    if len(twins) > 1 and twins[0] is offer:
        found.append(
            "the package %s is in more than one of the files (%s); give each once"
            % (offer.package, ", ".join(part.file_name for part in twins))
        )
    brought = {name for part in parts or (offer,) for name in _brings(part)} if offer.sha256 is not None else set()
    for names in _relations(offer.depends) if brought else ():
        if all(is_driver_package(name) and name not in brought for name in names):
            found.append(
                "%s needs the package %s, which is not among the files; give all files of the driver"
                % (what, " or ".join(names))
            )
    return found


def busy(holders: Sequence[Holder]) -> List[str]:
    """Return the obstacle that processes are which use the card."""
    if not holders:
        return []
    who = sorted({"%s (PID %d)" % (holder.name, holder.pid) for holder in holders})
    return [
        "the driver cannot be unloaded while it is in use by %s; stop that first (never with SIGKILL: the card would "
        "need its power switched off and on)" % ", ".join(who)
    ]


def _warnings(state: DriverState, offer: Optional[Offer]) -> List[str]:
    found = []
    if state.page_size not in (None, 4096, 16384):
        found.append(
            "this kernel has pages of %d KiB; the driver is known to work with 4 and 16"
            % ((state.page_size or 0) >> 10)
        )
    if state.kernel_compiler is not None and state.compiler is not None and state.compiler > state.kernel_compiler:
        found.append(
            "/usr/bin/gcc is %d and kernel %s was built with %d; that builds as a rule, with a warning"
            % (state.compiler, state.kernel, state.kernel_compiler)
        )
    if not state.cards:
        found.append("no AX650N card is on the PCI bus; the driver is installed all the same")
    sdk = offer.sdk if offer is not None and offer.sdk is not None else state.record.sdk
    for kernel in state.kernels:
        if any(kernel.release in gave_up(state, "%s/%s" % (tree.name, tree.version)) for tree in state.dkms):
            found.append(
                "the driver does not build for kernel %s, which is older than the running one; it is not tried again "
                "with this driver; remove that kernel if you do not need it" % kernel.release
            )
        newer = state.kernel is not None and release_key(kernel.release) > release_key(state.kernel)
        if not newer or has_driver(kernel):
            continue
        if not builds_for(sdk, kernel.release):
            found.append(
                "do not boot kernel %s yet: driver %s does not build for it, from 6.13 on it takes %s or newer"
                % (kernel.release, sdk, ".".join(map(str, FIRST_SDK_FOR_6_13)))
            )
        elif not kernel.headers:
            found.append(
                "do not boot kernel %s yet: it has no headers, so the driver cannot be built for it; install its "
                "headers and run this again" % kernel.release
            )
    return found


def _missing(state: DriverState, wishes: DriverWishes) -> List[str]:
    """Return the packages that have to be there before the driver is built, and are not."""
    missing = [name for name in TOOLS if name not in state.tools or not state.tools[name].sound]
    running = [kernel for kernel in state.kernels if kernel.running]
    if not any(kernel.headers for kernel in running) and state.kernel is not None:
        missing.append(wishes.headers_package or "linux-headers-" + state.kernel)
    return missing


def _tree(state: DriverState, dkms: bool) -> Optional[DkmsTree]:
    """Return DKMS's tree of the driver that is installed now; None if there is none (yet)."""
    if dkms:
        return next((tree for tree in reversed(state.dkms) if not tree.ours and tree.sources), None)
    mine = (tree for tree in state.dkms if tree.ours and tree.registered)
    return next((tree for tree in mine if tree.version == our_tree(state)), None)


def _kernels_to_build(state: DriverState, sdk: Optional[str]) -> List[Kernel]:
    return [kernel for kernel in state.kernels if kernel.headers and builds_for(sdk, kernel.release)]


def _build(name: str, kernel: Kernel) -> Step:
    return Step("build", kernel.release, None, name, "the driver for kernel %s, through DKMS" % kernel.release)


def _after_install(state: DriverState, wishes: DriverWishes, sandbox: Optional[str]) -> List[Step]:
    """Return what is still to be done once the right package is installed."""
    steps: List[Step] = []
    steps += _sandbox(state.sandbox, sandbox)
    dkms = brings_dkms(state, None, wishes)
    for old in state.dkms:
        if old.ours and (dkms or old.version != our_tree(state)):
            steps.append(Step("untree", "%s/%s" % (old.name, old.version), "registered", None, "of an earlier package"))
    steps += _orphans(state)
    tree = _tree(state, dkms)
    name = "%s/%s" % (OUR_DKMS, our_tree(state)) if tree is None else "%s/%s" % (tree.name, tree.version)
    if tree is None and not dkms:
        steps.append(Step("tree", name, None, "registered", "so that DKMS builds the driver for every kernel"))
    for kernel in _kernels_to_build(state, state.record.sdk) if tree is not None or not dkms else ():
        if kernel.release in gave_up(state, name):
            continue
        if tree is None or kernel.release not in tree.installed or not has_driver(kernel, ("updates",)):
            steps.append(_build(name, kernel))
    for kernel in state.kernels:
        if has_driver(kernel, ("updates",)):
            steps += _drop(kernel, ("extra",), "DKMS's are used, and cleaned with the kernel")
    if wishes.group not in state.groups:
        steps.append(Step("group", wishes.group, None, "system group", "whose members may use the card"))
    steps += _holds(state, wishes)
    return steps


def _orphans(state: DriverState) -> List[Step]:
    """Return the steps that take what packages which are gone have left registered with DKMS."""
    why = "its sources went with its package, so nothing can be built of it"
    gone = ["%s/%s" % (tree.name, tree.version) for tree in state.dkms if not tree.ours and not tree.sources]
    return [Step("untree", name, "registered", None, why) for name in gone]


def _drop(kernel: Kernel, places: Sequence[str], why: str) -> List[Step]:
    """Return the step that removes what was built for a kernel from PLACES."""
    copies = [module.path for module in kernel.modules if module.path.split("/")[4] in places]
    return [Step("drop", " ".join(copies), "built for kernel " + kernel.release, None, why)] if copies else []


def _holds(state: DriverState, wishes: DriverWishes) -> List[Step]:
    names = [package.name for package in drivers_of(state) if package.sound and package.want != "hold"]
    if wishes.hold and names:
        why = "an upgrade must take the old driver away first, which apt does not; this role does"
        return [Step("hold", " ".join(names), "install", "hold", why)]
    if not wishes.hold and state.record.held:
        held = [package.name for package in drivers_of(state) if package.want == "hold"]
        return [Step("unhold", " ".join(held), "hold", "install", "no longer wished")] if held else []
    return []


def _loading(state: DriverState) -> List[Step]:
    running = next((kernel for kernel in state.kernels if kernel.running), None)
    missing = [module for module in MODULES if module not in state.loaded]
    if not missing or running is None or not has_driver(running):
        return []
    why = "hands each card its firmware, which takes up to minutes"
    return [Step("load", " ".join(missing), None, "loaded", why)]


def nodes_step(state: DriverState, wishes: DriverWishes) -> List[Step]:
    """Return the step that gives device nodes which are there already to their group."""
    wrong = [
        node
        for node in state.driver.nodes
        if node.mode != "0660" or (node.group is not None and not node.group.isdigit() and node.group != wishes.group)
    ]
    if not wrong:
        return []
    was = ", ".join("%s %s" % (node.mode, node.group) for node in wrong)
    after = "0660 %s" % wishes.group
    return [Step("nodes", " ".join(node.path for node in wrong), was, after, "the card is not for everybody")]


def plan_present(
    state: DriverState,
    offer: Optional[Offer],
    wishes: DriverWishes,
    holders: Sequence[Holder] = (),
    sandbox: Optional[str] = None,
) -> Plan:
    """Return what is to be done so that what OFFER has is installed and works on every kernel.

    HOLDERS: processes that use the card. SANDBOX: what apt's sandbox file held before we installed anything.
    """
    warnings = _warnings(state, offer)
    repository = _repository(state, offer)
    if is_installed(state, offer):
        steps = repository + _after_install(state, wishes, sandbox)
        obstacles: List[str] = []
        if offer is not None and offer.repository is not None:
            # What is installed works without the key; only what has to be done needs it.
            told = repository_obstacles(state.apt, offer.repository, state.architecture)
            obstacles, warnings = (told, warnings) if repository else ([], warnings + told)
        if any(step.kind in ("tree", "build") for step in steps):
            missing = _missing(state, wishes)
            if missing and wishes.prepare:
                steps.insert(0, _tools(missing))
            elif missing:
                obstacles += _obstacles(state, Offer(package="axclhost"), wishes)
        steps += _loading(state) if not any(step.kind == "build" for step in steps) else []
        steps += nodes_step(state, wishes)
        return Plan(steps, [], obstacles, warnings, [])
    obstacles = _obstacles(state, offer, wishes)
    save = _save(state)
    late: List[Step] = []
    if offer is not None and offer.repository is not None:
        steps = repository + save  # which may have the one that is there, too
    elif offer is not None and offer.sha256 is not None:
        steps, late = save, repository  # the source of the one that is there stays until it is not needed any more
    else:
        steps = save + repository
    missing = _missing(state, wishes)
    if missing and wishes.prepare:
        steps.append(_tools(missing))
    if state.loaded:
        obstacles += busy(holders)
    if offer is not None and offer.sha256 is None and not offer.problem:
        name = "%s=%s" % (offer.package, offer.version) if offer.version else str(offer.package)
        steps.append(Step("fetch", name, None, "fetched", "before the driver that is there is taken away"))
    steps += _taking_away(state)
    what = "the driver's package" if offer is None or offer.package is None else offer.package
    version = None if offer is None else offer.version
    if offer is not None and offer.sdk not in (None, version):
        version = "%s, SDK %s" % (version or "?", offer.sdk)
    steps.append(Step("install", what, None, version or "installed", "the driver, its tools and the card's firmware"))
    unknown = _unknown(state, offer)
    if save and save[0].before == WORKS:
        unknown.append(
            "whether there is a way back to %s: unknown until apt was asked for it; if it has it not, nothing is "
            "changed" % save[0].target
        )
    return Plan(steps, late + _predicted(state, offer, wishes), obstacles, warnings, unknown)


def _save(state: DriverState) -> List[Step]:
    """Return the step that gets what is installed once more, where there is no file of it for the way back."""
    there = [package for package in drivers_of(state) if package.state != "config-files"]
    if state.kept or not there or not all(package.sound for package in there):
        return []
    names = " ".join("%s=%s" % (package.name, package.version) for package in there)
    works = any(kernel.running and has_driver(kernel) for kernel in state.kernels)
    why = "the way back, if the new one cannot be installed"
    return [Step("save", names, WORKS if works else "does not work", "fetched", why)]


def no_way_back(names: str, why: Optional[str]) -> str:
    """Return why a driver that works is not replaced. WHY: what apt says."""
    return (
        "%s works, and there would be no way back to it if the new one fails: this role has no file of it and apt "
        "cannot fetch it (%s); the driver was left alone. Remove it first (state: absent), or give apt a source that "
        "has it" % (names, why)
    )


def _repository(state: DriverState, offer: Optional[Offer]) -> List[Step]:
    """Return the step that sets a repository up, or (where the driver comes from elsewhere now) that takes it away."""
    pin = state.record.pin
    if offer is not None and offer.repository is None and pin is not None:
        return [Step("unlist", state.record.lists or "", pin, None, "the driver comes from elsewhere now")]
    if offer is None or offer.repository is None:
        return []
    asked = offer.repository
    known = is_set_up(state.apt, asked, str(state.architecture), pin)
    if known and is_installed(state, offer):
        return []
    name = "%s %s" % (asked.uri, asked.suite)
    why = "apt's source of the driver, and pinned so that nothing else comes from there"
    if known:
        return [Step("repository", name, "known", "read again", "what it has now")]
    return [Step("repository", name, None, "known", why)]


def _tools(missing: Sequence[str]) -> Step:
    return Step(
        "tools", " ".join(missing), None, "installed", "the driver is built on this host, against its kernel's headers"
    )


def _taking_away(state: DriverState) -> List[Step]:
    """Return what takes the driver that is there away: the vendor wants that before every upgrade."""
    steps = []
    present = drivers_of(state)
    if state.loaded:
        steps.append(
            Step("unload", " ".join(reversed(state.loaded)), "loaded", None, "before the driver is taken away")
        )
    held = [package.name for package in present if package.want == "hold"]
    if held:
        steps.append(Step("unhold", " ".join(held), "hold", "install", "before the driver is taken away"))
    for tree in state.dkms:
        if tree.ours:
            name = "%s/%s" % (tree.name, tree.version)
            steps.append(Step("untree", name, "registered", None, "with the package that it was made from"))
    if present:
        names = " ".join(package.name for package in present)
        was = ", ".join("%s %s" % (package.version or "?", package.state) for package in present)
        steps.append(Step("purge", names, was, None, "the driver is taken away whole before another one comes"))
    return steps


def _predicted(state: DriverState, offer: Optional[Offer], wishes: DriverWishes) -> List[Step]:
    """Return what will follow the installation, as far as can be told before it."""
    later = []
    sdk = None if offer is None else offer.sdk
    if not brings_dkms(state, offer, wishes):
        later += _orphans(state)
        version = tree_version(None if offer is None else offer.version, sdk, None if offer is None else offer.sha256)
        name = "%s/%s" % (OUR_DKMS, version)
        later.append(Step("tree", name, None, "registered", "so that DKMS builds the driver for every kernel"))
    else:
        name = "DKMS"
    later += [_build(name, kernel) for kernel in _kernels_to_build(state, sdk)]
    if wishes.group not in state.groups:
        later.append(Step("group", wishes.group, None, "system group", "whose members may use the card"))
    if wishes.hold and offer is not None and offer.package is not None:
        later.append(Step("hold", offer.package, "install", "hold", "an upgrade must take the old driver away first"))
    return later


def _unknown(state: DriverState, offer: Optional[Offer]) -> List[str]:
    unknown = ["whether the driver builds for kernel %s: unknown until it has been built" % (state.kernel or "?")]
    if offer is not None and offer.repository is not None:
        if offer.repository.key is None:
            unknown.append("whether the repository's key is the right one: unknown until it has been fetched")
        unknown.append("whether the repository can be reached and has the package: unknown until apt has read it")
    if offer is not None and offer.package is None:
        unknown.insert(0, "name, version and architecture of the package: unknown until it has been fetched")
    unknown.append("which udev rules and autoload files are replaced: unknown until the package is unpacked")
    if state.cards:
        unknown.append("whether the card comes up: unknown until it has its firmware")
    return unknown


def plan_absent(state: DriverState, holders: Sequence[Holder] = (), leavings: Sequence[str] = ()) -> Plan:
    """Return what is to be done so that nothing of the driver is left. LEAVINGS: paths that no package lists."""
    steps = _taking_away(state)
    if not drivers_of(state) and state.record == NO_RECORD:
        # Modules that somebody has put there by hand are theirs.
        return Plan([step for step in steps if step.kind == "untree"], [], [], [], [])
    if not drivers_of(state):
        for tree in state.dkms:
            if not tree.ours:
                name = "%s/%s" % (tree.name, tree.version)
                steps.append(Step("untree", name, "registered", None, "left by the package"))
    steps += _sandbox(state.sandbox, None)
    for kernel in state.kernels:
        steps += _drop(kernel, ("updates", "extra"), "no package removes them for all kernels")
    for path in leavings:
        steps.append(Step("remove", path, "left by the driver", None, "no package removes it"))
    if state.record.group is not None and state.record.group in state.groups:
        steps.append(Step("ungroup", state.record.group, "system group", None, "made by us"))
    return Plan(steps, [], busy(holders) if state.loaded else [], [], [])


def _sandbox(text: Optional[str], original: Optional[str]) -> List[Step]:
    """Return the step that gives apt its sandbox back. ORIGINAL: what the file held before we installed anything."""
    if text is None or SANDBOX_TEXT not in text.splitlines() or text == original:
        return []
    kept = "\n".join(line for line in text.splitlines() if line != SANDBOX_TEXT) or None
    after = kept if original is None else original
    return [Step("sandbox", SANDBOX, text, after, "the package had switched off the sandbox of apt's downloads")]


def first_error(log: str) -> Optional[str]:
    """Return the line of a build's log that names what went wrong first; the last line where none does."""
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line).strip() for line in log.splitlines()]
    lines = [line for line in lines if line]
    found = next((line for line in lines if _ERROR.search(line)), lines[-1] if lines else None)
    return None if found is None else found[:300]


def reboot_reason(state: DriverState) -> Optional[str]:
    """Return why only a reboot (or unloading by hand) puts the installed driver in force; None if it is in force."""
    if state.stale:
        return "loaded modules are not the installed ones: %s" % ", ".join(state.stale)
    return None


def _check(name: str, good: Optional[bool], summary: str, evidence: Dict[str, object], remedy: str) -> Finding:
    severity = WARNING if good is None else OK if good else CRITICAL
    return Finding(name, severity, summary, evidence, "" if good else remedy, None if good else "axcl_driver")


def _came_up(events: Sequence[Event], bus: int) -> Optional[Event]:
    """Return the last thing that the kernel log tells of a card's life; None if it does not tell."""
    telling = (
        "handshake_done",
        "card_alive",
        "handshake_timeout",
        "firmware_push_failed",
        "card_dead",
        "firmware_missing",
    )
    return next((event for event in reversed(events) if event.id in telling and event.device in (None, bus)), None)


def proof(state: DriverState, wishes: DriverWishes, table: Optional[Table], events: Sequence[Event]) -> List[Finding]:
    """Return what shows that the driver works, or does not: one finding for each thing looked at.

    TABLE: axcl-smi's, None if it could not be asked. EVENTS: of the kernel log. "warning" is "could not be seen".
    """
    found = []
    present = drivers_of(state)
    whole = bool(present) and all(package.sound for package in present)
    states = {package.name: "%s %s" % (package.version, package.state) for package in present}
    found.append(
        _check(
            "driver_installed",
            whole,
            "the package is %s" % ("whole" if whole else "not installed, or not whole"),
            dict(states),
            "Run the role axcl_driver with a source.",
        )
    )
    running = next((kernel for kernel in state.kernels if kernel.running), None)
    built = running is not None and has_driver(running)
    vermagic = {} if running is None else {module.path: module.vermagic for module in running.modules}
    found.append(
        _check(
            "driver_built",
            built,
            "kernel %s has %s" % (state.kernel, "all modules" if built else "not all modules that it needs"),
            dict(vermagic),
            "Run the role axcl_driver; `dkms status` tells what was built.",
        )
    )
    missing = [module for module in MODULES if module not in state.loaded]
    found.append(
        _check(
            "driver_loaded",
            not missing,
            "all modules are loaded" if not missing else "not loaded: %s" % ", ".join(missing),
            {"/proc/modules": list(state.loaded)},
            "Run `systemctl restart %s` and look at its journal." % UNIT_NAME,
        )
    )
    nodes = {node.path: node for node in state.driver.nodes}
    open_to_all = [path for path, node in nodes.items() if node.mode[-1] != "0"]
    lacking = [path for path in NODES if path not in nodes]
    summary = "device nodes are there, for the group %s" % wishes.group
    if lacking:
        summary = "device nodes are missing: %s" % ", ".join(lacking)
    elif open_to_all:
        summary = "everybody may use %s" % ", ".join(open_to_all)
    found.append(
        _check(
            "driver_nodes",
            not lacking and not open_to_all,
            summary,
            {path: "%s %s:%s" % (node.mode, node.owner, node.group) for path, node in nodes.items()},
            "Run the role again; `udevadm test` tells which rule wins.",
        )
    )
    for card in state.cards:
        found += card_proof(card.bdf, card.driver, table, events)
    if table is not None and state.record.sdk is not None:
        for row in table.cards:
            same = None if row.firmware is None else number_of(row.firmware) == number_of(state.record.sdk)
            summary = "firmware of card %d is %s, the package's is %s" % (row.number, row.firmware, state.record.sdk)
            # No more than a warning: packages are known whose own parts call themselves by another version.
            found.append(
                _check(
                    "firmware_version",
                    same or None,
                    summary,
                    {"axcl-smi": row.firmware},
                    "Look whether parts of two packages are mixed.",
                )
            )
    return found


def card_proof(bdf: str, driver: Optional[str], table: Optional[Table], events: Sequence[Event]) -> List[Finding]:
    """Return what shows that one card works, or does not: bound, up by the kernel log, in the tool's table."""
    found = []
    bound = driver == PCI_DRIVER
    sysfs = "/sys/bus/pci/devices/%s/driver" % bdf
    found.append(
        _check(
            "card_bound",
            bound,
            "%s is bound to %s" % (bdf, driver or "no driver"),
            {sysfs: driver},
            "Load the driver; see that no other driver (vfio-pci) has the card.",
        )
    )
    event = _came_up(events, int(bdf.split(":")[1], 16))
    rows = [card for card in table.cards if card.bdf == bdf] if table is not None else []
    answers = bool(rows) and rows[0].firmware is not None
    good = None if event is None else event.severity == INFO
    words = (
        "the kernel log does not tell whether %s came up" % bdf if event is None else "%s: %s" % (bdf, event.summary)
    )
    if answers and good is False:
        good, words = True, words + "; it answers by now"
    found.append(
        _check(
            "card_handshake",
            good,
            words,
            {} if event is None else {"dmesg": event.line},
            "" if event is None else event.cure or "",
        )
    )
    if table is None:
        found.append(
            _check(
                "card_in_table", None, "axcl-smi could not be asked for %s" % bdf, {}, "Ask it: /usr/bin/axcl/axcl-smi"
            )
        )
        return found
    odd = compare([bdf], table._replace(cards=tuple(rows)))[1]
    why = "; ".join(problem.summary for problem in (*table.problems, *odd)) or "no row"
    good = answers  # a sensor or a counter that it cannot read is no death
    words = "%s has a plausible row" % bdf if good else "%s: %s" % (bdf, why)
    found.append(
        _check(
            "card_in_table",
            good,
            words,
            {},
            "Reload the driver; if that does not help, switch the host's power off and on (a reboot leaves it on).",
        )
    )
    return found


def repository_as_data(state: DriverState) -> Optional[Dict[str, Any]]:
    """Return the apt repository that we have set up, as plain data; None if there is none."""
    named = parse_sources(SOURCES, state.apt.texts.get(SOURCES, "")) if state.record.pin is not None else []
    if not named:
        return None
    return {
        "uri": named[0].uri,
        "suite": named[0].suite,
        "fingerprints": list(state.apt.fingerprints),
        "pin": state.record.pin,
    }


def kernels_as_data(state: DriverState) -> List[Dict[str, Any]]:
    """Return the kernels as plain data, each with whether it has the driver."""
    return [
        {
            "release": kernel.release,
            "running": kernel.running,
            "headers": kernel.headers,
            "has_driver": has_driver(kernel),
        }
        for kernel in state.kernels
    ]


def outcome(
    state: DriverState, present: bool, check: bool, changed: bool, findings: Sequence[Finding]
) -> Tuple[str, List[str]]:
    """Return the outcome in one sentence, and what the proof found broken."""
    broken = ["%s. %s" % (finding.summary, finding.remedy) for finding in findings if finding.severity == CRITICAL]
    if not present:
        if check and changed:
            return "the driver would be removed with all that it has left", []
        return "the driver is removed with all that it has left" if changed else "nothing of the driver is here", []
    if check:
        return "the driver would be installed, or put right" if changed else "the driver is as wished", []
    unseen = sum(1 for finding in findings if finding.severity == WARNING)
    cards = len(state.cards)
    sentence = "driver%s is installed%s, %d card%s%s" % (
        "" if state.record.sdk is None else " " + state.record.sdk,
        " and works" if not broken and cards and not unseen else "",
        cards,
        "" if cards == 1 else "s",
        ", %d things could not be seen" % unseen if unseen else "",
    )
    return sentence, broken
