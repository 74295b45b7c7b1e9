# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of a host's apt sources are Debian's own, in both formats that apt reads."""

from __future__ import annotations

from pathlib import Path

from twin.apt import Source, host_sources, parse_deb822, parse_one_line


def test_one_line_sources_keep_the_mirror_and_the_trust() -> None:
    text = """
# deb http://commented.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib # the mirror
deb [arch=amd64 trusted=yes] http://mirror.example/sec bookworm-security main
deb-src http://mirror.example/debian bookworm main
"""
    assert parse_one_line(text, "bookworm") == [
        Source("http://mirror.example/debian", "bookworm", ()),
        Source("http://mirror.example/sec", "bookworm-security", (("Trusted", "yes"),)),
    ]


def test_deb822_stanzas_are_spread_out() -> None:
    text = """Types: deb deb-src
# where from
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
Check-Valid-Until: no

Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
Enabled: no
"""
    assert parse_deb822(text, "bookworm") == [
        Source("http://mirror.example/debian", "bookworm", (("Check-Valid-Until", "no"),)),
        Source("http://mirror.example/debian", "bookworm-updates", (("Check-Valid-Until", "no"),)),
    ]


def test_other_archives_are_left_out() -> None:
    assert parse_one_line("deb http://ubuntu.example/ubuntu noble main", "bookworm") == []
    assert parse_one_line("deb http://vendor.example/debian bookworm stable", "bookworm") == []
    assert (
        parse_one_line("deb [signed-by=/usr/share/keyrings/vendor.gpg] http://v.example/d bookworm main", "bookworm")
        == []
    )
    assert parse_one_line("deb http://mirror.example/debian bookworm-backports main", "bookworm") == []
    key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"
    assert (
        parse_deb822(f"Types: deb\nURIs: http://v.example/\nSuites: bookworm\nComponents: main\n{key}", "bookworm")
        == []
    )


def test_a_stanza_is_what_apt_reads() -> None:
    source = Source("http://mirror.example/debian", "bookworm", (("Trusted", "yes"),))
    assert parse_deb822(source.stanza(), "bookworm") == [source]


def test_a_host_without_debian_has_none(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "x.list").write_text(
        "deb http://ubuntu.example/ubuntu noble main\n", encoding="utf-8"
    )
    assert host_sources("bookworm", tmp_path) == []
