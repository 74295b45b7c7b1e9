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
from ansible_collections.edgenpu.tuning.plugins.modules import axcl_driver
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
    ({"source": {}}, "source: give one of file, path, url and package; none is given"),
    (
        {"source": {"path": "/a.deb", "url": "https://x/a.deb", "sha256": SHA}},
        "source: give one of file, path, url and package; path and url given",
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
