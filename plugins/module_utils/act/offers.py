# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a source as the user wrote it to what it offers: files fetched and looked at, a repository's key trusted."""

from __future__ import annotations

import os
from typing import Any, Callable, List, Mapping, NamedTuple, Optional

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.driver import cached, look_at_debs
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.driver import (
    Offer,
    is_installed,
    sha256_of_all,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.repository import (
    Repository,
    worn_out,
    wrong_keyring,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.apt import KEYRING
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import read_driver_state
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.openpgp import armour, parse_keyring
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Runner

Fetch = Callable[[str], str]  # from an address to where it lies on the host


class NeedsFile(Exception):
    """A file of the control node is needed on the host."""


class _File(NamedTuple):
    name: str
    path: Optional[str]
    url: Optional[str]
    sha256: Optional[str]


def as_written(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a source without what the action plugin has added: a copy's place, in addition to the file's own."""
    files = source.get("files")
    plain = dict(source, path=None) if source.get("file") else source
    return dict(plain, files=[as_written(one) for one in files]) if files else plain


def _file(one: Mapping[str, Any]) -> _File:
    name = os.path.basename(one["file"] or one["path"] or one["url"])
    return _File(name, one["path"], one["url"], None if one["sha256"] is None else one["sha256"].lower())


def _repository(root: Root, given: Mapping[str, Any], fetch: Optional[Fetch], now_s: float) -> Repository:
    """Return a repository with its key, if that may be trusted. Raises WishError."""
    fingerprints = given["fingerprint"] or ()
    found = Repository(given["uri"], given["suite"], tuple(given["components"] or ()), given["architecture"])
    if given["key_url"]:
        data, what = root.data(KEYRING), given["key_url"]
        if data is None or wrong_keyring(parse_keyring(data), fingerprints, KEYRING) is not None:
            if fetch is None:
                return found
            data = root.data(fetch(what))
    else:
        data, what = (given["key"] or "").encode("utf-8"), given["key_file"] or "key"
    ring = parse_keyring(data or b"")
    trouble = wrong_keyring(ring, fingerprints, what)
    if trouble is not None:
        raise WishError(trouble)
    return found._replace(key=armour(ring.packets), problem=worn_out(ring, now_s))


def find_offer(root: Root, source: Mapping[str, Any], runner: Runner, fetch: Optional[Fetch], now_s: float) -> Offer:
    """Return what the source offers, fetched only where it is not installed yet.

    FETCH: None where nothing may be fetched, in check mode. NOW_S: seconds since 1970. Raises WishError with a sentence
    for what cannot be used, and NeedsFile where the host has no copy of a file of the control node's.
    """
    sdk = source["sdk_version"]
    if source["package"]:
        given = source["repository"]
        repository = None if given is None else _repository(root, given, fetch, now_s)
        return Offer(
            package=source["package"],
            version=source["version"],
            sdk=sdk or source["version"],
            repository=repository,
        )
    files = [_file(one) for one in source["files"] or [source]]
    names = [one.name for one in files]
    sums = [one.sha256 for one in files if one.sha256 is not None]
    whole = sha256_of_all(sums) if len(sums) == len(files) else None
    if whole is not None:
        state = read_driver_state(root)
        known = Offer(sha256=whole, file_name=", ".join(names), sdk=sdk or state.record.sdk)
        if is_installed(state, known):
            return known
    paths: List[str] = []
    for one in files:
        path = one.path
        kept = None if whole is None else cached(whole, one.sha256 if len(files) > 1 else None)
        if path is None and kept is not None and root.exists(kept):
            path = kept  # of a run that was killed
        if path is None and one.url is not None:
            if fetch is None:
                return Offer(sha256=whole or "", file_name=", ".join(names), sdk=sdk)
            path = fetch(one.url)
        if path is None:
            raise NeedsFile
        paths.append(path)
    return look_at_debs(root, paths, names, [one.sha256 for one in files], sdk, runner)
