# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys that stand in for a repository's: packets as OpenPGP has them, around numbers that are no real key's."""

from __future__ import annotations

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.openpgp import fingerprint

CREATED_S = 1700000000


def packet(tag: int, body: bytes) -> bytes:
    """Return a packet with an old header, as GnuPG writes it."""
    return bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2, "big") + body


def body(name: bytes) -> bytes:
    """Return what a key's fingerprint is computed of: version 4, RSA."""
    number = b"\xff" + name.ljust(99, b"\xaa")
    made = CREATED_S.to_bytes(4, "big")
    return b"\x04" + made + b"\x01" + (len(number) * 8).to_bytes(2, "big") + number + b"\x00\x11\x01\x00\x01"


def public(name: bytes, user: str = "") -> bytes:
    """Return a public key of NAME, with a user's name if there is one."""
    return packet(6, body(name)) + (packet(13, user.encode()) if user else b"")


def subkey(name: bytes) -> bytes:
    """Return a public key that stands below another."""
    return packet(14, body(name))


def private(name: bytes, below: bool = False) -> bytes:
    """Return a private key."""
    return packet(7 if below else 5, body(name) + b"\x00secret")


def signature(issuer: bytes, kind: int, created_s: int, lasts_s: int) -> bytes:
    """Return a signature by a key of NAME that says how long a key lasts, 0 for ever."""
    hashed = b"\x05\x02" + created_s.to_bytes(4, "big")
    hashed += b"\x05\x09" + lasts_s.to_bytes(4, "big") if lasts_s else b""
    unhashed = b"\x09\x10" + bytes.fromhex(fingerprint(body(issuer))[-16:])
    parts = b"".join(len(part).to_bytes(2, "big") + part for part in (hashed, unhashed))
    return packet(2, b"\x04" + bytes([kind]) + b"\x01\x08" + parts + b"\xab\xcd\x00\x08\xff")
