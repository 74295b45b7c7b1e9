# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import pathlib
from typing import Any, Dict, List, Tuple

import pytest
from ansible.module_utils import basic

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.driver import PACKAGES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.openpgp import PRIVATE, armour, parse_keyring
from ansible_collections.edgenpu.tuning.plugins.modules import axcl_driver
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import keys
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.drivers import SMI, VENDOR_FILE, Box, deb
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.hosts import BDF
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree
from ansible_collections.edgenpu.tuning.tests.unit.plugins.modules.running import Modules, Result

TABLE = """\
| AXCL-SMI  V3.6.4                                                                Driver  V3.6.4 |
+-----------------------------------------+--------------+---------------------------------------+
| Card  Name                     Firmware | Bus-Id       |                          Memory-Usage |
| Fan   Temp                Pwr:Usage/Cap | CPU      NPU |                             CMM-Usage |
|=========================================+==============+=======================================|
|    0  AX650N                     V3.6.4 | 0003:31:00.0 |                181 MiB /      945 MiB |
|   --   52C                      -- / -- | 3%        0% |                 18 MiB /     7040 MiB |
+-----------------------------------------+--------------+---------------------------------------+
"""
NO_ROW = TABLE[: TABLE.index("|    0")] + "| Processes: |\n"
LOG = "[   10.0] [axcl_pcie_host_init, 1]: axcl wait dev 31 handshake...\n[   40.0] base_addr: 0x1, size: 0x2\n"


class Host:
    """Runs the module on a box, with an axcl-smi that prints TABLE."""

    def __init__(self, box: Box, modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
        self.box = box
        self.modules = modules
        self.table = TABLE
        box.fail["dmesg"] = (0, LOG)

        def run_command(module: basic.AnsibleModule, argv: List[str], **more: Any) -> Tuple[int, str, str]:
            assert argv[:3] == ["timeout", "-k", "5"]
            if SMI in argv:
                return 0, self.table, ""
            ran = box.run(argv[4:], float(argv[3]))
            return ran.status, ran.output, ""

        monkeypatch.setattr(basic.AnsibleModule, "run_command", run_command)

    def run(self, check: bool = False, **arguments: Any) -> Result:
        return self.modules.run(axcl_driver, check, **arguments)

    def source(self, name: str = VENDOR_FILE, data: bytes = b"") -> Dict[str, Any]:
        path = self.box.package_file(data or None, name)
        return {"path": path, "sha256": hashlib.sha256(self.box.path(path).read_bytes()).hexdigest()}


@pytest.fixture
def box(board: Any, tmp_path: pathlib.Path) -> Box:
    return Box(Tree(tmp_path / "box"))


@pytest.fixture
def host(box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Host:
    # The tool is looked for on the live system only where it is live: here it is the box's.
    return Host(box, Modules(box, monkeypatch, capsys), monkeypatch)


def test_installs_and_proves(host: Host) -> None:
    result = host.run(source=host.source())
    assert (result.status, result.data["changed"]) == (0, True), result.data
    assert result.data["msg"] == "driver 3.6.4 is installed and works, 1 card"
    assert {one["severity"] for one in result.data["proof"]} == {"ok"}
    assert [(one["release"], one["has_driver"]) for one in result.data["kernels"]] == [("6.1.57", True)]
    assert result.data["packages"][0]["want"] == "hold"
    assert (result.data["reboot_required"], result.data["reboot_reason"]) == (False, None)
    again = host.run(source=host.source())
    assert (again.status, again.data["changed"], again.data["diff"]) == (0, False, [])


def test_what_takes_long_is_in_the_journal(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: List[str] = []
    monkeypatch.setattr(basic.AnsibleModule, "log", lambda module, line: lines.append(line))
    host.run(check=True, source=host.source())
    assert lines == []
    host.run(source=host.source())
    assert any(" dpkg --force-confnew --install /" in line and line.endswith(" s)") for line in lines)
    assert not any("dmesg" in line for line in lines)


def test_installed_file_is_not_needed_any_more(host: Host) -> None:
    source = host.source()
    host.run(source=source)
    host.box.remove(source["path"])
    host.box.remove(PACKAGES)
    assert host.run(source=source).data["changed"] is False
    assert host.run(source={"file": "somewhere.deb", "sha256": source["sha256"]}).data["changed"] is False
    assert host.run(source={"url": "https://example.org/a.deb", "sha256": source["sha256"]}).data["changed"] is False


def test_file_of_the_control_node_is_asked_for(host: Host) -> None:
    source = host.source()
    result = host.run(source={"file": VENDOR_FILE, "sha256": source["sha256"]})
    assert (result.status, result.data["needs_file"], result.data["changed"]) == (0, True, False)
    assert host.box.commands == []
    copied = host.run(source={"file": VENDOR_FILE, "sha256": source["sha256"], "path": source["path"]})
    assert (copied.status, copied.data["changed"]) == (0, True)


def test_check_mode(host: Host) -> None:
    source = host.source()
    before = host.box.snapshot()
    result = host.run(check=True, source=source)
    assert (result.status, result.data["msg"]) == (0, "the driver would be installed, or put right")
    assert "install: axclhost" in result.paths
    assert (host.box.snapshot(), host.box.commands) == (before, [])
    fetched = host.run(check=True, source={"url": "https://example.org/a.deb", "sha256": source["sha256"]})
    assert fetched.data["unknown"][0] == (
        "name, version and architecture of the package: unknown until it has been fetched"
    )
    assert host.box.snapshot() == before


def test_fetched(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    source = host.source()
    asked: List[str] = []

    def fetch_file(module: Any, url: str, timeout: int) -> str:
        asked.append(url)
        return str(source["path"])

    monkeypatch.setattr(axcl_driver, "fetch_file", fetch_file)
    given = {"url": "https://example.org/%s" % VENDOR_FILE, "sha256": source["sha256"]}
    assert host.run(source=given).data["changed"] is True
    assert host.run(source=given).data["changed"] is False
    assert asked == [given["url"]]


def test_dead_card_fails(host: Host) -> None:
    host.table = NO_ROW
    source = host.source()
    result = host.run(source=source)
    assert result.status == 1
    assert result.data["msg"].startswith("%s: no row" % BDF)
    assert result.data["changed"] is True
    lenient = host.run(source=source, strict=False)
    assert (lenient.status, lenient.data["changed"]) == (0, False)
    assert lenient.data["msg"] == "driver 3.6.4 is installed, 1 card"


def test_absent(host: Host) -> None:
    host.run(source=host.source())
    predicted = host.run(check=True, state="absent")
    assert predicted.data["msg"] == "the driver would be removed with all that it has left"
    result = host.run(state="absent")
    assert (result.status, result.data["msg"]) == (0, "the driver is removed with all that it has left")
    assert set(predicted.paths) <= set(result.paths)
    again = host.run(state="absent")
    assert (again.data["changed"], again.data["msg"]) == (False, "nothing of the driver is here")
    assert "proof" not in again.data


SHA = "ab" * 32
WRONG: List[Tuple[Dict[str, Any], str]] = [
    ({"source": {}}, "source: give one of file, path, url, files and package; none is given"),
    (
        {"source": {"path": "/a.deb", "url": "https://x/a.deb", "sha256": SHA}},
        "source: give one of file, path, url, files and package; path and url given",
    ),
    (
        {"source": {"path": "/a.deb"}},
        (
            "source: path needs sha256, so that what is built into the kernel is what you mean; or set "
            "checksum_none_accepted: true"
        ),
    ),
    (
        {"source": {"path": "/a.deb", "sha256": "12"}},
        "source: sha256 '12' is no checksum; it has 64 hexadecimal digits",
    ),
    ({"source": {"url": "x/a.deb", "sha256": SHA}}, "source: url 'x/a.deb' is no address; write https://..."),
    (
        {"source": {"package": "axclhost", "sha256": SHA}},
        "source: sha256 is for files; apt checks packages of a repository itself",
    ),
    (
        {"source": {"path": "/a.deb", "sha256": SHA, "version": "1"}},
        "source: version is for packages of a repository; a path has its own",
    ),
    ({"source": {"path": "/a.deb", "sha256": SHA}}, "/a.deb: cannot be read; get it again"),
    ({"group": "<users>"}, "group: '<users>' is no name of a group; write one such as axcl"),
    ({"load_timeout": 5}, "load_timeout: 5 s is no limit for one card; write 10 to 3600"),
    ({}, "no AXCL driver is installed and there is no source to install one from; give one"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG)
def test_bad_input_gets_one_sentence(host: Host, arguments: Dict[str, Any], sentence: str) -> None:
    before = host.box.snapshot()
    for check in (True, False):
        result = host.run(check=check, **arguments)
        assert (result.status, result.data["msg"]) == (1, sentence)
    assert (host.box.snapshot(), host.box.commands) == (before, [])


def test_wrong_checksum_and_files_that_are_no_package(host: Host) -> None:
    good = host.source()
    before = host.box.snapshot()
    result = host.run(source=dict(good, sha256=SHA))
    assert result.status == 1
    assert result.data["msg"].startswith("%s: its sha256 is %s and not %s" % (good["path"], good["sha256"], SHA))
    for data in (b"<html>", deb()[:200], deb(architecture="amd64")):
        bad = host.source(data=data)
        assert host.run(source=bad).status == 1
    host.source()
    assert host.box.snapshot() == before


def test_driver_in_several_files(host: Host) -> None:
    host.box.family = "dkms"
    one = host.source("a.deb", deb(Package="axclhost-dkms", depends="dkms, axclhost-firmware", version="3.6.4-1"))
    two = host.source("b.deb", deb(Package="axclhost-firmware", depends="", version="3.6.4-1"))
    files = [dict(one, path=None, file="a.deb"), two]
    assert host.run(source={"files": files}).data["needs_file"] is True
    before = host.box.snapshot()
    bad = host.run(source={"files": [one, dict(two, sha256=SHA)]})
    assert (bad.status, host.box.snapshot()) == (1, before)
    assert bad.data["msg"].startswith("/root/b.deb: its sha256 is %s and not %s" % (two["sha256"], SHA))
    copied = [dict(one, file="a.deb"), two]
    result = host.run(source={"files": copied})
    assert (result.status, result.data["changed"]) == (0, True), result.data
    assert [package["name"] for package in result.data["packages"]] == ["axclhost-dkms", "axclhost-firmware"]
    host.box.remove("/root")
    for order in (files, files[::-1]):
        assert host.run(source={"files": order}).data["changed"] is False
    anything = [{"path": "/root/a.deb"}, {"path": "/root/b.deb"}]
    assert "needs sha256" in host.run(source={"files": anything}).data["msg"]


def test_files_of_a_killed_run_are_not_copied_again(host: Host) -> None:
    host.box.family = "dkms"
    one = host.source("a.deb", deb(Package="axclhost-dkms", depends="dkms", version="3.6.4-1"))
    two = host.source("b.deb", deb(Package="axclhost-firmware", depends="", version="3.6.4-1"))
    host.run(source={"files": [one, two]})
    host.box.drop_package("axclhost-firmware")
    files = [{"file": "a.deb", "sha256": one["sha256"]}, {"file": "b.deb", "sha256": two["sha256"]}]
    assert host.run(source={"files": files}).data["changed"] is True


KEY = armour(keys.public(b"one", user="Stand-in"))
FINGERPRINT = parse_keyring(KEY.encode()).keys[0].fingerprint
REPOSITORY: Dict[str, Any] = {
    "uri": "https://example.org/apt",
    "suite": "axclhost",
    "components": ["main"],
    "key": KEY,
    "fingerprint": [" ".join(FINGERPRINT[at : at + 4] for at in range(0, 40, 4)).lower()],
}


def from_repository(**more: Any) -> Dict[str, Any]:
    return {"package": "axclhost", "version": "3.6.5-m5stack1", "repository": dict(REPOSITORY, **more)}


@pytest.fixture
def dkms(host: Host) -> Host:
    host.box.family = "dkms"
    host.table = TABLE.replace("V3.6.4", "V3.6.5")
    return host


def test_from_a_repository(dkms: Host) -> None:
    predicted = dkms.run(check=True, source=from_repository())
    assert (predicted.status, dkms.box.commands) == (0, [])
    assert predicted.data["repository"] is None
    headers = [one["after_header"] for one in predicted.data["diff"]]
    assert {"/etc/apt/keyrings/edgenpu-axcl.asc", "/etc/apt/sources.list.d/edgenpu-axcl.sources"} <= set(headers)
    result = dkms.run(source=from_repository())
    assert (result.status, result.data["changed"]) == (0, True), result.data
    assert result.data["repository"] == {
        "uri": "https://example.org/apt",
        "suite": "axclhost",
        "fingerprints": [FINGERPRINT],
        "pin": 'origin "example.org"',
    }
    count = len(dkms.box.commands)
    again = dkms.run(source=from_repository())
    assert (again.status, again.data["changed"], again.data["diff"]) == (0, False, [])
    assert [line for line in dkms.box.commands[count:] if line.startswith(("apt", "dpkg"))] == []
    assert "repository" in dkms.run(state="absent").data


def test_key_is_fetched_once(dkms: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: List[str] = []
    dkms.box.tree.file("/fetched", keys.public(b"one"))

    def fetch_file(module: Any, url: str, timeout: int) -> str:
        asked.append(url)
        return "/fetched"

    monkeypatch.setattr(axcl_driver, "fetch_file", fetch_file)
    source = from_repository(key=None, key_url="https://example.org/key.gpg")
    assert "until it has been fetched" in " ".join(dkms.run(check=True, source=source).data["unknown"])
    assert asked == []
    assert dkms.run(source=source).data["changed"] is True
    assert dkms.run(source=source).data["changed"] is False
    assert asked == ["https://example.org/key.gpg"]
    dkms.box.tree.file("/fetched", keys.public(b"two"))
    other = parse_keyring(keys.public(b"two")).keys[0].fingerprint
    rolled = dict(source, repository=dict(source["repository"], fingerprint=[other]))
    assert dkms.run(source=rolled).data["repository"]["fingerprints"] == [other]


def test_fingerprint_may_be_waived_in_so_many_words(dkms: Host) -> None:
    source = from_repository(fingerprint=None, fingerprint_none_accepted=True)
    assert dkms.run(source=source).data["changed"] is True


WRONG_REPOSITORIES: Dict[str, Any] = {
    "password": ({"uri": "https://me:secret@example.org/apt"}, "uri holds a name or a password"),
    "no address": ({"uri": "example.org"}, "uri 'example.org' is no address; write https://..."),
    "no suite": ({"suite": "a b"}, "suite 'a b' is no name"),
    "no components": ({"components": []}, "components: name at least one, such as main"),
    "flat with components": ({"suite": "./"}, "components: a suite that ends with / has none"),
    "odd component": ({"components": ["main\nTrusted: yes"]}, "component 'main\\nTrusted: yes' is no name"),
    "two keys": ({"key_file": "x"}, "give one of key, key_file and key_url; key and key_file given"),
    "no key": ({"key": None}, "give one of key, key_file and key_url; none is given"),
    "no fingerprint": ({"fingerprint": None}, "fingerprint is needed, so that the key is the one that you mean"),
    "short": ({"fingerprint": ["5BA361C8BEAF38B8"]}, "fingerprint '5BA361C8BEAF38B8' is none; it has 40 hexadecimal"),
    "fetched without": (
        {"key": None, "key_url": "https://x/k", "fingerprint": None, "fingerprint_none_accepted": True},
        "a key that is fetched needs its fingerprint, from a place that you trust",
    ),
    "another's": (
        {"fingerprint": ["ab" * 20]},
        "the key in key has the fingerprint %s (Stand-in) and not %s; nothing was changed" % (FINGERPRINT, "AB" * 20),
    ),
    "one of two": (
        {"key": armour(keys.public(b"one") + keys.public(b"two"))},
        "the key in key, one of 2, has the fingerprint "
        + parse_keyring(keys.public(b"two")).keys[0].fingerprint
        + " and not "
        + FINGERPRINT,
    ),
    "private": ({"key": armour(keys.private(b"one"))}, "key is of no use as a key: " + PRIVATE),
    "garbled": ({"key": KEY[:-60]}, "key is of no use as a key: it is cut off"),
    "expired": (
        {"key": armour(keys.public(b"one") + keys.signature(b"one", 0x13, keys.CREATED_S, 86400))},
        "the repository's key %s expired " % FINGERPRINT,
    ),
    "revoked": (
        {"key": armour(keys.public(b"one") + keys.signature(b"one", 0x20, keys.CREATED_S, 0))},
        "the repository's key %s was revoked by its owner; get the present one" % FINGERPRINT,
    ),
}


@pytest.mark.parametrize("name", WRONG_REPOSITORIES)
def test_wrong_repository_gets_one_sentence(dkms: Host, name: str) -> None:
    more, sentence = WRONG_REPOSITORIES[name]
    before = dkms.box.snapshot()
    for check in (True, False):
        result = dkms.run(check=check, source=from_repository(**more))
        assert result.status == 1
        assert sentence in result.data["msg"]
    assert (dkms.box.snapshot(), dkms.box.commands) == (before, [])


def test_repository_is_for_packages(dkms: Host) -> None:
    source = dict(dkms.source(), repository=REPOSITORY)
    assert dkms.run(source=source).data["msg"] == (
        "source: repository is for a package; write package: axclhost beside it"
    )
    wrong = dict(from_repository(), package="vim")
    assert "package 'vim' is no AXCL driver" in dkms.run(source=wrong).data["msg"]


def test_without_checksum_in_so_many_words(host: Host) -> None:
    source = {"path": host.source()["path"], "checksum_none_accepted": True}
    assert host.run(source=source).data["changed"] is True
    assert host.run(source=source).data["changed"] is False


@pytest.mark.parametrize(
    ("path", "content", "sentence"),
    [
        (
            "/run/systemd/container",
            "lxc\n",
            "this is a container: lxc, and its kernel is the host's; install the driver there",
        ),
        ("/run/systemd/system", None, "systemd does not run here"),
    ],
)
def test_hosts_that_take_no_driver(host: Host, path: str, content: Any, sentence: str) -> None:
    source = host.source()
    if content is None:
        host.box.remove(path)
    else:
        host.box.tree.file(path, content)
    result = host.run(source=source)
    assert result.status == 1
    assert result.data["msg"].startswith(sentence)
    assert host.box.commands == []


def test_failed_installation_is_one_sentence(host: Host) -> None:
    host.box.fail["build"] = (1, "")
    result = host.run(source=host.source())
    assert result.status == 1
    assert result.data["msg"].endswith("nothing of it is left on the host")
    assert "exception" not in result.data
