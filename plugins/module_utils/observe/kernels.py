# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernels that this host can boot: which have headers, and which hold the modules of a driver that was added."""

from __future__ import annotations

import re
import struct
from typing import Dict, Iterable, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

MODULES_DIR = "/lib/modules"
# Where packages and DKMS put modules that are not the kernel's own; depmod prefers the first.
EXTRA_DIRS = ("updates/dkms", "updates", "extra")
MAX_MODULE_BYTES = 64 << 20

_COMPILER = re.compile(r"\bgcc\b[^,]*?\b(\d+)\.\d+(?:\.\d+)?", re.IGNORECASE)
_GCC_NAME = re.compile(r"(?:[a-z0-9_]+-linux-gnu-)?gcc-(\d+)")
_NUMBERS = re.compile(r"(\d+)\.(\d+)")


# What a bundle has instead of a module's file, whose code is its maker's.
FACTS = b"facts about a kernel module, without its code\n"
_SIGNED = b"~Module signature appended~\n"
_SDK_MARK = b"[AXCL version]:"
_SDK = re.compile(rb"[^\0\n]{0,64}?V(\d+\.\d+\.\d+)")


class Built(NamedTuple):
    """A kernel module's file. VERMAGIC and SRCVERSION are None where it is compressed, or says nothing of them.

    SDK: the version that Axera's modules have in their text ("3.6.5"). SIGNED: it carries a signature; None: unknown.
    """

    name: str
    path: str
    vermagic: Optional[str]
    srcversion: Optional[str]
    sdk: Optional[str] = None
    signed: Optional[bool] = None


class Kernel(NamedTuple):
    """An installed kernel. HEADERS: what modules are built against is there. MODULES: those asked for, by place."""

    release: str
    running: bool
    headers: bool
    modules: Tuple[Built, ...]


def parse_modinfo(data: bytes) -> Dict[str, str]:
    """Return what a module's .modinfo section says (the first value of each key); {} for anything but an ELF module."""
    if data[:4] != b"\x7fELF" or len(data) < 64 or data[4] not in (1, 2) or data[5] not in (1, 2):
        return {}
    order, wide = "<" if data[5] == 1 else ">", data[4] == 2
    offset = struct.unpack_from(order + ("Q" if wide else "I"), data, 40 if wide else 32)[0]
    size, count, names_at = struct.unpack_from(order + "HHH", data, 58 if wide else 46)
    layout = struct.Struct(order + ("IIQQQQ" if wide else "IIIIII"))
    if size < layout.size or offset + size * count > len(data) or names_at >= count:
        return {}
    sections = [layout.unpack_from(data, offset + size * at) for at in range(count)]
    names = data[sections[names_at][4] : sections[names_at][4] + sections[names_at][5]]
    found: Dict[str, str] = {}
    for name, _kind, _flags, _address, start, length in sections:
        if names[name:].split(b"\0", 1)[0] == b".modinfo":
            for word in data[start : start + length].split(b"\0"):
                key, equals, value = word.decode("utf-8", "replace").partition("=")
                if equals:
                    found.setdefault(key, value)
    return found


def parse_module(data: bytes) -> Dict[str, str]:
    """Return what matters of a module's file: vermagic, srcversion, sdk and signed ("yes", "no"), where it tells.

    It may also be what `module_facts` made of the file; {} for anything else.
    """
    if data.startswith(FACTS):
        lines = data[len(FACTS) :].decode("utf-8", "replace").splitlines()
        return {key: value for key, equals, value in (line.partition("=") for line in lines) if equals}
    info = parse_modinfo(data)
    if not info:
        return {}
    found = {key: info[key] for key in ("vermagic", "srcversion") if key in info}
    found["signed"] = "yes" if data.endswith(_SIGNED) else "no"
    at = data.find(_SDK_MARK)
    version = _SDK.match(data, at + len(_SDK_MARK)) if at >= 0 else None
    if version is not None:
        found["sdk"] = version.group(1).decode("ascii")
    return found


def module_facts(data: bytes) -> Optional[bytes]:
    """Return what is noted of a module's file in place of its code; None where it tells nothing."""
    found = parse_module(data)
    lines = "".join("%s=%s\n" % pair for pair in sorted(found.items()))
    return FACTS + lines.encode("utf-8") if found else None


def parse_compiler(version: str) -> Optional[int]:
    """Return the major version of the gcc that built a kernel, from /proc/version; None for another compiler."""
    match = _COMPILER.search(version)
    return int(match.group(1)) if match else None


def parse_gcc_name(name: str) -> Optional[int]:
    """Return the major version in the name of a gcc (gcc-12, aarch64-linux-gnu-gcc-12); None for no such name."""
    match = _GCC_NAME.fullmatch(name)
    return int(match.group(1)) if match else None


def version_of(release: str) -> Optional[Tuple[int, int]]:
    """Return a kernel release's two first numbers; None if it does not begin with them."""
    match = _NUMBERS.match(release)
    return (int(match.group(1)), int(match.group(2))) if match else None


def release_key(release: str) -> Tuple[Tuple[int, str], ...]:
    """Return what sorts releases from old to new, numbers as numbers."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[^\d.\-+~_]+", release))


def _modules(root: Root, release: str, wanted: Iterable[str]) -> Tuple[Built, ...]:
    found = []
    names = set(wanted)
    for where in EXTRA_DIRS:
        directory = "%s/%s/%s" % (MODULES_DIR, release, where)
        for entry in root.names(directory):
            name, dot, ending = entry.partition(".ko")
            if not dot or name.replace("-", "_") not in names or ending not in ("", ".gz", ".xz", ".zst"):
                continue
            path = "%s/%s" % (directory, entry)
            info = parse_module(root.data(path, MAX_MODULE_BYTES) or b"") if not ending else {}
            signed = {"yes": True, "no": False}.get(info.get("signed", ""))
            found.append(Built(name, path, info.get("vermagic"), info.get("srcversion"), info.get("sdk"), signed))
    return tuple(found)


def read_kernels(root: Root, modules: Sequence[str] = ()) -> Tuple[Kernel, ...]:
    """Return the installed kernels from old to new, each with those of MODULES that were added to it.

    A directory that holds no more than what a removed kernel has left is none.
    """
    running = root.text("/proc/sys/kernel/osrelease")
    kernels = []
    for release in root.names(MODULES_DIR):
        directory = "%s/%s" % (MODULES_DIR, release)
        if release != running and not any(
            root.exists("%s/%s" % (directory, part)) for part in ("kernel", "modules.builtin")
        ):
            continue
        headers = root.exists(directory + "/build/Makefile")
        kernels.append(Kernel(release, release == running, headers, _modules(root, release, modules)))
    return tuple(sorted(kernels, key=lambda kernel: release_key(kernel.release)))


def read_compilers(root: Root) -> Tuple[Optional[int], Tuple[int, ...]]:
    """Return the major version of /usr/bin/gcc (None: missing, or its name does not tell) and of all gcc-N there."""
    default = parse_gcc_name((root.real("/usr/bin/gcc") or "").rpartition("/")[2])
    found = {parse_gcc_name(name) for name in root.names("/usr/bin")}
    return default, tuple(sorted(major for major in found if major is not None))
