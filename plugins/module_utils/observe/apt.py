# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where apt gets packages from, and what it knows of these repositories."""

from __future__ import annotations

import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.openpgp import parse_keyring
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.packages import parse_control

LISTS = "/var/lib/apt/lists"
KEYRING = "/etc/apt/keyrings/edgenpu-axcl.asc"
SOURCES = "/etc/apt/sources.list.d/edgenpu-axcl.sources"
PREFERENCES = "/etc/apt/preferences.d/edgenpu-axcl.pref"
OUR_FILES = (KEYRING, PREFERENCES, SOURCES)  # in the order of writing: none counts before what it needs

_SOURCE_LIST = "/etc/apt/sources.list"
_SOURCE_PARTS = "/etc/apt/sources.list.d"
_ONE_LINE = re.compile(r"^[ \t]*deb(?:-src)?[ \t]+(?:\[[^\]\n]*\][ \t]+)?(\S+)[ \t]+(\S+)", re.MULTILINE)
_QUOTED = '\\|{}[]<>"^~_=!@#$%&*'  # what apt writes as %xx in names of its lists
_MADISON = re.compile(r"^\s*(\S+)\s*\|\s*(\S+)\s*\|\s*(.*)$")


class Source(NamedTuple):
    """A repository that a file in /etc/apt names. URI is without a slash at its end."""

    path: str
    uri: str
    suite: str


class Apt(NamedTuple):
    """TEXTS: our own files by path, as far as they exist. OTHERS: what other files name.

    FINGERPRINTS: those of the keys in our keyring.
    """

    texts: Dict[str, str]
    others: Tuple[Source, ...]
    fingerprints: Tuple[str, ...] = ()


NO_APT = Apt({}, ())


def parse_sources(path: str, text: str) -> List[Source]:
    """Return the repositories that a file names: one for each line (.list), or by stanzas (.sources)."""
    if not path.endswith(".sources"):
        return [Source(path, uri.rstrip("/"), suite) for uri, suite in _ONE_LINE.findall(text)]
    found = []
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields = {name.lower(): value for name, value in parse_control(stanza).items()}
        if fields.get("enabled", "yes").lower() in ("no", "false", "without", "off", "disable", "0"):
            continue
        uris, suites = fields.get("uris", "").split(), fields.get("suites", "").split()
        found += [Source(path, uri.rstrip("/"), suite) for uri in uris for suite in suites]
    return found


def host_of(uri: str) -> str:
    """Return the host in an address; "" for a directory of this one."""
    match = re.match(r"[a-z+]+://(?:[^/@]*@)?(\[[^\]]*\]|[^/:]*)", uri)
    return "" if match is None else match.group(1).strip("[]").lower()


def lists_prefix(uri: str, suite: str) -> str:
    """Return what the names of the files begin with that apt keeps of a repository."""
    path = uri.rstrip("/") + ("/" + suite if suite.endswith("/") else "/dists/%s/" % suite)
    path = re.sub(r"^[a-z+]+:(?://)?(?:[^/@]*@)?", "", path)
    quoted = "".join("%%%02x" % ord(sign) if sign in _QUOTED or not " " < sign < "\x7f" else sign for sign in path)
    return quoted.replace("/", "_")


def parse_release(text: str) -> Dict[str, str]:
    """Return the fields of a Release file, signed (InRelease) or not, without the lists of its files."""
    if text.startswith("-----BEGIN PGP SIGNED MESSAGE-----"):
        text = text.partition("\n\n")[2].partition("\n-----BEGIN PGP SIGNATURE-----")[0]
    return parse_control("\n".join(line for line in text.splitlines() if line[:1] not in (" ", "\t")))


def parse_madison(text: str, package: str) -> List[str]:
    """Return the versions of a package that `apt-cache madison` lists, newest first, each once."""
    matches = (_MADISON.match(line) for line in text.splitlines())
    rows = [match.groups() for match in matches if match is not None]
    found = (version for name, version, place in rows if name == package and not place.endswith(" Sources"))
    return list(dict.fromkeys(found))


def read_releases(root: Root, lists: str = LISTS) -> Dict[str, Dict[str, str]]:
    """Return the fields of the Release files that apt has in a directory, by file name."""
    names = [name for name in root.names(lists) if name.endswith("Release")]
    return {name: parse_release(root.text("%s/%s" % (lists, name)) or "") for name in names}


def read_apt(root: Root) -> Apt:
    """Return our own files of apt's, and what others name."""
    texts = {path: root.text(path) for path in OUR_FILES}
    names = [name for name in root.names(_SOURCE_PARTS) if name.endswith((".list", ".sources"))]
    others: List[Source] = []
    for path in (_SOURCE_LIST, *("%s/%s" % (_SOURCE_PARTS, name) for name in names)):
        text: Optional[str] = None if path == SOURCES else root.text(path)
        others += parse_sources(path, text or "")
    ring = parse_keyring(root.data(KEYRING) or b"")
    return Apt(
        {path: text for path, text in texts.items() if text is not None},
        tuple(others),
        tuple(key.fingerprint for key in ring.keys),
    )
