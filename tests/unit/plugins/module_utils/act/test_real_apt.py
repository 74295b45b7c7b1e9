# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real apt, dpkg and gpg: a signed repository made here, and a host below a directory that gets its driver from it.

What builds and loads is left to the stand-in; apt and dpkg work on a database of their own below that directory.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess
from typing import Any, Dict, Iterator, List, Optional, Sequence

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import driver
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.driver import DriverWishes, Offer
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.repository import Repository, worn_out
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.apt import (
    KEYRING,
    LISTS,
    OUR_FILES,
    PREFERENCES,
    SOURCES,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import read_driver_state
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.openpgp import armour, parse_keyring
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.drivers import Box
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

SUITE = "axclhost"


def sh(argv: Sequence[Any], cwd: Optional[pathlib.Path] = None, **environment: str) -> str:
    """Run a command that must succeed; return what it prints."""
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=None if cwd is None else str(cwd),
        env={**os.environ, "LC_ALL": "C", **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


class Signer:
    """GnuPG with a key of its own. LASTS: as its option for expiry takes it."""

    def __init__(self, home: pathlib.Path, name: str, lasts: str = "never", kind: str = "ed25519") -> None:
        home.mkdir(mode=0o700)
        self.home = str(home)
        self.gpg("--quick-generate-key", name, kind, "sign", lasts)

    def gpg(self, *words: Any) -> str:
        unattended = ["--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"]
        return sh(["gpg", *unattended, *words], GNUPGHOME=self.home)

    def export(self, *words: str) -> bytes:
        path = pathlib.Path(self.home) / "exported"
        self.gpg("--yes", "--output", path, *words)
        return path.read_bytes()

    def stop(self) -> None:
        sh(["gpgconf", "--kill", "all"], GNUPGHOME=self.home)

    @property
    def fingerprint(self) -> str:
        listed = self.gpg("--with-colons", "--list-keys")
        return next(line for line in listed.splitlines() if line.startswith("fpr:")).split(":")[9]


@pytest.fixture
def places(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory that apt's own user may enter, too."""
    place = tmp_path_factory.mktemp("apt")
    for above in (place, place.parent):
        above.chmod(0o755)
    return place


@pytest.fixture
def signer(places: pathlib.Path) -> Iterator[Signer]:
    one = Signer(places / "gpg", "Stand-in <driver@example.org>")
    yield one
    one.stop()


class Repo:
    """A repository of packages with nothing in them."""

    def __init__(self, path: pathlib.Path, architecture: str) -> None:
        self.path = path
        self.architecture = architecture
        self.index = path / "dists" / SUITE / "main" / ("binary-" + architecture) / "Packages"
        self.index.parent.mkdir(parents=True)
        self.stanzas = ""

    def add(self, name: str, version: str, depends: str = "") -> pathlib.Path:
        tree = self.path / "tree"
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        (tree / "DEBIAN").chmod(0o755)
        fields = {"Package": name, "Version": version, "Architecture": self.architecture, "Maintainer": "x <x@x.org>"}
        fields.update({"Depends": depends} if depends else {}, Description="stand-in")
        control = "".join("%s: %s\n" % item for item in fields.items())
        (tree / "DEBIAN" / "control").write_text(control)
        deb = self.path / ("%s_%s.deb" % (name, version))
        sh(["dpkg-deb", "--root-owner-group", "--build", tree, deb])
        data = deb.read_bytes()
        self.stanzas += control + "Filename: %s\nSize: %d\nSHA256: %s\n\n" % (
            deb.name,
            len(data),
            hashlib.sha256(data).hexdigest(),
        )
        return deb

    def publish(self, signer: Signer) -> None:
        self.index.write_text(self.stanzas)
        suite = self.path / "dists" / SUITE
        data = self.index.read_bytes()
        name = self.index.relative_to(suite)
        release = suite / "Release"
        release.write_text(
            "Origin: Stand-in\nLabel: Driver\nSuite: %s\nArchitectures: %s\nComponents: main\nDate: %s\n"
            "SHA256:\n %s %d %s\n"
            % (SUITE, self.architecture, sh(["date", "-Ru"]).strip(), hashlib.sha256(data).hexdigest(), len(data), name)
        )
        signer.gpg("--yes", "--output", suite / "InRelease", "--clearsign", release)


class Host(Box):
    """A box on which apt and dpkg are real ones, on a database below the box's directory."""

    def __init__(self, tree: Tree, architecture: str) -> None:
        super().__init__(tree, "dkms")
        self.architecture = architecture
        made = ("/var/cache/apt/archives/partial", "/var/lib/dpkg/updates", "/var/lib/dpkg/info", "/var/log/apt")
        for path in (LISTS + "/partial", *made):
            tree.file(path + "/.keep")
        self.path("/var/lib/dpkg/updates/.keep").unlink()  # dpkg would take it for a part of its database
        for name in ("dpkg", "dkms", "gcc", "make", "patch", "kmod"):
            self.add_package(name, architecture=architecture)
        self.tree.file("/etc/apt/sources.list", "")

    def real(self, words: List[str]) -> Ran:
        """Run apt or dpkg as on the host: its paths are below the directory, and so is its database."""
        root = str(self.tree.path)
        if words[0].startswith("apt"):
            at = next((word for word in words if word.startswith("Dir::Etc::SourceList=")), None)
            options = {"Dir": root, "Dir::State::status": root + "/var/lib/dpkg/status", "Debug::NoLocking": "1"}
            options["APT::Architecture"] = self.architecture
            options["APT::Sandbox::User"] = "root"
            options["Dir::Bin::Methods"] = "/usr/lib/apt/methods"
            options["Dir::Bin::dpkg"] = "/usr/bin/dpkg"
            options["DPkg::Options::"] = "--root=" + root
            more = ["-o", "DPkg::Options::=--force-not-root"]
            for name, value in options.items():
                more += ["-o", "%s=%s" % (name, value)]
            # What a file says of another one's place is the host's: told as it is here, in a copy.
            named = root + SOURCES if at is None else at.partition("=")[2]
            if not named.startswith(root):
                named = root + named
            if os.path.exists(named):
                text = pathlib.Path(named).read_text().replace("Signed-By: /etc", "Signed-By: %s/etc" % root)
                copy = pathlib.Path(named + ".here.sources")
                copy.write_text(text)
                words = [word for word in words if not word.startswith("Dir::Etc::SourceList=")]
                words = [word for at, word in enumerate(words) if word != "-o" or "=" in words[at + 1 : at + 2][0]]
                more += ["-o", "Dir::Etc::SourceList=%s" % copy]
            more += ["-o", "Dir::Etc::SourceParts=/dev/null"]
            words = [words[0], *more, *words[1:]]
        else:
            here = [root + word if word.endswith(".deb") else word for word in words[1:]]
            words = [words[0], "--root=" + root, "--force-not-root", *here]
        done = subprocess.run(
            words,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        for copy in self.path("/").glob("**/*.here.sources"):
            copy.unlink()
        return Ran(done.returncode, done.stdout.decode())

    def run(self, argv: Sequence[str], timeout_s: float) -> Ran:
        words = list(argv)
        while words[0] == "env" or "=" in words[0]:
            words = words[1:]
        if words[0] not in ("apt-get", "apt-cache", "dpkg"):
            return super().run(argv, timeout_s)
        self.commands.append(" ".join(words))
        return self.real(words)


@pytest.fixture
def architecture() -> str:
    return sh(["dpkg", "--print-architecture"]).strip()


@pytest.fixture
def repo(places: pathlib.Path, signer: Signer, architecture: str) -> Repo:
    one = Repo(places / "repo", architecture)
    one.add("axclhost", "3.6.4")
    one.add("axclhost", "3.6.5", depends="axclhost-firmware")
    one.add("axclhost-firmware", "3.6.5")
    one.add("kmod", "999")
    one.publish(signer)
    return one


@pytest.fixture
def host(places: pathlib.Path, architecture: str) -> Host:
    return Host(Tree(places / "host"), architecture)


def offer(repo: Repo, signer: Signer, version: Optional[str] = None, **more: Any) -> Offer:
    key = armour(parse_keyring(signer.export("--export")).packets)
    repository = Repository("file:%s" % repo.path, SUITE, ("main",), None, key)._replace(**more)
    return Offer(package="axclhost", version=version, repository=repository)


def install(host: Host, wanted: Offer) -> driver.Done:
    return driver.make_present(host.kernel, wanted, DriverWishes(hold=False), host.run)


def packages(host: Host) -> Dict[str, Optional[str]]:
    return {name: one.version for name, one in read_driver_state(host.root).packages.items() if one.sound}


def test_fingerprints_are_those_that_gnupg_tells(signer: Signer, places: pathlib.Path) -> None:
    rsa = Signer(places / "rsa", "Old <old@example.org>", "2d", "rsa2048")
    rsa.gpg("--quick-add-key", rsa.fingerprint, "rsa2048", "encr", "never")
    for one, lasts_s in ((signer, None), (rsa, 2 * 86400)):
        for words in (["--export"], ["--armor", "--export"]):
            ring = parse_keyring(one.export(*words))
            assert [key.fingerprint for key in ring.keys] == [one.fingerprint]
        (key,) = ring.keys
        assert "example.org" in key.user
        listed = one.gpg("--with-colons", "--list-keys").splitlines()
        made = int(next(line for line in listed if line.startswith("pub:")).split(":")[5])
        assert key.expires_s == (None if lasts_s is None else made + lasts_s)
        assert (worn_out(ring, made + 3 * 86400) is None) is (lasts_s is None)
        assert "private key" in str(parse_keyring(one.export("--export-secret-keys")).problem)
        assert "private key" in str(parse_keyring(one.export("--armor", "--export-secret-keys")).problem)
        assert armour(ring.packets).splitlines()[2:] == one.export("--armor", "--export").decode().splitlines()[2:]
    both = parse_keyring(signer.export("--export") + rsa.export("--export"))
    assert [key.fingerprint for key in both.keys] == [signer.fingerprint, rsa.fingerprint]
    rsa.stop()


def test_life_with_a_repository(host: Host, repo: Repo, signer: Signer) -> None:
    before = {path: value for path, value in host.snapshot().items() if path.startswith("/etc/apt/")}
    done = install(host, offer(repo, signer, "3.6.4"))
    assert (done.obstacles, done.refused) == ([], [])
    assert packages(host) == {"axclhost": "3.6.4"}
    assert "Pin: release o=Stand-in,l=Driver,a=axclhost\n" in host.text(PREFERENCES)
    assert [host.has(path) for path in OUR_FILES] == [True] * 3
    prefix = read_driver_state(host.root).record.lists
    assert [name for name in host.root.names(LISTS) if name.startswith(str(prefix))]
    count, snapshot = len(host.commands), host.snapshot()
    assert install(host, offer(repo, signer, "3.6.4")).changes == []
    assert (host.commands[count:], host.snapshot()) == ([], snapshot)
    # apt would like to have kmod 999 from there, and may not; the driver and what it needs it may
    told = host.real(["apt-cache", "policy", "kmod", "axclhost"]).output
    assert "Candidate: 1\n" in told.partition("axclhost:")[0]
    assert "Candidate: 3.6.5\n" in told.partition("axclhost:")[2]
    assert "999" not in host.real(["apt-get", "--simulate", "dist-upgrade"]).output
    host.path(PREFERENCES).rename(host.path("/aside"))
    assert "Candidate: 999\n" in host.real(["apt-cache", "policy", "kmod"]).output
    host.path("/aside").rename(host.path(PREFERENCES))
    assert install(host, offer(repo, signer)).changes == []
    assert install(host, offer(repo, signer, "3.6.5")).refused == []
    assert packages(host) == {"axclhost": "3.6.5", "axclhost-firmware": "3.6.5"}
    repo.add("axclhost", "3.10.2")
    repo.publish(signer)
    assert install(host, offer(repo, signer, "3.10.2")).refused == []
    assert packages(host) == {"axclhost": "3.10.2"}
    assert install(host, offer(repo, signer, "3.6.4")).refused == []
    assert packages(host) == {"axclhost": "3.6.4"}
    assert driver.make_absent(host.kernel, host.run).refused == []
    assert packages(host) == {}
    assert not [name for name in host.root.names(LISTS) if name.startswith(str(prefix))]
    after = {path: value for path, value in host.snapshot().items() if path.startswith("/etc/apt/")}
    assert {path: value for path, value in after.items() if value[0] != "directory"} == {
        path: value for path, value in before.items() if value[0] != "directory"
    }


def refused(host: Host, wanted: Offer) -> str:
    before = host.snapshot()
    with pytest.raises(WishError) as caught:
        install(host, wanted)
    assert host.snapshot() == before
    return str(caught.value)


def test_what_apt_refuses(host: Host, repo: Repo, signer: Signer, places: pathlib.Path) -> None:
    other = Signer(places / "other", "Somebody else <x@example.org>")
    short = signer.fingerprint[-16:]
    wrong = offer(repo, other)
    assert "is signed with the key %s, which is not the one that was given" % short in refused(host, wrong)
    other.stop()
    good = offer(repo, signer)
    assert refused(host, good._replace(version="7")).endswith("only as 3.6.5, 3.6.4, and not as 7; nothing was changed")
    assert "no package axclhost-dkms for" in refused(host, good._replace(package="axclhost-dkms"))
    assert "it has no suite of that name" in refused(host, offer(repo, signer, suite="nosuite"))
    assert "has no component other; it has main" in refused(host, offer(repo, signer, components=("other",)))
    gone = refused(host, offer(repo, signer, uri="http://127.0.0.1:9/x"))
    assert "apt says: Failed to fetch http://127.0.0.1:9/x" in gone
    assert "onnect" in gone
    # somebody who changes the index without the key
    inrelease = repo.path / "dists" / SUITE / "InRelease"
    inrelease.write_text(inrelease.read_text().replace("Label: Driver", "Label: Drivel"))
    assert "its signature is wrong" in refused(host, good)
    inrelease.unlink()
    assert "it is not signed" in refused(host, good)


def test_repository_for_another_architecture(places: pathlib.Path, signer: Signer, host: Host) -> None:
    repo = Repo(places / "riscv", "riscv64")
    repo.add("axclhost", "3.6.4")
    repo.publish(signer)
    sentence = "has nothing for %s, only for riscv64; nothing was changed" % host.architecture
    assert sentence in refused(host, offer(repo, signer))


def test_split_driver_is_installed_at_once(host: Host, repo: Repo) -> None:
    debs = [
        repo.add("task-axclhost", "3.6.5-1", depends="axclhost-dkms, axclhost-firmware"),
        repo.add("axclhost-firmware", "3.6.5-1"),
        repo.add("axclhost-dkms", "3.6.5-1", depends="dkms, axclhost-firmware (>= 3)"),
    ]
    for deb in debs:
        host.tree.file("/root/" + deb.name, deb.read_bytes())
    paths = ["/root/" + deb.name for deb in debs]
    sums: List[Optional[str]] = [hashlib.sha256(deb.read_bytes()).hexdigest() for deb in debs]
    wanted = driver.look_at_debs(host.root, paths, [deb.name for deb in debs], sums, None, host.run)
    done = install(host, wanted)
    assert (done.obstacles, done.refused) == ([], [])
    assert packages(host) == dict.fromkeys(("axclhost-dkms", "axclhost-firmware", "task-axclhost"), "3.6.5-1")
    assert len([line for line in host.commands if line.startswith("dpkg") and "--install" in line]) == 1
    assert install(host, wanted).changes == []
    assert driver.make_absent(host.kernel, host.run).refused == []
    assert packages(host) == {}
    assert KEYRING not in host.snapshot()
