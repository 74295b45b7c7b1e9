# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import apt
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

ONE_LINE = """\
# deb https://old.example.org/x a main
deb https://deb.debian.org/debian/ bookworm main contrib
deb-src https://deb.debian.org/debian bookworm main
  deb [arch=arm64 signed-by=/etc/apt/keyrings/x.gpg] https://example.org/apt axclhost main
"""
STANZAS = """\
# https://old.example.org
Types: deb
URIs: https://a.example.org/ http://b.example.org
Suites: one
 two
Components: main

Enabled: no
Types: deb
URIs: https://off.example.org
Suites: x

types: deb
uris: file:/srv/x
suites: ./
"""


def test_sources_by_line_and_by_stanza() -> None:
    assert [source[1:] for source in apt.parse_sources("/x.list", ONE_LINE)] == [
        ("https://deb.debian.org/debian", "bookworm"),
        ("https://deb.debian.org/debian", "bookworm"),
        ("https://example.org/apt", "axclhost"),
    ]
    assert [source[1:] for source in apt.parse_sources("/x.sources", STANZAS)] == [
        ("https://a.example.org", "one"),
        ("https://a.example.org", "two"),
        ("http://b.example.org", "one"),
        ("http://b.example.org", "two"),
        ("file:/srv/x", "./"),
    ]


def test_ours_are_told_from_others(tree: Tree) -> None:
    tree.file("/etc/apt/sources.list", ONE_LINE)
    tree.file("/etc/apt/sources.list.d/b.sources", STANZAS)
    tree.file("/etc/apt/sources.list.d/c.list.save", ONE_LINE)
    tree.file(apt.SOURCES, "Types: deb\nURIs: https://example.org\nSuites: x\n")
    found = apt.read_apt(Root(str(tree.path)))
    assert list(found.texts) == [apt.SOURCES]
    assert {source.path for source in found.others} == {"/etc/apt/sources.list", "/etc/apt/sources.list.d/b.sources"}


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("https://repo.llm.m5stack.com/m5stack-apt-repo", "repo.llm.m5stack.com"),
        ("http://me:secret@Mirror.lan:8080/x", "mirror.lan"),
        ("http://[fd00::1]:80/x", "fd00::1"),
        ("file:/srv/mirror", ""),
        ("file:///srv/mirror", ""),
    ],
)
def test_host(uri: str, host: str) -> None:
    assert apt.host_of(uri) == host


@pytest.mark.parametrize(
    ("uri", "suite", "prefix"),
    [
        ("https://repo.llm.m5stack.com/m5stack-apt-repo/", "a", "repo.llm.m5stack.com_m5stack-apt-repo_dists_a_"),
        ("file:/srv/my_mirror", "a/b", "_srv_my%5fmirror_dists_a_b_"),
        ("file:///srv/x~y", "./", "_srv_x%7ey_._"),
    ],
)
def test_names_of_lists(uri: str, suite: str, prefix: str) -> None:
    assert apt.lists_prefix(uri, suite) == prefix


def test_release_signed_and_not() -> None:
    plain = "Origin: Stand-in\nSuite: axclhost\nArchitectures: arm64 amd64\nSHA256:\n abc 1 main/x\n"
    signed = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n%s-----BEGIN PGP SIGNATURE-----\n\niQ==\n" % plain
    expected = {"Origin": "Stand-in", "Suite": "axclhost", "Architectures": "arm64 amd64", "SHA256": ""}
    assert apt.parse_release(plain) == apt.parse_release(signed) == expected
    assert apt.parse_release("") == {}


def test_madison() -> None:
    text = """\
  axclhost | 3.6.5-m5stack1 | https://example.org/apt axclhost/main arm64 Packages
  axclhost | 3.6.4-m5stack1 | https://example.org/apt axclhost/main arm64 Packages
  axclhost | 3.6.4-m5stack1 | https://example.org/apt axclhost/other arm64 Packages
  axclhost |       9 | https://example.org/apt axclhost/main Sources
  axclhost-dkms | 7 | https://example.org/apt axclhost/main arm64 Packages
N: Unable to locate package x
"""
    assert apt.parse_madison(text, "axclhost") == ["3.6.5-m5stack1", "3.6.4-m5stack1"]
    assert apt.parse_madison("", "axclhost") == []
