# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Putting our block into a file that others write, too, and taking it out again.

The file may be on a FAT partition, which has no journal: if the power fails while the new file takes the old one's
name, the partition may have the old file, the new one, or none. So the original is in the ledger, on another file
system, before the first byte is written, and where the file is gone it is taken from there. A Raspberry Pi starts
without config.txt, too, with its defaults.
"""

from __future__ import annotations

import binascii
import contextlib
import errno
import os
from typing import List, NamedTuple, Optional, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Entry, Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import FileState, NotAFile, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.blocks import without_block
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change, WishError


class Taken(NamedTuple):
    """Files that our block was taken out of, with state before and after; what was refused, each with its reason."""

    files: List[Tuple[str, FileState, FileState]]
    refused: List[Change]


def _original(entry: Entry) -> bytes:
    return binascii.a2b_base64(entry.value or "")


def _mounted(sink: Sink, path: str) -> bool:
    """Return whether something is in the directory of PATH; where nothing is, its partition is not mounted."""
    return bool(sink.root.names(os.path.dirname(path)))


def lost_original(sink: Sink, ledger: Ledger, role: str) -> Optional[Tuple[str, bytes]]:
    """Return path and content of a file of ROLE's that held our block and is gone, as it was before that."""
    for entry in ledger.entries(role, "block"):
        if not sink.root.exists(entry.id) and _mounted(sink, entry.id):
            return entry.id, _original(entry)
    return None


def no_room(sink: Sink, path: str, size: int) -> Optional[str]:
    """Return in one sentence why a file of SIZE bytes finds no place beside PATH; None if it does."""
    found = os.statvfs(sink.host_path(os.path.dirname(path)))
    if found.f_bavail * found.f_frsize >= size:
        return None
    return (
        "the partition of %s has %d bytes free, and %d are needed while the file is replaced, so nothing was changed; "
        "make room there (old kernels, say) and run again" % (path, found.f_bavail * found.f_frsize, size)
    )


def _write(sink: Sink, path: str, before: FileState, after: FileState) -> None:
    """Replace a file and read it back. Raises WishError with a sentence; the file is the old one then."""
    try:
        sink.put(path, after)
    except OSError as error:
        with contextlib.suppress(OSError):  # the next run does it
            sink.tidy(path)
        code = errno.errorcode.get(error.errno or 0, "error")
        hint = {
            "EROFS": "mount its partition to be written to",
            "ENOSPC": "make room on its partition",
            "EIO": "check its partition, the medium may be failing",
        }.get(code, "mend that")
        raise WishError(
            "%s could not be written and is as it was: %s (%s); %s and run again" % (path, error.strerror, code, hint)
        ) from error
    if sink.state(path).content != after.content:
        sink.put(path, before)
        raise WishError(
            "%s was written, but reads back different, so it was put back; check its partition, the medium may be "
            "failing" % path
        )


def put_block(sink: Sink, ledger: Ledger, role: str, path: str, original: bytes, after: FileState) -> None:
    """Make PATH what AFTER says, with what it was without our block (ORIGINAL) in the ledger beforehand.

    Raises WishError with a sentence if it cannot; the file is as it was then.
    """
    before = sink.state(path)
    known = {entry.id for entry in ledger.entries(role, "block")}
    if before.content is not None:
        ledger.remember_block(role, path, original)
        ledger.save()
    try:
        _write(sink, path, before, after)
    except WishError:
        for entry in ledger.entries(role, "block"):
            if entry.id == path and path not in known:
                ledger.forget(entry)
        ledger.save()
        raise


def take_blocks(sink: Sink, ledger: Ledger, role: str, check: bool) -> Taken:
    """Take our block out of the files of ROLE; what others have written there since stays."""
    taken = Taken([], [])
    for entry in ledger.entries(role, "block"):
        try:
            before = sink.state(entry.id)
            if before.content is None and not _mounted(sink, entry.id):
                raise WishError("its partition is not mounted; mount it and run again")
            content = _original(entry) if before.content is None else without_block(before.content)
            after = before._replace(content=content)
            if after != before:
                if not check:
                    _write(sink, entry.id, before, after)
                    after = sink.state(entry.id)  # a file system such as FAT has modes of its own
                taken.files.append((entry.id, before, after))
        except (WishError, NotAFile, OSError) as error:
            taken.refused.append(Change(entry.id, None, None, str(error)))
            continue
        if not check:
            ledger.forget(entry)
    return taken
