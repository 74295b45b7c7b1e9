# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's own apt settings, as far as they say where Debian's packages come from.

A twin is built from the mirror that its host uses, and uses it later itself. Nothing of it is written down here.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Iterator, NamedTuple

#: Names that Debian's archives go by. Anything else (Ubuntu, a vendor's archive) is not Debian's own.
_CODENAMES = (
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "unstable",
    "testing",
    "stable",
    "oldstable",
    "oldoldstable",
)
_SUITE = re.compile(rf"(?:{'|'.join(_CODENAMES)})(?P<branch>-updates|-security|/updates)?/?")
#: Options of a source that say whether to trust it; the rest (architectures, languages, ...) are the host's affair.
_KEPT_OPTIONS = ("Signed-By", "Trusted", "Check-Valid-Until", "Check-Date", "Allow-Weak")
#: Settings that fetching from the host's mirror may need.
_FETCH_SETTING = re.compile(
    r"Acquire::(?:(?:http|https|ftp)::|Check-Valid-Until|Check-Date|Max-ValidTime|Min-ValidTime|Retries|Force|"
    r"AllowInsecure|AllowWeak|By-Hash|PDiffs)"
)


class Source(NamedTuple):
    """A place that packages come from. ``options`` are deb822 fields."""

    uri: str
    suite: str
    options: tuple[tuple[str, str], ...]

    def stanza(self) -> str:
        fields = (("Types", "deb"), ("URIs", self.uri), ("Suites", self.suite), ("Components", "main"), *self.options)
        return "".join(f"{key}: {value}\n" for key, value in fields)


def host_sources(codename: str, etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """Debian's own sources of this host, for the release that the twin runs; empty if the host has none."""
    found: list[Source] = []
    files = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*.list"))]
    for path in files:
        if path.exists():
            found += parse_one_line(path.read_text(encoding="utf-8"), codename)
    for path in sorted((etc_apt / "sources.list.d").glob("*.sources")):
        found += parse_deb822(path.read_text(encoding="utf-8"), codename)
    return list(dict.fromkeys(found))


def parse_one_line(text: str, codename: str) -> list[Source]:
    """Sources of a *.list file."""
    sources = []
    for line in text.splitlines():
        match = re.match(
            r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>[^#]+)", line.strip()
        )
        if not match:
            continue
        options = {}
        for option in (match["options"] or "").split():
            key, _unused, value = option.partition("=")
            options[key.lower()] = value
        sources += _debians_own([match["uri"]], [match["suite"]], match["components"].split(), options, codename)
    return sources


def parse_deb822(text: str, codename: str) -> list[Source]:
    """Sources of a *.sources file."""
    sources = []
    for stanza in _stanzas(text):
        if stanza.get("enabled", "yes").lower() in ("no", "false") or "deb" not in stanza.get("types", "").split():
            continue
        sources += _debians_own(
            stanza.get("uris", "").split(),
            stanza.get("suites", "").split(),
            stanza.get("components", "").split(),
            stanza,
            codename,
        )
    return sources


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    key = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, key = {}, ""
        elif line[0].isspace() and key:
            fields[key] += "\n" + line.strip()
        else:
            key, _unused, value = line.partition(":")
            key = key.strip().lower()
            fields[key] = value.strip()


def _debians_own(
    uris: list[str], suites: list[str], components: list[str], options: dict[str, str], codename: str
) -> list[Source]:
    """The sources that Debian signs. Other archives use Debian's suite names too, but sign with a key of their own."""
    signed_by = options.get("signed-by", "")
    if "main" not in components or (signed_by and "debian-archive" not in signed_by):
        return []
    if signed_by and not Path(signed_by).exists():
        options = {key: value for key, value in options.items() if key != "signed-by"}
    kept = tuple((name, options[name.lower()]) for name in _KEPT_OPTIONS if name.lower() in options)
    found = []
    for suite in suites:
        match = _SUITE.fullmatch(suite)
        if match:
            branch = (match["branch"] or "").replace("/updates", "-security")
            found += [Source(uri, codename + branch, kept) for uri in uris]
    return found


def host_settings() -> str:
    """apt.conf lines of this host that fetching from its mirrors may need; empty without apt."""
    try:
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    lines = [line for line in dump.splitlines() if _FETCH_SETTING.match(line) and not line.endswith(' "";')]
    return "".join(f"{line}\n" for line in lines)
