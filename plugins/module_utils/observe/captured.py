# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bundles: everything that a diagnosis read on one host, noted there and read again on another.

A bundle is a .tar.gz of `manifest.json` and of the files, directories and links below `root/`. It is read into memory
and never unpacked: whatever names and links a stranger's bundle holds, nothing on this machine is opened for them.
"""

from __future__ import annotations

import gzip
import json
import os
import stat
import tarfile
import zlib
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.kernels import module_facts

SCHEMA = 1
MANIFEST = "manifest.json"
TREE = "root"
LOGS = "logs"  # what commands printed; what lies deeper in it is for people
NOT_TAKEN = "ENODATA"  # is there (or may be), and its content is not in the bundle
MAX_FILE_BYTES = 16 << 20  # /proc/interrupts of 1,152 CPUs has 14 MB
MAX_TOTAL_BYTES = 64 << 20
MAX_ENTRIES = 100000
MAX_NAME, MAX_DEPTH = 1024, 64  # of a path or a link's target: characters, components
MAX_BUNDLE_BYTES = 64 << 20
_MAX_STREAM_BYTES = MAX_TOTAL_BYTES + MAX_ENTRIES * 2048  # headers and padding included
_NOT_TO_BE_TAKEN = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")  # a driver is its maker's, and not to be handed around
# What tarfile and json raise for bytes that make no sense
_NONSENSE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)


class BundleError(Exception):
    """What was handed over is no bundle, or one that must not be read: one sentence."""


class Captured(NamedTuple):
    """What was seen of a tree. Paths are real ones: no link is above them.

    PRESENT: files whose content is not known. LISTED: directories of which all entries are known. MISSING: what was
    asked for and does not exist. UNREAD: errno name of what could not be read. MODES: permission bits of files and
    directories; in a bundle their owner may always read them, so that it can be unpacked and looked at.
    """

    files: Dict[str, bytes]
    present: Set[str]
    links: Dict[str, str]
    directories: Set[str]
    listed: Set[str]
    missing: Set[str]
    unread: Dict[str, str]
    modes: Dict[str, int]

    @property
    def paths(self) -> Set[str]:
        """Everything that exists."""
        return self.directories | self.present | set(self.files) | set(self.links)


def nothing() -> Captured:
    """Return an empty tree."""
    return Captured({}, set(), {}, {"/"}, set(), set(), {}, {})


def _join(directory: str, name: str) -> str:
    return directory.rstrip("/") + "/" + name


class Recorder(Root):
    """A root that notes in ``captured`` whatever is asked of it, and what the answer was; first answers count."""

    def __init__(self, path: str = "/") -> None:
        super().__init__(path)
        self.captured = nothing()
        self._bytes = 0

    def _target(self, path: str) -> Optional[str]:
        target = super()._target(path)
        if target is not None:
            self.captured.links[path] = target
        return target

    def _see_entry(self, path: str) -> bool:
        """Note what stands at PATH (no link is above it); False if nothing does."""
        try:
            mode = os.lstat(os.path.join(self.path, path.lstrip("/"))).st_mode
        except OSError:
            return False
        if stat.S_ISLNK(mode):
            return self._target(path) is not None
        (self.captured.directories if stat.S_ISDIR(mode) else self.captured.present).add(path)
        self.captured.modes[path] = stat.S_IMODE(mode)
        return True

    def _see_missing(self, path: str) -> None:
        self.captured.missing.add(path)
        self._see_entry(os.path.dirname(path))  # so that it is missing at the same place again

    def _see(self, path: str) -> str:
        """Note what stands at PATH and return its real path, up to the first missing component."""
        found, there = self.walk(path)
        if not there or not self._see_entry(found):
            self._see_missing(found)
        return found

    def _see_link(self, path: str) -> None:
        parent, name = os.path.split(path)
        here = _join(self._see(parent), name)
        if not self._see_entry(here):
            self._see_missing(here)

    def _refused(self, path: str, known: int) -> bool:
        """Note why PATH could not be read, if that was said behind the KNOWN entries of ``unread``."""
        for _asked, code in self.unread[known:]:
            self.captured.unread.setdefault(path, code)
            return True
        return False

    def real(self, path: str) -> Optional[str]:
        self._see(path)
        return super().real(path)

    def data(self, path: str, limit: int = -1) -> Optional[bytes]:
        found = self._see(path)
        known = len(self.unread)
        raw = super().data(path)  # whole: another reader may want more of it
        if raw is None:
            if not self._refused(found, known) and (self.is_live or not self._there(found)):
                self.captured.present.discard(found)  # its process has ended since it was seen
                self.captured.missing.add(found)
            return None
        facts = module_facts(raw) if found.endswith(".ko") and found not in self.captured.files else None
        if facts is not None:
            self.captured.files[found] = facts
        elif found not in self.captured.files and not found.endswith(_NOT_TO_BE_TAKEN):
            if len(raw) > MAX_FILE_BYTES or self._bytes + len(raw) > MAX_TOTAL_BYTES:
                self.captured.unread.setdefault(found, "EFBIG")
            else:
                self.captured.files[found] = raw
                self._bytes += len(raw)
        return raw if limit < 0 else raw[:limit]

    def names(self, path: str) -> List[str]:
        found = self._see(path)
        known = len(self.unread)
        names = super().names(path)
        if not self._refused(found, known) and found in self.captured.directories:
            self.captured.listed.add(found)
        return [name for name in names if self._see_entry(_join(found, name))]  # a process may have ended meanwhile

    def link(self, path: str) -> Optional[str]:
        self._see_link(path)
        return super().link(path)

    def link_target(self, path: str) -> Optional[str]:
        self._see_link(path)
        return super().link_target(path)

    def exists(self, path: str) -> bool:
        self._see(path)
        return super().exists(path)

    def mode(self, path: str) -> Optional[int]:
        self._see(path)
        return super().mode(path)


class CapturedRoot(Root):
    """A root in memory. What was never asked on the host is neither there nor missing: it is noted as unread."""

    def __init__(self, captured: Captured) -> None:
        super().__init__("/dev/null")  # there is no directory behind it, and nothing can be made below this one
        self._tree = captured
        self._names: Dict[str, Set[str]] = {}
        for path in captured.paths:
            above = path
            while above != "/":
                above, name = os.path.split(above)
                self._names.setdefault(above, set()).add(name)
        captured.directories.update(self._names)

    def _target(self, path: str) -> Optional[str]:
        return self._tree.links.get(path)

    def _there(self, path: str) -> bool:
        tree = self._tree
        return path in tree.files or path in tree.directories or path in tree.present

    def _is_missing(self, path: str) -> bool:
        """Tell whether the host was asked for PATH, which is not here, or for something above it."""
        parent = os.path.dirname(path)
        if path in self._tree.links or parent in self._tree.listed or parent not in self._tree.directories:
            return True
        while path.strip("/"):
            if path in self._tree.missing:
                return True
            path = os.path.dirname(path)
        return False

    def _find(self, path: str) -> Tuple[str, bool]:
        found, there = self.walk(path)
        if not there and found not in self._tree.unread and not self._is_missing(found):
            self.unread.append((path, NOT_TAKEN))
        return found, there

    def real(self, path: str) -> Optional[str]:
        found, there = self._find(path)
        return found if there else None

    def data(self, path: str, limit: int = -1) -> Optional[bytes]:
        found, there = self._find(path)
        raw = self._tree.files.get(found)
        if raw is not None:
            return raw if limit < 0 else raw[:limit]
        code = self._tree.unread.get(found, NOT_TAKEN if there and found in self._tree.present else None)
        if code is not None:
            self.unread.append((path, code))
        return None

    def names(self, path: str) -> List[str]:
        found, there = self._find(path)
        code = self._tree.unread.get(found)
        if code is None and there and found in self._tree.directories and found not in self._tree.listed:
            code = NOT_TAKEN
        if code is not None:
            self.unread.append((path, code))
        return sorted(self._names.get(found, ())) if found not in self._tree.unread else []

    def _link(self, path: str) -> Tuple[str, Optional[str]]:
        parent, name = os.path.split(path)
        found, there = self._find(parent)
        here = _join(found, name)
        target = self._tree.links.get(here) if there else None
        if there and target is None and not self._there(here) and not self._is_missing(here):
            self.unread.append((path, NOT_TAKEN))
        return found, target

    def link(self, path: str) -> Optional[str]:
        _parent, target = self._link(path)
        return None if target is None else os.path.basename(target)

    def link_target(self, path: str) -> Optional[str]:
        parent, target = self._link(path)
        return None if target is None else os.path.normpath("/" + os.path.join(parent, target).lstrip("/"))

    def exists(self, path: str) -> bool:
        return self._find(path)[1]

    def mode(self, path: str) -> Optional[int]:
        found, there = self._find(path)
        return self._tree.modes.get(found) if there else None


class Opened(NamedTuple):
    """A tree to diagnose, and the devices that the catalogue had beyond the built-in ones where it was taken."""

    root: Root
    devices: List[Any]


class _Entry(NamedTuple):
    """One member of a bundle: the target of a link, the content of a file, neither for a directory."""

    name: str
    target: Optional[str]
    content: Optional[bytes]
    mode: int


class _Bounded:
    """A stream that ends with an error where a bundle's size would; a few bytes may stand for gigabytes of zeros."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._left = _MAX_STREAM_BYTES

    def read(self, size: int) -> bytes:
        """Return at most SIZE bytes."""
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise BundleError("unpacked it has more than %d MB" % (_MAX_STREAM_BYTES >> 20))
        return data


def _size(name: str, size: int) -> int:
    if size > MAX_FILE_BYTES:
        raise BundleError("%s in it has %d bytes, and %d is the most" % (_shown(name), size, MAX_FILE_BYTES))
    return size


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 120 else text[:120] + "..."


def _members(archive: Any) -> Iterator[_Entry]:
    """Yield the members of a TarFile (its list of members has no type)."""
    while True:
        member = archive.next()
        if member is None:
            return
        archive.members.clear()  # they would all be kept
        if member.isdir():
            yield _Entry(member.name, None, None, member.mode)
        elif member.issym():
            yield _Entry(member.name, member.linkname, None, 0)
        elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            _size(member.name, member.size)
            stream = archive.extractfile(member)
            yield _Entry(member.name, None, stream.read() if stream is not None else b"", member.mode)
        else:
            raise BundleError("%s in it is neither file, directory nor link" % _shown(member.name))


def _unpacked(directory: str) -> Iterator[_Entry]:
    """Yield the entries of a bundle that somebody has unpacked."""
    pending = [MANIFEST, TREE, *([LOGS] if os.path.isdir(os.path.join(directory, LOGS)) else [])]
    while pending:
        name = pending.pop()
        path = os.path.join(directory, name)
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            yield _Entry(name, os.readlink(path), None, 0)
        elif stat.S_ISDIR(mode):
            yield _Entry(name, None, None, mode)
            pending.extend(_join(name, inner) for inner in os.listdir(path))
        elif stat.S_ISREG(mode):
            with open(path, "rb") as stream:
                _size(name, os.fstat(stream.fileno()).st_size)
                yield _Entry(name, None, stream.read(MAX_FILE_BYTES), mode)
        else:
            raise BundleError("%s in it is neither file, directory nor link" % _shown(name))


def _place(entry: _Entry) -> List[str]:
    """Return an entry's name in parts; raises BundleError where a name or link leads out of the bundle."""
    for text in (entry.name, entry.target or ""):
        if len(text) > MAX_NAME or text.count("/") > MAX_DEPTH:
            raise BundleError("the name or link %s in it is too long" % _shown(text))
    parts = [part for part in entry.name.split("/") if part not in ("", ".")]
    if entry.name.startswith("/") or ".." in parts or "\0" in entry.name:
        raise BundleError("the name %s in it leads out of it" % _shown(entry.name))
    if entry.target is not None:
        depth = len(parts) - 2  # below root/
        for step in entry.target.split("/"):
            depth += -1 if step == ".." else 0 if step in ("", ".") else 1
            if depth < 0:
                break
        if depth < 0 or entry.target.startswith("/") or "\0" in entry.target:
            raise BundleError("the link %s in it leads out of it" % _shown(entry.name))
    return parts


def _strings(manifest: Dict[str, Any], key: str) -> Set[str]:
    values = manifest[key]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("%s is no list of paths" % key)
    return set(values)


def _assemble(entries: Iterator[_Entry]) -> Opened:
    """Return the tree that the entries of a bundle make."""
    captured = nothing()
    printed: Dict[str, str] = {}
    document: Optional[bytes] = None
    total = 0
    for count, entry in enumerate(entries, 1):
        if count > MAX_ENTRIES:
            raise BundleError("it holds more than %d entries" % MAX_ENTRIES)
        parts = _place(entry)
        if parts == [MANIFEST]:
            document = entry.content
        total += len(entry.content or b"") + len(entry.name)
        if total > MAX_TOTAL_BYTES:
            raise BundleError("it holds more than %d MB" % (MAX_TOTAL_BYTES >> 20))
        if parts[:1] == [LOGS] and len(parts) == 2 and entry.content is not None:
            printed[parts[1]] = entry.content.decode("utf-8", "replace")
        if parts[:1] != [TREE]:
            continue
        path = "/" + "/".join(parts[1:])
        if path in captured.files or path in captured.links:
            raise BundleError("%s is in it twice" % _shown(entry.name))
        if entry.target is not None:
            captured.links[path] = entry.target
        elif entry.content is not None:
            captured.files[path] = entry.content
        else:
            captured.directories.add(path)
        captured.modes[path] = stat.S_IMODE(entry.mode)
    if document is None:
        raise BundleError("it has no %s" % MANIFEST)
    manifest = json.loads(document.decode("utf-8"))
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        schema = manifest.get("schema") if isinstance(manifest, dict) else None
        raise BundleError(
            "its schema is %s, and this version knows %d; use the other version" % (_shown(schema), SCHEMA)
        )
    captured.listed.update(_strings(manifest, "listed"))
    captured.missing.update(_strings(manifest, "missing"))
    unread, devices = manifest["unread"], manifest["devices"]
    if not isinstance(unread, dict) or not isinstance(devices, list):
        raise ValueError("unread or devices")
    for path, code in unread.items():
        if captured.files.pop(path, None) is not None:
            captured.present.add(path)
        if code != NOT_TAKEN:
            captured.unread[path] = str(code)
    root = CapturedRoot(captured)
    root.printed.update(printed)
    return Opened(root, devices)


def _open_file(path: str) -> Opened:
    with open(path, "rb") as stream:
        if os.fstat(stream.fileno()).st_size > MAX_BUNDLE_BYTES:
            raise BundleError("it has more than %d MB" % (MAX_BUNDLE_BYTES >> 20))
        with gzip.GzipFile(fileobj=stream, mode="rb") as unzipped:
            bounded: Any = _Bounded(unzipped)
            with tarfile.open(fileobj=bounded, mode="r|", errors="surrogateescape", encoding="utf-8") as archive:
                opened = _assemble(_members(archive))
            while bounded.read(65536):
                pass  # the checksum stands at the end
            return opened


def open_root(path: str) -> Opened:
    """Return the tree at PATH: "/", a directory that was captured or unpacked from a bundle, or a bundle.

    Raises BundleError for what is none of these, OSError for what cannot be read.
    """
    try:
        if os.path.isdir(path):
            if os.path.isfile(os.path.join(path, MANIFEST)):
                return _assemble(_unpacked(path))
            if not any(os.path.isdir(os.path.join(path, name)) for name in ("proc", "sys")):
                raise BundleError("it has neither %s nor proc nor sys in it" % MANIFEST)
            return Opened(Root(path), [])
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would wait for ever
            raise BundleError("it is neither file nor directory")
        return _open_file(path)
    except BundleError as error:
        raise BundleError("%s is no bundle to be read: %s" % (path, error)) from error
    except (gzip.BadGzipFile, tarfile.TarError, zlib.error, EOFError, *_NONSENSE) as error:
        raise BundleError(
            "%s is damaged or no bundle (%s); copy it again, or take it again: edgenpu-tuning diagnose --bundle FILE"
            % (path, str(error) or type(error).__name__)
        ) from error
