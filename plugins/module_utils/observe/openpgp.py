# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Public keys as OpenPGP writes them down (RFC 4880, RFC 9580): whose they are, and how long they last.

No signature is verified here; that is apt's part. What a key is recognised by, its fingerprint, is a checksum of its
first packet, and needs no program.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

_BLOCK = re.compile(rb"-----BEGIN PGP ([A-Z0-9 ,/]+)-----[ \t]*\n(.*?)(?:\n-----END PGP \1-----|\Z)", re.DOTALL)
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_TITLE = "PUBLIC KEY BLOCK"
_SIGNATURE, _SECRET, _PUBLIC, _SECRET_BELOW, _MARKER, _USER = 2, 5, 6, 7, 10, 13
_OF_A_KEY = (_SIGNATURE, _PUBLIC, _MARKER, 12, _USER, 14, 17, 21)  # trust, subkey, attribute and padding besides
_CERTIFICATIONS = (0x10, 0x11, 0x12, 0x13)
_DIRECT, _REVOCATION = 0x1F, 0x20
_CREATED, _LASTS, _ISSUER, _ISSUER_FINGERPRINT = 2, 9, 16, 33
PRIVATE = "it is a private key, which belongs to its owner alone; give the public one (gpg --armor --export)"


class Key(NamedTuple):
    """A primary key. FINGERPRINT: 40 or 64 upper-case digits. EXPIRES_S: seconds since 1970, None for never."""

    fingerprint: str
    user: str
    expires_s: Optional[int]
    revoked: bool


class Keyring(NamedTuple):
    """The keys in a file, and its PACKETS without armour. PROBLEM: why none of it may be used."""

    packets: bytes = b""
    keys: Tuple[Key, ...] = ()
    problem: Optional[str] = None


class _Signature(NamedTuple):
    kind: int
    issuer: Optional[str]
    created_s: int
    lasts_s: int  # 0: for ever


def crc24(data: bytes) -> int:
    """Return the checksum below an armoured text."""
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _bit in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc


def armour(packets: bytes) -> str:
    """Return packets as one block of text, which apt reads with any way of verifying that it knows."""
    whole = binascii.b2a_base64(packets, newline=False).decode("ascii")
    lines = [whole[at : at + 64] for at in range(0, len(whole), 64)]
    crc = binascii.b2a_base64(crc24(packets).to_bytes(3, "big"), newline=False).decode("ascii")
    return "\n".join(["-----BEGIN PGP %s-----" % _TITLE, "", *lines, "=" + crc, "-----END PGP %s-----" % _TITLE, ""])


def _without_armour(data: bytes) -> bytes:
    """Return the packets in a file, armoured or not. Raises ValueError."""
    if b"-----BEGIN PGP " not in data:
        return data
    packets = b""
    for block in _BLOCK.finditer(data.replace(b"\r", b"")):
        title = block.group(1).decode("ascii")
        if title == "PRIVATE KEY BLOCK":
            raise ValueError(PRIVATE)
        if title != _TITLE:
            raise ValueError("it is a PGP %s and no public key" % title)
        if not block.group(0).endswith(b"-----"):
            raise ValueError("it is cut off: its last line (END PGP %s) is missing" % _TITLE)
        lines = [line.strip() for line in block.group(2).split(b"\n")]
        while lines and b":" in lines[0]:  # "Version: ..." and the like
            lines.pop(0)
        lines = [line for line in lines if line]
        crc = lines.pop()[1:] if lines and lines[-1][:1] == b"=" else None
        text = b"".join(lines)
        if len(text) % 4 or _BASE64.fullmatch(text) is None or (crc is not None and len(crc) != 4):
            raise ValueError("it is damaged: not all of its text is base64")
        part = binascii.a2b_base64(text)
        if crc is not None and binascii.a2b_base64(crc) != crc24(part).to_bytes(3, "big"):
            raise ValueError("it is damaged: its checksum (CRC) is another one")
        packets += part
    return packets


def _length(data: bytes, at: int) -> Tuple[int, int]:
    """Return a length as newer packets and subpackets have it, and where it ends."""
    first = data[at]
    if first < 192:
        return first, at + 1
    if first < 224:
        return ((first - 192) << 8) + data[at + 1] + 192, at + 2
    if first < 255:
        raise ValueError("it is damaged: a packet of unknown length at byte %d" % at)
    return int.from_bytes(data[at + 1 : at + 5], "big"), at + 5


def _packets(data: bytes) -> Iterator[Tuple[int, bytes]]:
    """Yield type and body of each packet. Raises ValueError, or IndexError where the last one is cut off."""
    at = 0
    while at < len(data):
        first, begin = data[at], at
        if first & 0x40:
            tag = first & 0x3F
            size, at = _length(data, at + 1)
        else:
            tag = first >> 2 & 0x0F
            width = 1 << (first & 3)
            if width == 8:
                raise ValueError("it is damaged: a packet of unknown length at byte %d" % at)
            size, at = int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width
        if not first & 0x80 or tag not in (*_OF_A_KEY, _SECRET, _SECRET_BELOW):
            raise ValueError("it is damaged: no part of a key at byte %d" % begin)
        if at + size > len(data):
            raise IndexError
        yield tag, data[at : at + size]
        at += size


def fingerprint(body: bytes) -> str:
    """Return the fingerprint of a key by its packet's body. Raises ValueError for versions that have no safe one."""
    version = body[0]
    if version == 4 and len(body) > 0xFFFF:
        raise ValueError("it is damaged: a key of %d bytes" % len(body))
    if version == 4:
        return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()
    if version in (5, 6):
        start = b"\x9a" if version == 5 else b"\x9b"
        return hashlib.sha256(start + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise ValueError("it is a key of version %d, which nothing trusts any more" % version)


def _subpackets(data: bytes) -> Dict[int, bytes]:
    found: Dict[int, bytes] = {}
    at = 0
    while at < len(data):
        size, at = _length(data, at)
        if size < 1 or at + size > len(data):
            raise IndexError
        found[data[at] & 0x7F] = data[at + 1 : at + size]
        at += size
    return found


def _signature(body: bytes) -> Optional[_Signature]:
    """Return what a signature says of the key above it; None for versions that say nothing about that."""
    if body[0] not in (4, 5, 6):
        return None
    width = 4 if body[0] == 6 else 2
    parts: List[Dict[int, bytes]] = []
    at = 4
    for _which in ("hashed", "unhashed"):
        size = int.from_bytes(body[at : at + width], "big")
        at += width
        if at + size > len(body):
            raise IndexError
        parts.append(_subpackets(body[at : at + size]))
        at += size
    hashed, both = parts[0], {**parts[1], **parts[0]}
    issuer = both[_ISSUER_FINGERPRINT][1:] if _ISSUER_FINGERPRINT in both else both.get(_ISSUER)
    return _Signature(
        body[1],
        None if issuer is None else binascii.hexlify(issuer).decode("ascii").upper(),
        int.from_bytes(hashed.get(_CREATED, b""), "big"),
        int.from_bytes(hashed.get(_LASTS, b""), "big"),
    )


def _key(packets: List[Tuple[int, bytes]]) -> Key:
    """Return a primary key by its packets, of which it is the first."""
    body = packets[0][1]
    name = fingerprint(body)
    short = name[-16:] if body[0] == 4 else name[:16]
    users = [text.decode("utf-8", "replace") for tag, text in packets if tag == _USER]
    signatures = [_signature(one) for tag, one in packets if tag == _SIGNATURE]
    own = [one for one in signatures if one is not None and one.issuer in (name, short)]
    # A signature on the key itself goes before those on its users' names; of each sort the newest counts.
    says = [one for one in own if one.kind == _DIRECT and one.lasts_s] or [
        one for one in own if one.kind in _CERTIFICATIONS
    ]
    lasts_s = max(says, key=lambda one: one.created_s).lasts_s if says else 0
    expires_s = int.from_bytes(body[1:5], "big") + lasts_s if lasts_s else None
    return Key(name, users[0] if users else "", expires_s, any(one.kind == _REVOCATION for one in own))


def parse_keyring(data: bytes) -> Keyring:
    """Return the public keys in a file, armoured or binary, one or several."""
    try:
        packets = _without_armour(data)
        if data[8:12] == b"KBXf":
            raise ValueError("it is a keybox, GnuPG's own database; give what gpg --armor --export prints")
        if not packets[:1] or not packets[0] & 0x80:
            raise ValueError("it is no OpenPGP key: it begins with %r" % packets[:16].decode("latin-1"))
        groups: List[List[Tuple[int, bytes]]] = []
        for tag, body in _packets(packets):
            if tag in (_SECRET, _SECRET_BELOW):
                raise ValueError(PRIVATE)
            if tag == _PUBLIC:
                groups.append([])
            if groups:
                groups[-1].append((tag, body))
            elif tag != _MARKER:
                raise ValueError("it is no OpenPGP key: it begins with another packet (type %d)" % tag)
        if not groups:
            raise ValueError("it holds no key")
        return Keyring(packets, tuple(_key(group) for group in groups))
    except IndexError:
        return Keyring(problem="it is cut off or damaged")
    except ValueError as error:
        return Keyring(problem=str(error))
