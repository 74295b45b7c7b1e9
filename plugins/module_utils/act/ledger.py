# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this host had before we touched it: each original once, on disk before the first write.

Keys are identities that survive a driver's reload and a boot (role, kind, address and vector | policy | path), never
an interrupt's number: after a reload the number may be another device's.
"""

from __future__ import annotations

import binascii
import fcntl
import json
import os
import re
from types import TracebackType
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Set, Type

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import ABSENT, FileState, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError

PATH = "/var/lib/edgenpu-tuning/ledger.json"
SCHEMA = 1
SHARED = "shared"  # the role that owns what several roles need
# Not in /run/lock: everybody may write there, and whoever makes the file first can keep us waiting for ever.
LOCK_PATH = "/run/edgenpu-tuning.lock"
LOCK_LIMIT_S = 200.0  # a run of the agent may take the 180 s that its unit allows

_VECTOR = re.compile(r"[^#]+#[0-9]+")


class Entry(NamedTuple):
    """One original. ID: "BDF#vector", the policy's name, or the path.

    KIND: "interrupt", "governor" (VALUE, in force within BOOT_ID), "file" (STATE), "block" (our lines in a file that
    others write, too; VALUE: its content before, base64), "directory", "tree" (made by us: gone again at undo).
    """

    role: str
    kind: str
    id: str
    value: Optional[str] = None
    boot_id: Optional[str] = None
    state: Optional[FileState] = None

    @property
    def key(self) -> str:
        """The name of the entry in the file."""
        return "|".join((self.role, self.kind, self.id))


class Locked:
    """Holds a lock file; LOCK_PATH is the one that every writer of this host takes, so that they never overlap.

    Who has not got it after LIMIT_S seconds gives up: a WishError names file and holder.
    """

    def __init__(self, sink: Sink, path: str = LOCK_PATH, limit_s: float = LOCK_LIMIT_S) -> None:
        self._sink = sink
        self._path = path
        self._limit_s = limit_s
        self._handle = -1

    def __enter__(self) -> Locked:
        where = self._sink.host_path(self._path)
        os.makedirs(os.path.dirname(where), exist_ok=True)
        self._handle = os.open(where, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait()
        return self

    def _wait(self) -> None:
        """Wait in a thread of its own, of which the main one waits with a limit.

        An alarm would need the main thread and somebody's signal, and neither is ours in an Ansible module; a loop
        would come late and cost time. A thread cannot be taken out of flock(2): it is left there, and if the process
        lives on, closes the file (which lets the lock go) when its turn comes.
        """
        import threading  # costs the agent time, and hardly ever does anybody wait

        turn = threading.Lock()
        got = threading.Event()
        gone: List[bool] = []
        handle = self._handle

        def wait() -> None:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with turn:
                if gone:
                    os.close(handle)
                else:
                    got.set()

        threading.Thread(target=wait, daemon=True).start()
        got.wait(self._limit_s)
        with turn:
            if got.is_set():
                return
            gone.append(True)
            raise WishError(self._held_up())

    def _held_up(self) -> str:
        from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.locks import lock_holder

        found = os.fstat(self._handle)
        holder = lock_holder(self._sink.root, os.major(found.st_dev), os.minor(found.st_dev), found.st_ino)
        who = "another process" if holder is None else "process %d (%s)" % (holder.pid, holder.name or "ended just now")
        return (
            "%s could not be locked within %g s, so nothing was changed: %s holds it; if that hangs (`fuser -v %s` "
            "shows it), end it and run again" % (self._path, self._limit_s, who, self._path)
        )

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        os.close(self._handle)


def _pack(state: FileState) -> Dict[str, Any]:
    data = state._asdict()
    if state.content is not None:
        data["content"] = binascii.b2a_base64(state.content, newline=False).decode("ascii")
    return data


def _unpack(data: Dict[str, Any]) -> FileState:
    content, target = data["content"], _text(data["target"])
    numbers = [data[name] for name in ("mode", "uid", "gid")]
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
        raise ValueError("mode and owner %r" % (numbers,))
    return FileState(None if content is None else binascii.a2b_base64(content), target, *numbers)


def _text(value: Any) -> Optional[str]:
    if value is not None and not isinstance(value, str):
        raise ValueError("%r is no text" % (value,))
    return value


def _entry(data: Dict[str, Any]) -> Entry:
    state = data.get("state")
    if (data["kind"] == "file") != (state is not None):
        raise ValueError("%s %r with state %r" % (data["kind"], data["id"], state))
    if data["kind"] == "interrupt" and not _VECTOR.fullmatch(data["id"]):
        raise ValueError("interrupt %r" % (data["id"],))
    entry = Entry(**dict(data, state=None if state is None else _unpack(state)))
    for value in (entry.value, entry.boot_id):
        _text(value)
    return entry


class Ledger:
    """The ledger of one host, read from and saved to PATH. Raises WishError if the file is not one of ours."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._entries: Dict[str, Entry] = {}
        self._dirty = False
        self._pending: Set[str] = set()
        raw = sink.root.data(PATH)
        if raw is None:
            if sink.root.exists(PATH):
                raise WishError("%s cannot be read; run as root" % PATH)
            return
        try:
            document = json.loads(raw.decode("utf-8"))
            schema = document["schema"]
            if schema == SCHEMA:
                self._pending = {str(path) for path in document.get("pending", ())}
                for data in document["entries"]:
                    entry = _entry(data)
                    self._entries[entry.key] = entry
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise WishError(
                "%s is damaged (%s); nothing was changed; restore it from a backup, or move it away and accept that "
                "the originals recorded in it are lost" % (PATH, error)
            ) from error
        if schema != SCHEMA:
            raise WishError(
                "%s has schema %r and this version knows %d; use the version of the collection that wrote it"
                % (PATH, schema, SCHEMA)
            )

    def entries(self, role: Optional[str] = None, kind: Optional[str] = None) -> List[Entry]:
        """Return what is recorded, of one role or kind if given, in the order of recording."""
        return [entry for entry in self._entries.values() if role in (None, entry.role) and kind in (None, entry.kind)]

    def value(self, role: str, kind: str, identity: str, boot_id: Optional[str]) -> Optional[str]:
        """Return the original of a kernel value if it was recorded during this boot, else None."""
        entry = self._entries.get(Entry(role, kind, identity).key)
        return entry.value if entry is not None and entry.boot_id == boot_id else None

    def remember_value(self, role: str, kind: str, identity: str, value: Optional[str], boot_id: Optional[str]) -> None:
        """Record a kernel value as found, unless this boot's is recorded already (an older boot's is void)."""
        entry = Entry(role, kind, identity, value, boot_id)
        known = self._entries.get(entry.key)
        if known is None or known.boot_id != boot_id:
            self._add(entry)

    def remember_file(self, role: str, path: str) -> None:
        """Record what stands at PATH and which directories above it are missing, unless that is recorded already."""
        for directory in self._sink.missing_parents(path):
            self.remember_made("directory", directory)
        if not any(entry.id == path for entry in self.entries(kind="file")):
            self._add(Entry(role, "file", path, state=self._sink.state(path)))

    def remember_block(self, role: str, path: str, content: bytes) -> None:
        """Record a file as found before our block came into it, unless that is recorded already."""
        entry = Entry(role, "block", path, binascii.b2a_base64(content, newline=False).decode("ascii"))
        if entry.key not in self._entries:
            self._add(entry)

    def remember_made(self, kind: str, path: str) -> None:
        """Record that a directory or tree did not exist and is made by us."""
        entry = Entry(SHARED, kind, path)
        if entry.key not in self._entries:
            self._add(entry)

    @property
    def pending(self) -> List[str]:
        """Files that were written, but whose readers (systemd, udev, irqbalance) may not have been told yet."""
        return sorted(self._pending)

    def set_pending(self, paths: Iterable[str]) -> None:
        """Replace `pending`: before files are written, and with nothing once their readers know."""
        self._dirty = self._dirty or set(paths) != self._pending
        self._pending = set(paths)

    def forget(self, entry: Entry) -> None:
        """Drop an entry that has been given back."""
        if self._entries.pop(entry.key, None) is not None:
            self._dirty = True

    def _add(self, entry: Entry) -> None:
        self._entries[entry.key] = entry
        self._dirty = True

    def save(self) -> None:
        """Write the ledger if it changed: durable before this returns. An empty one leaves no file behind."""
        if not self._dirty:
            return
        if not self._entries and not self._pending:
            self._sink.put(PATH, ABSENT)
            self._sink.remove_if_empty(os.path.dirname(PATH))
        else:
            entries = [
                {
                    field: _pack(value) if isinstance(value, FileState) else value
                    for field, value in entry._asdict().items()
                    if value is not None
                }
                for entry in self._entries.values()
            ]
            whole = {"schema": SCHEMA, "entries": entries, "pending": self.pending}
            document = json.dumps(whole, indent=1, sort_keys=True) + "\n"
            self._sink.put(PATH, FileState(document.encode("utf-8"), None, 0o600))
        self._dirty = False
