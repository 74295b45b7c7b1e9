# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import hashlib
from typing import List

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import openpgp
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.openpgp import armour, parse_keyring
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import keys

# The certificate in the appendix of RFC 9580 (A.3), of version 6 and without a checksum below its text
VERSION_6 = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

xioGY4d/4xsAAAAg+U2nu0jWCmHlZ3BqZYfQMxmZu52JGggkLq2EVD34laPCsQYf
GwoAAABCBYJjh3/jAwsJBwUVCg4IDAIWAAKbAwIeCSIhBssYbE8GCaaX5NUt+mxy
KwwfHifBilZwj2Ul7Ce62azJBScJAgcCAAAAAK0oIBA+LX0ifsDm185Ecds2v8lw
gyU2kCcUmKfvBXbAf6rhRYWzuQOwEn7E/aLwIwRaLsdry0+VcallHhSu4RN6HWaE
QsiPlR4zxP/TP7mhfVEe7XWPxtnMUMtf15OyA51YBM4qBmOHf+MZAAAAIIaTJINn
+eUBXbki+PSAld2nhJh/LVmFsS+60WyvXkQ1wpsGGBsKAAAALAWCY4d/4wKbDCIh
BssYbE8GCaaX5NUt+mxyKwwfHifBilZwj2Ul7Ce62azJAAAAAAQBIKbpGG2dWTX8
j+VjFM21J0hqWlEg+bdiojWnKfA5AQpWUWtnNwDEM0g12vYxoWM8Y81W+bHBw805
I8kWVkXU6vFOi+HWvv/ira7ofJu16NnoUkhclkUrk0mXubZvyl4GBg==
-----END PGP PUBLIC KEY BLOCK-----
"""


def test_fingerprint_of_version_6() -> None:
    (key,) = parse_keyring(VERSION_6.encode()).keys
    assert key.fingerprint == "CB186C4F0609A697E4D52DFA6C722B0C1F1E27C18A56708F6525EC27BAD9ACC9"
    assert (key.user, key.expires_s, key.revoked) == ("", None, False)


def test_fingerprint_of_version_4() -> None:
    body = keys.body(b"one")
    expected = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()
    ring = parse_keyring(keys.public(b"one", user="Stand-in <a@example.org>"))
    assert [(key.fingerprint, key.user) for key in ring.keys] == [(expected, "Stand-in <a@example.org>")]


def test_fingerprint_of_version_5() -> None:
    body = b"\x05" + keys.body(b"one")[1:]
    expected = hashlib.sha256(b"\x9a" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    assert openpgp.fingerprint(body) == expected


def test_armoured_and_binary_are_the_same() -> None:
    packets = keys.public(b"one")
    text = armour(packets)
    assert max(len(line) for line in text.splitlines()) == 64
    for form in (
        text,
        text.replace("\n", "\r\n"),
        text.replace("-----\n\n", "-----\nVersion: GnuPG v2\nComment: x\n\n", 1),
        "exported today:\n\n" + text + "\nthat was it\n",
    ):
        assert parse_keyring(form.encode()) == parse_keyring(packets)
    without = "".join(line + "\n" for line in text.splitlines() if not line.startswith("="))
    assert parse_keyring(without.encode()) == parse_keyring(packets)


def test_old_and_new_headers_of_packets() -> None:
    body = keys.body(b"one")
    forms = [
        b"\x98" + bytes([len(body)]) + body,
        b"\x99" + len(body).to_bytes(2, "big") + body,
        b"\x9a" + len(body).to_bytes(4, "big") + body,
        b"\xc6" + bytes([len(body)]) + body,
        b"\xc6\xff" + len(body).to_bytes(4, "big") + body,
    ]
    assert {parse_keyring(form).keys for form in forms} == {parse_keyring(keys.public(b"one")).keys}
    long = keys.body(b"x" * 300)
    two = b"\xc6" + bytes([((len(long) - 192) >> 8) + 192, (len(long) - 192) & 0xFF]) + long
    assert parse_keyring(two).keys[0].fingerprint == openpgp.fingerprint(long)


def test_several_keys_in_one_file() -> None:
    both = keys.public(b"one") + keys.subkey(b"below") + keys.public(b"two")
    expected = [openpgp.fingerprint(keys.body(name)) for name in (b"one", b"two")]
    for data in (both, armour(both).encode(), (armour(keys.public(b"one")) + armour(keys.public(b"two"))).encode()):
        assert [key.fingerprint for key in parse_keyring(data).keys] == expected


def test_how_long_a_key_lasts() -> None:
    made = keys.CREATED_S

    def expires(*signatures: bytes) -> object:
        return parse_keyring(keys.public(b"one") + b"".join(signatures)).keys[0].expires_s

    def own(kind: int, created_s: int, lasts_s: int) -> bytes:
        return keys.signature(b"one", kind, created_s, lasts_s)

    assert expires() is None
    assert expires(own(0x13, made, 100)) == made + 100
    assert expires(own(0x13, made, 100), own(0x13, made + 5, 900)) == made + 900
    assert expires(own(0x13, made + 5, 900), own(0x13, made, 100)) == made + 900
    assert expires(own(0x13, made + 5, 0), own(0x13, made, 100)) is None
    assert expires(own(0x13, made + 5, 900), own(0x1F, made, 100)) == made + 100
    # what others say of it, or it of its subkeys
    assert expires(keys.signature(b"two", 0x13, made, 100)) is None
    assert expires(own(0x18, made, 100)) is None


def test_revoked() -> None:
    signature = keys.signature(b"one", 0x20, keys.CREATED_S, 0)
    assert parse_keyring(keys.public(b"one") + signature).keys[0].revoked is True
    other = keys.signature(b"two", 0x20, keys.CREATED_S, 0)
    assert parse_keyring(keys.public(b"one") + other).keys[0].revoked is False


GOOD = armour(keys.public(b"one"))
LINES: List[str] = GOOD.splitlines()
WRONG = {
    "nothing": (b"", "it is no OpenPGP key: it begins with ''"),
    "a page": (b"<html>404</html>", "it is no OpenPGP key: it begins with '<html>404</html>'"),
    "private": (keys.private(b"one"), openpgp.PRIVATE),
    "private, armoured": (
        armour(keys.private(b"one")).replace("PUBLIC", "PRIVATE").encode(),
        openpgp.PRIVATE,
    ),
    "private, said to be public": (armour(keys.private(b"one")).encode(), openpgp.PRIVATE),
    "private among others": (keys.public(b"two") + keys.private(b"one"), openpgp.PRIVATE),
    "private, one packet later": (keys.public(b"two") + keys.private(b"one", below=True), openpgp.PRIVATE),
    "a signature": (GOOD.replace("PUBLIC KEY BLOCK", "SIGNATURE").encode(), "it is a PGP SIGNATURE and no public key"),
    "a signature's packet": (
        keys.signature(b"one", 0x13, 1, 0),
        "it is no OpenPGP key: it begins with another packet (type 2)",
    ),
    "no end": ("\n".join(LINES[:-1]).encode(), "it is cut off: its last line (END PGP PUBLIC KEY BLOCK) is missing"),
    "half": ("\n".join(LINES[:3]).encode(), "it is cut off: its last line (END PGP PUBLIC KEY BLOCK) is missing"),
    "another letter": (
        GOOD.replace(LINES[2][:8], LINES[2][:7] + "b").encode(),
        "it is damaged: its checksum (CRC) is another one",
    ),
    "no base64": (GOOD.replace(LINES[2], "*" * 64).encode(), "it is damaged: not all of its text is base64"),
    "a line short": (GOOD.replace(LINES[2], LINES[2][:-1]).encode(), "it is damaged: not all of its text is base64"),
    "cut off": (keys.public(b"one")[:-3], "it is cut off or damaged"),
    "cut off in a header": (keys.public(b"one") + b"\xb9", "it is cut off or damaged"),
    "a keybox": (
        b"\x00\x00\x00\x20\x01\x01\x00\x02KBXf" + bytes(20),
        "it is a keybox, GnuPG's own database; give what gpg --armor --export prints",
    ),
    "old": (b"\x98\x06\x03abcde", "it is a key of version 3, which nothing trusts any more"),
    "something behind it": (
        keys.public(b"one") + b"\n",
        "it is damaged: no part of a key at byte %d" % len(keys.public(b"one")),
    ),
    "in pieces": (b"\xc6\xe1" + bytes(40), "it is damaged: a packet of unknown length at byte 1"),
    "endless": (b"\x9b" + bytes(40), "it is damaged: a packet of unknown length at byte 0"),
    "only a marker": (b"\xca\x03PGP", "it holds no key"),
    "a broken signature": (
        keys.public(b"one") + b"\xc2\x08\x04\x13\x16\x08\x00\x40\x00\x00",
        "it is cut off or damaged",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_key_is_told(name: str) -> None:
    data, sentence = WRONG[name]
    assert parse_keyring(data) == openpgp.Keyring(problem=sentence)


def test_cut_off_anywhere() -> None:
    """No beginning of a key is a key, and none is a traceback."""
    whole = keys.public(b"one", user="x") + keys.signature(b"one", 0x13, 1, 5)
    good = {len(keys.public(b"one")), len(keys.public(b"one", user="x")), len(whole)}
    for end in range(len(whole)):
        assert (parse_keyring(whole[:end]).problem is None) is (end in good), end
    for at in range(len(whole)):
        parse_keyring(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])


def test_checksum_is_that_of_the_standard() -> None:
    assert openpgp.crc24(b"") == 0xB704CE
    assert openpgp.crc24(b"123456789") == 0x21CF02
    assert base64.b64encode(openpgp.crc24(keys.public(b"one")).to_bytes(3, "big")).decode() == LINES[-2][1:]
