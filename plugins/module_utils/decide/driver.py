# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done so that a host has the AXCL driver, for each of its kernels, or has nothing of it any more.

Pure. A plan follows from what is seen alone, so a run that was killed anywhere is made up for by the next one: it sees
how far the other came, and plans the rest.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import (
    CRITICAL,
    INFO,
    OK,
    WARNING,
    Finding,
)
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
_SOURCES = ("file", "path", "url", "package")


def wrong_source(source: Mapping[str, Any]) -> Optional[str]:
    """Return what is wrong with a source as the user wrote it, in one sentence; None if it can be used."""
    given = [name for name in _SOURCES if source.get(name)]
    if len(given) != 1:
        return "source: give one of file, path, url and package; %s given" % (" and ".join(given) or "none is")
    (kind,) = given
    sha256 = source.get("sha256")
    if sha256 and not _SHA256.fullmatch(sha256):
        return "source: sha256 %r is no checksum; it has 64 hexadecimal digits" % sha256
    if kind == "package":
        return "source: sha256 is for files; apt checks packages of a repository itself" if sha256 else None
    if source.get("version"):
        return "source: version is for packages of a repository; a %s has its own" % kind
    if kind == "url" and not re.match(r"(?:https?|ftp|file)://", source["url"]):
        return "source: url %r is no address; write https://..." % source["url"]
    if not sha256 and not source.get("checksum_none_accepted"):
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
        return state.record.sha256 == offer.sha256 and state.record.package in state.packages
    package = state.packages.get(offer.package or "")
    return package is not None and offer.version in (None, package.version)


def failure(sha256: Optional[str], release: Optional[str]) -> str:
    """Return what our record says of a package that did not build for a kernel."""
    return "%s for %s" % (sha256, release)


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
    return any(not tree.ours for tree in state.dkms) or not state.source_tree


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
    if offer.package is not None and offer.sha256 is not None and not re.search(r"axcl", offer.package):
        found.append(
            "%s holds the package %s, which is no AXCL driver; give the driver's package" % (offer.path, offer.package)
        )
    wrong = offer.architecture not in (None, "all", state.architecture)
    named = [machine for word, machine in _NAMED_FOR if word in offer.file_name]
    if wrong or (named and state.architecture not in named):
        found.append(
            "%s is built for %s and this host is %s; take the package for %s"
            % (
                offer.path or offer.file_name or offer.package,
                offer.architecture if wrong else named[0],
                state.architecture,
                state.architecture,
            )
        )
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
        return next((tree for tree in reversed(state.dkms) if not tree.ours), None)
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
    tree = _tree(state, dkms)
    name = "%s/%s" % (OUR_DKMS, our_tree(state)) if tree is None else "%s/%s" % (tree.name, tree.version)
    if tree is None and not dkms:
        steps.append(Step("tree", name, None, "registered", "so that DKMS builds the driver for every kernel"))
    for kernel in _kernels_to_build(state, state.record.sdk) if tree is not None or not dkms else ():
        if tree is None or kernel.release not in tree.installed or not has_driver(kernel, ("updates",)):
            steps.append(_build(name, kernel))
    for kernel in state.kernels:
        if has_driver(kernel, ("updates",)):
            steps += _drop(kernel, ("extra",), "DKMS's are used, and cleaned with the kernel")
    if wishes.group not in state.groups:
        steps.append(Step("group", wishes.group, None, "system group", "whose members may use the card"))
    steps += _holds(state, wishes)
    return steps


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
    if is_installed(state, offer):
        steps = _after_install(state, wishes, sandbox)
        obstacles: List[str] = []
        if any(step.kind in ("tree", "build") for step in steps):
            missing = _missing(state, wishes)
            if missing and wishes.prepare:
                steps.insert(0, _tools(missing))
            elif missing:
                obstacles = _obstacles(state, Offer(package="axclhost"), wishes)
        steps += _loading(state) if not any(step.kind == "build" for step in steps) else []
        steps += nodes_step(state, wishes)
        return Plan(steps, [], obstacles, warnings, [])
    obstacles = _obstacles(state, offer, wishes)
    steps = []
    missing = _missing(state, wishes)
    if missing and wishes.prepare:
        steps.append(_tools(missing))
    if state.loaded:
        obstacles += busy(holders)
    steps += _taking_away(state)
    what = "the driver's package" if offer is None or offer.package is None else offer.package
    version = None if offer is None else offer.version
    if offer is not None and offer.sdk not in (None, version):
        version = "%s, SDK %s" % (version or "?", offer.sdk)
    steps.append(Step("install", what, None, version or "installed", "the driver, its tools and the card's firmware"))
    return Plan(steps, _predicted(state, offer, wishes), obstacles, warnings, _unknown(state, offer))


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
        found += _card_proof(card.bdf, card.driver, table, events)
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


def _card_proof(bdf: str, driver: Optional[str], table: Optional[Table], events: Sequence[Event]) -> List[Finding]:
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
    good = None if event is None else event.severity == INFO
    words = (
        "the kernel log does not tell whether %s came up" % bdf if event is None else "%s: %s" % (bdf, event.summary)
    )
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
    absent, odd = compare([bdf], table._replace(cards=tuple(card for card in table.cards if card.bdf == bdf)))
    why = "; ".join(problem.summary for problem in (*table.problems, *odd)) or "no row"
    good = not absent and not odd
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
