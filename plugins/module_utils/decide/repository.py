# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An apt repository as the driver's source: whether its key may be trusted, and how little apt may take from it."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.apt import (
    KEYRING,
    PREFERENCES,
    SOURCES,
    Apt,
    Source,
    host_of,
    lists_prefix,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.openpgp import Key, Keyring

KEYS = ("key", "key_file", "key_url")
_URI = re.compile(r"(?:https?|ftp)://[^\s/@]+(?:/\S*)?|(?:file|copy):(?://)?/\S*")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_/-]*")
_SUITE = re.compile(r"[A-Za-z0-9./][A-Za-z0-9.+~_/-]*")
# The names that the driver's packages have, as apt's preferences write it
_DRIVER_NAMES = "/^(task-)?axclhost(-[a-z]+)*$/ /^dshanpi-[a-z0-9-]*axcl[a-z0-9-]*$/"

_SOURCES_TEXT = """\
# Written by edgenpu.tuning, which removes it with the driver.
Types: deb
URIs: %s
Suites: %s
%sArchitectures: %s
Signed-By: %s
"""

_PREFERENCES_TEXT = """\
Explanation: Written by edgenpu.tuning. From this repository comes the driver and nothing else.
Package: *
Pin: %(pin)s
Pin-Priority: -1

Explanation: The driver's packages.
Package: %(names)s
Pin: %(pin)s
Pin-Priority: 500
"""


class Repository(NamedTuple):
    """An apt repository. KEY: its keyring, armoured; None while it has not been fetched. PROBLEM: the key is no more.

    ARCHITECTURE: the one that is asked for, None for the host's.
    """

    uri: str
    suite: str
    components: Tuple[str, ...]
    architecture: Optional[str] = None
    key: Optional[str] = None
    problem: Optional[str] = None


def fingerprint_of(text: str) -> Optional[str]:
    """Return a fingerprint as people write it (in groups, with colons, after 0x) in one form; None if it is none."""
    plain = re.sub(r"^0[xX]|[\s:]", "", text.strip()).upper()
    return plain if re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", plain) else None


def wrong_repository(given: Mapping[str, Any]) -> Optional[str]:
    """Return what is wrong with a repository as the user wrote it, in one sentence; None if it can be used."""
    uri, suite, components = given.get("uri") or "", given.get("suite") or "", given.get("components") or ()
    where = "source: repository: "
    if "@" in uri.partition("://")[2].partition("/")[0]:
        return where + "uri holds a name or a password, which everybody could read; put that into /etc/apt/auth.conf.d"
    if not _URI.fullmatch(uri):
        return where + "uri %r is no address; write https://..." % uri
    if not _SUITE.fullmatch(suite):
        return where + "suite %r is no name; write what stands below dists/ in the repository" % suite
    if suite.endswith("/") == bool(components):
        need = "a suite that ends with / has none" if components else "name at least one, such as main"
        return where + "components: " + need
    wrong = [name for name in components if not _WORD.fullmatch(name)]
    if wrong:
        return where + "component %r is no name" % wrong[0]
    keys = [name for name in KEYS if given.get(name)]
    if len(keys) != 1:
        return where + "give one of key, key_file and key_url; %s given" % (" and ".join(keys) or "none is")
    fingerprints = given.get("fingerprint") or ()
    for text in fingerprints:
        if fingerprint_of(text) is None:
            return where + (
                "fingerprint %r is none; it has 40 hexadecimal digits (64 for newer keys), and the short number of a "
                "key is not enough, since anybody can make another key that has it" % text
            )
    if not fingerprints and keys == ["key_url"]:
        return where + "a key that is fetched needs its fingerprint, from a place that you trust"
    if not fingerprints and not given.get("fingerprint_none_accepted"):
        return where + (
            "fingerprint is needed, so that the key is the one that you mean; or set fingerprint_none_accepted: true"
        )
    return None


def _named(key: Key) -> str:
    return "%s (%s)" % (key.fingerprint, key.user) if key.user else key.fingerprint


def wrong_keyring(ring: Keyring, fingerprints: Sequence[str], what: str) -> Optional[str]:
    """Return why the keys in WHAT may not be trusted, in one sentence; None if each is among the FINGERPRINTS.

    Without FINGERPRINTS any public key will do.
    """
    if ring.problem is not None:
        return "source: repository: %s is of no use as a key: %s" % (what, ring.problem)
    known = {fingerprint_of(text) for text in fingerprints}
    strange = [key for key in ring.keys if known and key.fingerprint not in known]
    if not strange:
        return None
    among = "" if len(ring.keys) == 1 else ", one of %d," % len(ring.keys)
    return "source: repository: the key in %s%s has the fingerprint %s and not %s; nothing was changed" % (
        what,
        among,
        _named(strange[0]),
        " or ".join(sorted(str(name) for name in known)),
    )


def worn_out(ring: Keyring, now_s: float) -> Optional[str]:
    """Return why none of the keys can sign any more at NOW_S (seconds since 1970); None if one can."""
    reasons = []
    for key in ring.keys:
        if key.revoked:
            reasons.append("%s was revoked by its owner" % _named(key))
        elif key.expires_s is not None and key.expires_s <= now_s:
            reasons.append("%s expired %d days ago" % (_named(key), (now_s - key.expires_s) // 86400))
        else:
            return None
    return "the repository's key %s; get the present one from whom the repository is" % "; ".join(reasons)


def sources_text(repository: Repository, architecture: str) -> str:
    """Return the file that names the repository to apt."""
    components = "Components: %s\n" % " ".join(repository.components) if repository.components else ""
    return _SOURCES_TEXT % (repository.uri, repository.suite, components, architecture, KEYRING)


def preferences_text(pin: str) -> str:
    """Return the file that lets apt take nothing but the driver from what PIN matches."""
    return _PREFERENCES_TEXT % {"pin": pin, "names": _DRIVER_NAMES}


def repository_texts(repository: Repository, architecture: str, pin: Optional[str]) -> Dict[str, str]:
    """Return our files of apt's by path, as far as they can be told: key and PIN may not be known yet."""
    texts = {} if repository.key is None else {KEYRING: repository.key}
    if pin is not None:
        texts[PREFERENCES] = preferences_text(pin)
    texts[SOURCES] = sources_text(repository, architecture)
    return texts


def _shares_host(repository: Repository, others: Sequence[Source]) -> bool:
    host = host_of(repository.uri)
    return any(host_of(source.uri) == host for source in others)


def host_pin(repository: Repository, others: Sequence[Source]) -> Optional[str]:
    """Return the pin on the repository's host; None if it has none, or apt gets other packages from there as well."""
    host = host_of(repository.uri)
    return 'origin "%s"' % host if host and not _shares_host(repository, others) else None


def release_pin(release: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> Optional[str]:
    """Return the pin on what a repository calls itself; None if one of the OTHERS, or nobody, calls itself the same."""
    fields = (("o", "Origin"), ("l", "Label"), ("n", "Codename"), ("a", "Suite"))
    said = [(sign, name, release.get(name, "")) for sign, name in fields]
    said = [one for one in said if one[2] and "," not in one[2]]
    if not said or any(all(other.get(name) == value for _sign, name, value in said) for other in others):
        return None
    return "release " + ",".join("%s=%s" % (sign, value) for sign, _name, value in said)


def is_set_up(apt: Apt, repository: Repository, architecture: str, pin: Optional[str]) -> bool:
    """Tell whether apt has the repository as wished. PIN: the one that was found when it was set up."""
    if pin is None or (pin.startswith("origin") and pin != host_pin(repository, apt.others)):
        return False
    texts = repository_texts(repository, architecture, pin)
    return KEYRING in texts and all(apt.texts.get(path) == text.strip() for path, text in texts.items())


def repository_obstacles(apt: Apt, repository: Repository, architecture: Optional[str]) -> List[str]:
    """Return what speaks against setting the repository up on a host of this ARCHITECTURE."""
    found = []
    if repository.architecture not in (None, architecture):
        found.append(
            "source: repository: architecture is %s and this host is %s; leave it out, or write %s"
            % (repository.architecture, architecture, architecture)
        )
    if repository.problem is not None:
        found.append(repository.problem)
    same = (repository.uri.rstrip("/"), repository.suite)
    for path in sorted({source.path for source in apt.others if (source.uri, source.suite) == same}):
        found.append(
            "%s names the repository %s %s already, and apt refuses to work with two keys for one repository; take it "
            "out there, or leave repository out of the source" % (path, repository.uri, repository.suite)
        )
    return found


def update_problem(repository: Repository, status: int, output: str) -> Optional[str]:
    """Return why apt could not read the repository, in one sentence; None if it could."""
    lines = [line.strip() for line in output.splitlines()]
    bad = [line for line in lines if line.startswith(("E: ", "W: Failed to fetch", "Err:"))]
    signed = [line for line in lines if re.search("NO_PUBKEY|EXPKEYSIG|REVKEYSIG|BADSIG|KEYEXPIRED", line)]
    if status == 0 and not bad and not signed:
        return None
    where = "%s %s" % (repository.uri, repository.suite)
    missing = re.search(r"(?:NO_PUBKEY|Missing key) ([0-9A-Fa-f]{16,})", output)
    if missing is not None:
        why = "it is signed with the key %s, which is not the one that was given" % missing.group(1)
    elif re.search("EXPKEYSIG|KEYEXPIRED", output):
        why = "the key that it is signed with has expired"
    elif "REVKEYSIG" in output:
        why = "the key that it is signed with was revoked by its owner"
    elif "BADSIG" in output:
        why = "its signature is wrong: somebody has changed it on the way, or it is being renewed; try again later"
    elif re.search("is not signed|no longer signed", output):
        why = "it is not signed"
    elif re.search("404 |File not found", output) and "have a Release file" in output:
        why = "it has no suite of that name"
    else:
        told = sorted(bad, key=lambda line: "Failed to fetch" not in line)  # which names the reason; others do not
        why = "apt says: %s" % (told[0].partition(" ")[2] if told else "apt-get update ended with %d" % status)
    return "the repository %s cannot be used: %s; nothing was changed" % (where, why)


def package_problem(
    repository: Repository,
    architecture: str,
    release: Mapping[str, str],
    versions: Sequence[str],
    package: str,
    version: Optional[str],
) -> Optional[str]:
    """Return why a package cannot come from the repository, in one sentence; None if it can.

    RELEASE: fields of its Release file. VERSIONS: those of the package that apt can have from it.
    """
    where = "the repository %s %s" % (repository.uri, repository.suite)
    if version in versions or (version is None and versions):
        return None
    if versions:
        return "%s has %s only as %s, and not as %s; nothing was changed" % (
            where,
            package,
            ", ".join(versions),
            version,
        )
    has = release.get("Architectures", "").split()
    if has and architecture not in has and "all" not in has:
        return "%s has nothing for %s, only for %s; nothing was changed" % (where, architecture, ", ".join(has))
    has = release.get("Components", "").split()
    lacks = [name for name in repository.components if has and name not in has]
    if lacks:
        return "%s has no component %s; it has %s; nothing was changed" % (where, ", ".join(lacks), ", ".join(has))
    return "%s has no package %s for %s; nothing was changed" % (where, package, architecture)


def prefix_of(repository: Repository) -> str:
    """Return what the names of the files begin with that apt keeps of the repository."""
    return lists_prefix(repository.uri, repository.suite)
