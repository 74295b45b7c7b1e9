# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A driver from an apt repository that is set up for it, and goes with it."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import driver, ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.driver import Done, Failed
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.repository import TRIAL
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.driver import DriverWishes, Offer
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.repository import Repository
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.apt import (
    KEYRING,
    LISTS,
    OUR_FILES,
    PREFERENCES,
    SOURCES,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import MODULES, read_driver_state
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.openpgp import armour
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran, Runner
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import keys
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.drivers import Box
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

KEY = armour(keys.public(b"one"))
REPOSITORY = Repository("https://example.org/apt", "axclhost", ("main",), None, KEY)
NEW, OLD = "3.6.5-m5stack1", "3.6.4-m5stack1"
UPDATE = "apt-get -o Dir::Etc::SourceList="
LIST = LISTS + "/example.org_apt_dists_axclhost_InRelease"


@pytest.fixture
def box(tree: Tree) -> Box:
    one = Box(tree, "dkms")
    one.tree.file(LISTS + "/deb.debian.org_debian_dists_bookworm_InRelease", "Origin: Debian\nSuite: stable\n")
    one.tree.file("/etc/apt/sources.list", "deb http://deb.debian.org/debian bookworm main\n")
    return one


def offer(version: Optional[str] = NEW, **more: Any) -> Offer:
    return Offer(package="axclhost", version=version, sdk=version, repository=REPOSITORY._replace(**more))


def install(box: Box, wanted: Optional[Offer] = None, check: bool = False) -> Done:
    return driver.make_present(box.kernel, wanted or offer(), DriverWishes(), box.run, check)


def kinds(done: Done) -> List[str]:
    return [change.path.partition(":")[0] for change in done.changes if not change.path.startswith("/")]


def files(box: Box) -> Dict[str, Any]:
    return {path: value for path, value in box.snapshot().items() if value[0] != "directory"}


def test_set_up_pinned_and_installed(box: Box) -> None:
    done = install(box)
    assert (done.obstacles, done.refused) == ([], [])
    assert kinds(done)[:3] == ["repository", "fetch", "install"]
    assert box.text(KEYRING) == KEY
    assert box.text(SOURCES).splitlines()[1:] == [
        "Types: deb",
        "URIs: https://example.org/apt",
        "Suites: axclhost",
        "Components: main",
        "Architectures: arm64",
        "Signed-By: " + KEYRING,
    ]
    pin = 'Pin: origin "example.org"'
    assert [line for line in box.text(PREFERENCES).splitlines() if line.startswith("Pin")] == [
        pin,
        "Pin-Priority: -1",
        pin,
        "Pin-Priority: 500",
    ]
    assert not box.has(TRIAL)
    assert list(box.loaded) == list(MODULES)
    assert [path for path, _before, _after in done.files][:3] == list(OUR_FILES)
    state = read_driver_state(box.root)
    assert (state.record.pin, state.record.lists) == ('origin "example.org"', "example.org_apt_dists_axclhost_")
    updates = [line for line in box.commands if line.startswith("apt-get") and line.endswith("update")]
    assert [TRIAL in line for line in updates] == [True, False]
    assert "Dir::Etc::SourceList=%s -o Dir::Etc::SourceParts=/dev/null" % SOURCES in updates[1]
    assert any(line.endswith("--download-only axclhost=" + NEW) for line in box.commands)
    assert any(line.endswith("--allow-change-held-packages axclhost=" + NEW) for line in box.commands)


def test_second_run_runs_nothing(box: Box) -> None:
    install(box)
    before, count = box.snapshot(), len(box.commands)
    for check in (False, True):
        done = install(box, check=check)
        assert (done.changes, done.files, done.unknown) == ([], [], [])
    assert (box.snapshot(), box.commands[count:]) == (before, [])


def test_without_a_version_the_newest_is_installed(box: Box) -> None:
    install(box, offer(None))
    assert read_driver_state(box.root).packages["axclhost"].version == NEW
    box.versions.insert(0, "9")
    assert install(box, offer(None)).changes == []


def test_check_mode_predicts_and_runs_nothing(box: Box) -> None:
    before = box.snapshot()
    done = install(box, check=True)
    assert (box.snapshot(), box.commands) == (before, [])
    assert kinds(done)[0] == "repository"
    assert [path for path, _before, _after in done.files][:3] == list(OUR_FILES)
    assert "whether the repository can be reached and has the package: unknown until apt has read it" in done.unknown
    without = install(box, offer(key=None), check=True)
    assert "whether the repository's key is the right one: unknown until it has been fetched" in without.unknown
    assert KEYRING not in [path for path, _before, _after in without.files]


def test_files_of_the_user_come_back(box: Box) -> None:
    for path in OUR_FILES:
        box.tree.file(path, "# mine\n")
    box.path(KEYRING).chmod(0o600)
    before = files(box)
    install(box)
    assert "mine" not in box.text(KEYRING)
    predicted = driver.make_absent(box.kernel, box.run, check=True)
    driver.make_absent(box.kernel, box.run)
    assert files(box) == before
    assert "remove: " + LIST in [change.path for change in predicted.changes]
    assert driver.make_absent(box.kernel, box.run).changes == []


def test_spoiled_files_are_mended(box: Box) -> None:
    install(box)
    for path in OUR_FILES:
        box.tree.file(path, "spoiled\n")
        done = install(box)
        assert kinds(done) == ["repository"]
        assert [name for name, _before, _after in done.files] == [path]
        assert install(box).changes == []


GPG = "W: GPG error: https://example.org/apt axclhost InRelease: "
FETCH = "Failed to fetch https://example.org/apt/dists/axclhost/InRelease  "
TROUBLE: Dict[str, Any] = {
    "unreachable": (
        (100, "Err:1 https://example.org/apt x InRelease\n  Could not resolve\nE: %sCould not resolve\n" % FETCH),
        "apt says: %sCould not resolve" % FETCH,
    ),
    "unreachable, an older apt": (
        (0, "W: %sConnection failed\nW: Some index files failed to download.\n" % FETCH),
        "apt says: %sConnection failed" % FETCH,
    ),
    "another key": (
        (100, GPG + "NO_PUBKEY 5BA361C8BEAF38B8\nE: The repository is not signed.\n"),
        "it is signed with the key 5BA361C8BEAF38B8, which is not the one that was given",
    ),
    "expired": (
        (0, GPG + "The following signatures were invalid: EXPKEYSIG 5BA361C8BEAF38B8 Stand-in\n"),
        "the key that it is signed with has expired",
    ),
    "revoked": (
        (0, GPG + "The following signatures were invalid: REVKEYSIG 5BA361C8BEAF38B8 Stand-in\n"),
        "the key that it is signed with was revoked by its owner",
    ),
    "changed": (
        (100, "E: x: The following signatures were invalid: BADSIG 5BA361C8BEAF38B8 Stand-in\n"),
        "its signature is wrong: somebody has changed it on the way, or it is being renewed; try again later",
    ),
    "unsigned": (
        (100, "E: The repository 'https://example.org/apt axclhost Release' is not signed.\n"),
        "it is not signed",
    ),
    "no suite": (
        (100, "Err:2 x\n  404  Not Found\nE: The repository 'x' does not have a Release file.\n"),
        "it has no suite of that name",
    ),
    "hung": ((124, ""), "apt says: apt-get update ended with 124"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_repository_that_cannot_be_used_changes_nothing(box: Box, name: str) -> None:
    ran, sentence = TROUBLE[name]
    before = box.snapshot()
    box.fail[UPDATE] = ran
    with pytest.raises(WishError) as caught:
        install(box)
    assert str(caught.value) == (
        "the repository https://example.org/apt axclhost cannot be used: %s; nothing was changed" % sentence
    )
    assert box.snapshot() == before
    del box.fail[UPDATE]
    assert install(box).refused == []


def test_package_that_is_not_there_changes_nothing(box: Box) -> None:
    before = box.snapshot()
    where = "the repository https://example.org/apt axclhost has "

    def told(wanted: Offer) -> str:
        with pytest.raises(WishError) as caught:
            install(box, wanted)
        assert box.snapshot() == before
        return str(caught.value)

    assert told(offer("9")) == where + "axclhost only as %s, %s, and not as 9; nothing was changed" % (NEW, OLD)
    box.versions = []
    assert told(offer()) == where + "no package axclhost for arm64; nothing was changed"
    assert told(offer(None)) == where + "no package axclhost for arm64; nothing was changed"
    box.release = "Architectures: amd64 i386\nComponents: main\n"
    assert told(offer()) == where + "nothing for arm64, only for amd64, i386; nothing was changed"
    box.release = "Architectures: arm64\nComponents: llm8850 other\n"
    assert told(offer()) == where + "no component main; it has llm8850, other; nothing was changed"


def test_repository_that_fails_once_it_is_set_up_goes_again(box: Box) -> None:
    box.tree.file(SOURCES, "# mine\n")
    before = files(box)
    box.fail[UPDATE + SOURCES] = (100, "E: Failed to fetch x  Connection reset\n")
    with pytest.raises(Failed, match="Connection reset; nothing was changed"):
        install(box)
    assert {path: value for path, value in files(box).items() if "ledger" not in path} == before
    driver.make_absent(box.kernel, box.run)
    assert box.text(SOURCES) == "# mine\n"


def test_the_same_repository_elsewhere(box: Box) -> None:
    line = "deb [signed-by=/x] https://example.org/apt/ axclhost main\n"
    box.tree.file("/etc/apt/sources.list.d/axclhost.list", line)
    done = install(box)
    assert done.obstacles == [
        (
            "/etc/apt/sources.list.d/axclhost.list names the repository https://example.org/apt axclhost already, and "
            "apt refuses to work with two keys for one repository; take it out there, or leave repository out of the "
            "source"
        )
    ]
    assert box.commands == []
    box.remove("/etc/apt/sources.list.d/axclhost.list")
    install(box)
    box.tree.file("/etc/apt/sources.list.d/axclhost.list", line)
    again = install(box)
    assert (again.changes, len(again.obstacles)) == ([], 1)


def test_host_that_serves_other_packages_as_well(box: Box) -> None:
    """A mirror of all: the driver's part of it is told by what it calls itself, or Debian's own would be shut out."""
    install(box)
    box.tree.file("/etc/apt/sources.list", "deb https://example.org/debian bookworm main\n")
    assert kinds(install(box)) == ["repository"]
    pin = "release o=stand-in,a=axclhost"
    assert box.text(PREFERENCES).count("Pin: %s\n" % pin) == 2
    assert read_driver_state(box.root).record.pin == pin
    assert install(box).changes == []


@pytest.mark.parametrize("release", ["Origin: Debian\nSuite: stable\n", "Architectures: arm64\n", "Suite: a, b\n"])
def test_repository_that_cannot_be_told_from_others(box: Box, release: str) -> None:
    box.tree.file("/etc/apt/sources.list", "deb https://example.org/debian bookworm main\n")
    before = box.snapshot()
    box.release = release
    with pytest.raises(WishError, match=r"cannot be told from the others .* replace packages of the system"):
        install(box)
    assert box.snapshot() == before


def test_worn_out_key_stands_in_the_way_of_what_needs_it(box: Box) -> None:
    worn = offer(problem="the repository's key X expired 3 days ago; get the present one")
    assert install(box, worn).obstacles == ["the repository's key X expired 3 days ago; get the present one"]
    assert box.commands == []
    install(box)
    done = install(box, worn)
    assert (done.obstacles, done.changes) == ([], [])
    assert "the repository's key X expired 3 days ago; get the present one" in done.warnings


def test_other_architecture(box: Box) -> None:
    assert install(box, offer(architecture="amd64")).obstacles == [
        "source: repository: architecture is amd64 and this host is arm64; leave it out, or write arm64"
    ]
    assert install(box, offer(architecture="arm64")).obstacles == []


def test_upgrade_is_fetched_before_the_old_one_goes(box: Box) -> None:
    install(box, offer(OLD))
    count = len(box.commands)
    done = install(box)
    assert kinds(done)[:3] == ["repository", "save", "fetch"]
    lines = box.commands[count:]
    fetched = next(at for at, line in enumerate(lines) if line.endswith("--download-only axclhost=" + NEW))
    assert fetched < min(at for at, line in enumerate(lines) if line.startswith(("modprobe -r", "dpkg")))
    assert read_driver_state(box.root).packages["axclhost"].version == NEW
    assert install(box, offer(OLD)).refused == []
    assert read_driver_state(box.root).packages["axclhost"].version == OLD


def test_network_gone_before_an_upgrade(box: Box) -> None:
    install(box, offer(OLD))
    before = box.snapshot()
    box.before = lambda line: box.fail.update(
        {line: (100, "E: Failed to fetch x.deb  Connection reset\n")} if line.endswith("only axclhost=" + NEW) else {}
    )
    with pytest.raises(Failed) as caught:
        install(box)
    assert str(caught.value) == "fetching axclhost=%s failed: E: Failed to fetch x.deb  Connection reset" % NEW
    assert box.snapshot() == before
    assert list(box.loaded) == list(MODULES)


def test_upgrade_that_fails_goes_back(box: Box) -> None:
    install(box, offer(OLD))
    box.before = lambda line: box.fail.update(
        {line: (100, "E: build driver fail\n")} if line.endswith("packages axclhost=" + NEW) else {}
    )
    with pytest.raises(Failed) as caught:
        install(box)
    assert str(caught.value) == (
        "installing axclhost failed: E: build driver fail; axclhost=%s, which was there before, is back" % OLD
    )
    assert read_driver_state(box.root).packages["axclhost"].version == OLD
    assert list(box.loaded) == list(MODULES)
    assert install(box, offer(OLD)).changes == []


def test_first_installation_that_fails_leaves_no_repository(box: Box) -> None:
    before = files(box)
    box.fail["build"] = (1, "")
    with pytest.raises(Failed, match="nothing of it is left on the host"):
        install(box)
    assert files(box) == before


def test_refresh_that_fails_half_way_leaves_no_lists(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository answered when it was tried, and its packages' list is cut off now."""
    before = files(box)

    def cut_off(runner: Runner) -> Ran:
        box.tree.file(LIST, "Origin: example\n")
        return Ran(100, "E: %sConnection reset\n" % FETCH)

    monkeypatch.setattr(driver, "refresh", cut_off)
    with pytest.raises(Failed, match="Connection reset"):
        install(box)
    left = {path: value for path, value in files(box).items() if before.get(path) != value}
    assert list(left) == [ledger.PATH]
    driver.make_absent(box.kernel, box.run)
    assert files(box) == before


def test_driver_that_comes_from_elsewhere_now(box: Box) -> None:
    install(box)
    box.tree.file("/etc/apt/sources.list.d/mine.list", "deb https://example.org/other x main\n")
    done = install(box, Offer(package="axclhost", version=NEW))
    assert kinds(done) == ["unlist"]
    assert not any(box.has(path) for path in (*OUR_FILES, LIST))
    record = read_driver_state(box.root).record
    assert (record.pin, record.lists) == (None, None)
    assert install(box, Offer(package="axclhost", version=NEW)).changes == []


def test_kept_driver_keeps_its_repository(box: Box) -> None:
    install(box)
    done = driver.make_present(box.kernel, None, DriverWishes(), box.run)
    assert (done.changes, box.has(SOURCES)) == ([], True)


@pytest.mark.parametrize("at", range(11))
def test_killed_and_repeated(box: Box, tmp_path_factory: pytest.TempPathFactory, at: int) -> None:
    undisturbed = Box(Tree(tmp_path_factory.mktemp("undisturbed")), "dkms")
    for path in ("/etc/apt/sources.list", LISTS + "/deb.debian.org_debian_dists_bookworm_InRelease"):
        undisturbed.tree.file(path, box.text(path))
    install(undisturbed)
    assert len(undisturbed.commands) == 11
    run = box.run

    class Killed(BaseException):
        pass

    def dying(argv: Any, timeout_s: float) -> Any:
        if len(box.commands) == at:
            raise Killed
        return run(argv, timeout_s)

    box.run = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        install(box)
    box.run = run  # type: ignore[method-assign]
    assert install(box).refused == []

    def end(one: Box) -> Dict[str, Any]:
        return {path: value for path, value in files(one).items() if not path.endswith("ledger.json")}

    assert end(box) == end(undisturbed)
    assert install(box).changes == []


def test_what_is_put_back_is_what_was_there_last(box: Box) -> None:
    """A file, then a package of apt's: the file's copy is no way back any more."""
    path = box.package_file()
    driver.make_present(
        box.kernel, driver.look_at_deb(box.root, path, "x.deb", None, None, box.run), DriverWishes(), box.run
    )
    assert box.root.names(driver.PACKAGES) != []
    install(box, offer(OLD))
    assert box.root.names(driver.PACKAGES) == []
    box.before = lambda line: box.fail.update(
        {line: (100, "E: build driver fail\n")} if line.endswith("packages axclhost=" + NEW) else {}
    )
    with pytest.raises(Failed, match="axclhost=%s, which was there before, is back" % OLD):
        install(box)
    assert read_driver_state(box.root).packages["axclhost"].version == OLD


def test_file_instead_of_the_repository_that_fails(box: Box) -> None:
    """The repository goes only when what comes instead is there."""
    install(box)
    path = box.package_file()
    one = driver.look_at_deb(box.root, path, "x.deb", None, None, box.run)
    predicted = driver.make_present(box.kernel, one, DriverWishes(), box.run, True)
    assert "unlist" in kinds(predicted)
    box.fail["dpkg --force-confnew --install"] = (1, "dpkg: error")
    with pytest.raises(Failed, match="axclhost=%s, which was there before, is back" % NEW):
        driver.make_present(box.kernel, one, DriverWishes(), box.run)
    assert box.has(SOURCES)
    assert install(box).changes == []
    box.fail.clear()
    driver.make_present(box.kernel, one, DriverWishes(), box.run)
    assert not box.has(SOURCES)
    assert driver.make_present(box.kernel, one, DriverWishes(), box.run).changes == []
