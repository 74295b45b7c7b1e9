# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trying an apt repository in a place of its own, before apt on this host hears of it."""

from __future__ import annotations

import os
from typing import List, NamedTuple, Optional

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import FileState, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.repository import (
    Repository,
    host_pin,
    package_problem,
    prefix_of,
    release_pin,
    sources_text,
    update_problem,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.apt import (
    KEYRING,
    LISTS,
    SOURCES,
    parse_madison,
    read_apt,
    read_releases,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran, Runner

TRIAL = "/var/lib/edgenpu-tuning/apt-trial"
UPDATE_S, ASK_S = 300.0, 60.0
_ENVIRONMENT = ("env", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")


class Tried(NamedTuple):
    """What a trial has found: the VERSION of the package that is to be had, and the PIN that matches its repository."""

    version: str
    pin: str


def _only(path: str) -> List[str]:
    """Return the options with which apt knows the sources in one file only."""
    return ["-o", "Dir::Etc::SourceList=" + path, "-o", "Dir::Etc::SourceParts=/dev/null"]


def refresh(runner: Runner) -> Ran:
    """Let apt read the package lists of our repository, and of no other."""
    options = [*_only(SOURCES), "-o", "APT::Get::List-Cleanup=false", "-o", "DPkg::Lock::Timeout=300"]
    return runner([*_ENVIRONMENT, "apt-get", *options, "-o", "APT::Update::Error-Mode=any", "update"], UPDATE_S)


def try_repository(
    sink: Sink, repository: Repository, architecture: str, package: str, version: Optional[str], runner: Runner
) -> Tried:
    """Let apt read a repository without its being set up. Raises WishError if it or the package is not to be had."""
    sink.remove_tree(TRIAL)
    try:
        return _try(sink, repository, architecture, package, version, runner)
    finally:
        sink.remove_tree(TRIAL)
        sink.remove_if_empty(os.path.dirname(TRIAL))


def _try(
    sink: Sink, repository: Repository, architecture: str, package: str, version: Optional[str], runner: Runner
) -> Tried:
    lists, keyring, sources = TRIAL + "/lists", TRIAL + "/key.asc", TRIAL + "/trial.sources"
    sink.put(keyring, FileState((repository.key or "").encode("ascii")))
    text = sources_text(repository, architecture).replace(KEYRING, sink.host_path(keyring))
    sink.put(sources, FileState(text.encode("ascii")))
    sink.make_parents(lists + "/partial/x")
    options = [
        *_only(sink.host_path(sources)),
        *("-o", "Dir::State::Lists=" + sink.host_path(lists)),
        *("-o", "Dir::Cache::PkgCache=", "-o", "Dir::Cache::SrcPkgCache="),
        *("-o", "Dir::Etc::Preferences=/dev/null", "-o", "Dir::Etc::PreferencesParts=/dev/null"),
    ]
    limits = ["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=30", "-o", "Acquire::https::Timeout=30"]
    ran = runner([*_ENVIRONMENT, "apt-get", *options, *limits, "-o", "APT::Update::Error-Mode=any", "update"], UPDATE_S)
    problem = update_problem(repository, ran.status, ran.output)
    if problem is None:
        release = next(iter(read_releases(sink.root, lists).values()), {})
        asked = runner([*_ENVIRONMENT, "apt-cache", *options, "madison", package], ASK_S)
        versions = parse_madison(asked.output, package)
        problem = package_problem(repository, architecture, release, versions, package, version)
    if problem is not None:
        raise WishError(problem)
    pin = host_pin(repository, read_apt(sink.root).others)
    if pin is None:
        prefix = prefix_of(repository)
        others = [fields for name, fields in read_releases(sink.root, LISTS).items() if not name.startswith(prefix)]
        pin = release_pin(release, others)
    if pin is None:
        raise WishError(
            "the repository %s %s cannot be told from the others that apt has (by host, or by what its Release file "
            "says), so it could replace packages of the system; give it a host of its own, or an Origin and a Label"
            % (repository.uri, repository.suite)
        )
    return Tried(version or versions[0], pin)
