# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian packages: what dpkg's database says of them, and what a .deb file says of itself."""

from __future__ import annotations

import io
import re
import zlib
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

STATUS = "/var/lib/dpkg/status"
_AR = b"!<arch>\n"
_AR_HEADER = 60
_MAX_CONTROL = 8 << 20
_SDK = re.compile(r"(?:^|[^0-9A-Za-z.])[Vv](\d+\.\d+\.\d+)(?!\d|\.\d)")
_IN_NAME = re.compile(r"_(\d+\.\d+\.\d+)(?!\d|\.\d)")
_VENDORS = (None, "1.0", "1.0.0")
_PLAIN = re.compile(r"(\d+\.\d+\.\d+)")


class Package(NamedTuple):
    """A package as dpkg has it. WANT: "install", "hold", "deinstall", "purge". FLAG: "ok" or "reinstreq".

    STATE: "installed", "half-configured", "half-installed", "unpacked", "config-files", "not-installed", ...
    """

    name: str
    version: Optional[str]
    architecture: Optional[str]
    want: str
    flag: str
    state: str

    @property
    def sound(self) -> bool:
        """True if it is installed, whole and configured."""
        return self.state == "installed" and self.flag == "ok"

    @property
    def present(self) -> bool:
        """True if anything of it is on the host: files, or its configuration."""
        return self.state != "not-installed"


class Deb(NamedTuple):
    """A .deb file. CONTROL: its fields, None where COMPRESSION is one that Python cannot read (ask dpkg-deb then).

    PROBLEM: why it is no whole .deb file.
    """

    control: Optional[Dict[str, str]] = None
    compression: Optional[str] = None
    problem: Optional[str] = None


def parse_control(text: str) -> Dict[str, str]:
    """Return the fields of one stanza; lines that go on are joined by blanks."""
    fields: Dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if line[:1] in (" ", "\t"):
            if last:
                fields[last] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        if colon:
            last = name.strip()
            fields[last] = value.strip()
    return fields


def parse_status(text: str, wanted: Callable[[str], bool]) -> Dict[str, Package]:
    """Return by name the packages in dpkg's status file whose names are WANTED."""
    found: Dict[str, Package] = {}
    for part in text.split("\n\n"):
        stanza = part.lstrip("\n")
        if not stanza.startswith("Package:") or not wanted(stanza[8 : stanza.find("\n")].strip()):
            continue
        fields = parse_control(stanza)
        words = fields.get("Status", "").split()
        if len(words) == 3:
            name = fields["Package"]
            found[name] = Package(name, fields.get("Version"), fields.get("Architecture"), *words)
    return found


def _members(data: bytes) -> Tuple[List[Tuple[str, int, int]], Optional[str]]:
    """Return name, start and size of an ar archive's members, and what is wrong with it."""
    members: List[Tuple[str, int, int]] = []
    at = len(_AR)
    while at < len(data):
        header = data[at : at + _AR_HEADER]
        size = header[48:58].strip()
        if len(header) < _AR_HEADER or header[58:] != b"`\n" or not size.isdigit():
            return members, "damaged or cut off at byte %d of %d" % (at, len(data))
        start = at + _AR_HEADER
        if start + int(size) > len(data):
            return members, "cut off: %d of at least %d bytes" % (len(data), start + int(size))
        members.append((header[:16].decode("ascii", "replace").strip().rstrip("/"), start, int(size)))
        at = start + int(size) + int(size) % 2
    return members, None


def _inflated(data: bytes, ending: str) -> Optional[bytes]:
    """Return a tar archive unpacked; None where this Python lacks the means. Raises ValueError if it is damaged."""
    if ending == "":
        return data
    if ending == ".gz":
        try:
            return zlib.decompressobj(wbits=31).decompress(data, _MAX_CONTROL)
        except zlib.error as error:
            raise ValueError(str(error)) from error
    if ending == ".xz":
        try:
            import lzma  # some Pythons are built without
        except ImportError:
            return None
        try:
            return lzma.LZMADecompressor().decompress(data, _MAX_CONTROL)
        except lzma.LZMAError as error:
            raise ValueError(str(error)) from error
    return None


def parse_deb(data: bytes) -> Deb:
    """Return what a .deb file says of itself; every byte of its archive is looked at, none of its payload unpacked."""
    if data[: len(_AR)] != _AR:
        return Deb(problem="no .deb file: it begins with %r" % data[:16].decode("latin-1"))
    import tarfile  # loads half the library, and a diagnosis only wants the list of packages

    members, problem = _members(data)
    names = [name for name, _start, _size in members]
    if problem is None and names[:1] != ["debian-binary"]:
        problem = "an archive, but no .deb file: it begins with %r" % (names[:1],)
    if problem is None and len([name for name in names if name.startswith("data.tar")]) != 1:
        problem = "cut off: the package's files (data.tar) are missing"
    if problem is not None:
        return Deb(problem=problem)
    for name, start, size in members:
        if name.startswith("control.tar"):
            ending = name[len("control.tar") :]
            try:
                unpacked = _inflated(data[start : start + size], ending)
                if unpacked is None:
                    return Deb(compression=ending.lstrip("."))
                with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
                    member = next(one for one in archive if one.isfile() and one.name.lstrip("./") == "control")
                    stream = archive.extractfile(member)
                    text = b"" if stream is None else stream.read(_MAX_CONTROL)
            except (ValueError, tarfile.TarError, StopIteration, EOFError) as error:
                return Deb(problem="its control data cannot be read (%s)" % (str(error) or "no control file"))
            return Deb(parse_control(text.decode("utf-8", "replace")))
    return Deb(problem="an archive, but no .deb file: control.tar is missing")


def number_of(version: Optional[str]) -> Optional[Tuple[int, ...]]:
    """Return a version's numbers; None for unknown."""
    return None if version is None else tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def sdk_version(file_name: str, package_version: Optional[str]) -> Optional[str]:
    """Return the version of the SDK that a package is made of; None for unknown.

    The file's name tells (axcl_host_aarch64_V3.6.4_20250822020158_NO4873.deb). The vendor's packages all have version
    1.0 or 1.0.0; others have the SDK's, and that in their names (axclhost_3.6.5-m5stack1_arm64.deb).
    """
    match = _SDK.search(file_name)
    if match is None and package_version not in _VENDORS:
        match = _PLAIN.match(str(package_version).partition(":")[2] or str(package_version))
    match = match or _IN_NAME.search(file_name)
    return match.group(1) if match and match.group(1) not in _VENDORS else None


def read_packages(root: Root, wanted: Callable[[str], bool]) -> Dict[str, Package]:
    """Return by name the packages that dpkg knows and whose names are WANTED."""
    return parse_status(root.text(STATUS) or "", wanted)
