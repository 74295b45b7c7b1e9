# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading files below a root directory: the live system ("/") or a tree captured from one."""

from __future__ import annotations

import errno
import os
import stat
from typing import Dict, List, Optional, Tuple

MAX_LINKS = 40  # the kernel's own limit (MAXSYMLINKS)


class Root:
    """Reads beneath one directory and never outside it.

    With the root "/" paths go to the kernel as they are. With any other root, symbolic links are resolved
    component by component beneath it, since a captured tree may hold links that point out of it.

    ``unread`` collects (path, errno name) of whatever exists but could not be read, so that "unknown" can be told
    from "none". ``printed`` holds by name what commands printed that were run where the tree is from.
    """

    def __init__(self, path: str = "/") -> None:
        self.path = os.path.abspath(path)
        self.unread: List[Tuple[str, str]] = []
        self.printed: Dict[str, str] = {}

    @property
    def is_live(self) -> bool:
        """True for the running system."""
        return self.path == "/"

    def real(self, path: str) -> Optional[str]:
        """Return PATH with every link resolved, as seen from the root; None if it does not exist."""
        if self.is_live:
            found = os.path.realpath(path)
            return found if os.path.lexists(found) else None
        found, there = self.walk(path)
        return found if there else None

    def _target(self, path: str) -> Optional[str]:
        """Return what the link at PATH says (no link is above it); None if it is no link."""
        try:
            return os.readlink(os.path.join(self.path, path.lstrip("/")))
        except OSError:
            return None

    def _there(self, path: str) -> bool:
        """Return whether PATH (no link is above it) exists."""
        return os.path.lexists(os.path.join(self.path, path.lstrip("/")))

    def walk(self, path: str) -> Tuple[str, bool]:
        """Return PATH with links resolved beneath the root, and whether it exists.

        What does not exist is returned up to the first component that is missing, a ring of links up to itself.
        """
        pending = [part for part in path.split("/") if part]
        done: List[str] = []
        links = 0
        while pending:
            part = pending.pop(0)
            if part == ".":
                continue
            if part == "..":
                done = done[:-1]
                continue
            here = "/" + "/".join([*done, part])
            target = self._target(here)
            if target is not None:
                links += 1
                if links > MAX_LINKS:
                    return here, False
                if target.startswith("/"):
                    done = []
                pending = [step for step in target.split("/") if step] + pending
            elif self._there(here):
                done.append(part)
            else:
                return here, False
        return "/" + "/".join(done), True

    def _host_path(self, path: str) -> Optional[str]:
        if self.is_live:
            return path
        found = self.real(path)
        return None if found is None else os.path.join(self.path, found.lstrip("/"))

    def _note(self, path: str, error: OSError) -> None:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            self.unread.append((path, errno.errorcode.get(error.errno or 0, str(error.errno))))

    def data(self, path: str, limit: int = -1) -> Optional[bytes]:
        """Return at most LIMIT bytes of a file (all when negative); None if missing or unreadable."""
        host_path = self._host_path(path)
        if host_path is None:
            return None
        if not self.is_live and not os.path.isfile(host_path):
            return None  # a stranger's tree may hold a FIFO, and opening that would wait for ever
        try:
            with open(host_path, "rb", buffering=0) as stream:
                if limit >= 0:
                    return stream.read(limit)
                return stream.readall()
        except OSError as error:
            self._note(path, error)
            return None

    def text(self, path: str) -> Optional[str]:
        """Return a file's text without surrounding blanks and NULs; None if missing or unreadable."""
        raw = self.data(path)
        return None if raw is None else raw.decode("utf-8", "replace").strip("\0 \t\n")

    def names(self, path: str) -> List[str]:
        """Return the sorted names in a directory; [] if missing or unreadable."""
        host_path = self._host_path(path)
        if host_path is None:
            return []
        try:
            return sorted(os.listdir(host_path))
        except OSError as error:
            self._note(path, error)
            return []

    def link(self, path: str) -> Optional[str]:
        """Return the last component that the link at PATH points to (a driver's name, say); None if no link."""
        parent, name = os.path.split(path)
        host_parent = self._host_path(parent)
        if host_parent is None:
            return None
        try:
            return os.path.basename(os.readlink(os.path.join(host_parent, name)))
        except OSError:
            return None

    def link_target(self, path: str) -> Optional[str]:
        """Return the absolute path, seen from the root, that the link at PATH points to; None if it is no link.

        What it points to need not exist (a captured tree is seldom complete).
        """
        parent, name = os.path.split(path)
        real_parent = self.real(parent)
        if real_parent is None:
            return None
        try:
            target = os.readlink(os.path.join(self.path, real_parent.lstrip("/"), name))
        except OSError:
            return None
        return os.path.normpath("/" + os.path.join(real_parent, target).lstrip("/"))

    def exists(self, path: str) -> bool:
        """True if PATH exists below the root, a dangling link excluded."""
        host_path = self._host_path(path)
        return host_path is not None and os.path.exists(host_path)

    def mode(self, path: str) -> Optional[int]:
        """Return the permission bits of what stands at PATH; None if it is missing."""
        host_path = self._host_path(path)
        try:
            return None if host_path is None else stat.S_IMODE(os.stat(host_path).st_mode)
        except OSError:
            return None

    def number(self, path: str, base: int = 10) -> Optional[int]:
        """Return a file's content as an integer; None if missing, unreadable or no number."""
        content = self.text(path)
        if content is None:
            return None
        try:
            return int(content, base)
        except ValueError:
            return None
