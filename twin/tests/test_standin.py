# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in package: what is in it, and that its tool prints what the vendor's does."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twin.standin import Build, StandinError, build
from twin.standin.builder import BEHAVIOURS, FAMILIES, HERE, MODULES, elf, write_sources

CAPTURES = Path(__file__).parents[2] / "tests" / "unit" / "fixtures" / "axcl"
BDF = "0003:31:00.0"
ENDED_WELL = 0


def fields(package: Path) -> dict[str, str]:
    text = subprocess.run(["dpkg-deb", "-f", str(package)], capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"^(\S+): (.*)$", text, re.M))


def unpacked(tmp_path: Path, wanted: Build) -> Path:
    """What the package holds, control files below DEBIAN included."""
    root = tmp_path / "unpacked"
    subprocess.run(["dpkg-deb", "-R", str(build(tmp_path, wanted)), str(root)], check=True)
    return root


@pytest.mark.parametrize("family", FAMILIES)
def test_same_arguments_same_bytes(tmp_path: Path, family: str) -> None:
    wanted = Build(family)
    first = build(tmp_path / "one", wanted).read_bytes()
    time.sleep(1.1)  # an archive holds times in seconds
    assert build(tmp_path / "two", wanted).read_bytes() == first
    assert build(tmp_path / "three", wanted._replace(version="3.6.6")).read_bytes() != first


def test_what_dpkg_is_told(tmp_path: Path) -> None:
    vendor = build(tmp_path, Build("vendor"))
    assert re.fullmatch(r"axcl_host_aarch64_V3\.6\.5_20250908154509_NO\d{4}\.deb", vendor.name)
    told = fields(vendor)
    assert (told["Package"], told["Version"], told["Architecture"]) == ("axclhost", "1.0.0", "all")
    assert not re.search("headers|dkms", told["Depends"]), "the vendor's does not know that it needs them"
    dkms = build(tmp_path, Build("dkms"))
    told = fields(dkms)
    assert (told["Package"], told["Version"], told["Architecture"]) == ("axclhost", "3.6.5-standin1", "arm64")
    assert (dkms.name, told["Depends"].split(",")[0]) == ("axclhost_3.6.5-standin1_arm64.deb", "dkms")
    other = fields(build(tmp_path, Build("vendor", dpkg_version="3.6.5", architecture="amd64")))
    assert (other["Version"], other["Architecture"]) == ("3.6.5", "all")


@pytest.mark.parametrize("family", FAMILIES)
def test_where_its_files_are(tmp_path: Path, family: str) -> None:
    root = unpacked(tmp_path, Build(family, behaviour="dead-card"))
    assert (root / "etc/modules-load.d/axcl_pcie.conf").read_text("utf-8").split() == list(MODULES)
    rules = (root / "etc/udev/rules.d/axcl_host.rules").read_text("utf-8")
    assert len(rules.splitlines()) == 4
    assert ('MODE="0666"' in rules, 'GROUP="<users>"' in rules) == (family == "vendor", family == "dkms")
    assert b"V3.6.5_20250908154509" in (root / "lib/firmware/axcl/ax650_card.pac").read_bytes()
    assert (root / "usr/share/axcl-standin/defaults.conf").read_text("utf-8") == "behaviour=dead-card\n"
    assert os.access(root / "usr/bin/axcl/axcl-smi", os.X_OK)
    source = root / ("usr/src/axcl/drv/pcie/driver" if family == "vendor" else "usr/src/axclhost-3.6.5")
    assert (source / "host_dev.c").read_bytes() == (HERE.parent / "kernel/ax_pcie_host_dev.c").read_bytes()
    if family == "dkms":
        conf = (source / "dkms.conf").read_text("utf-8")
        assert (
            'PACKAGE_VERSION="3.6.5"' in conf and 'AUTOINSTALL="yes"' in conf and conf.count("BUILT_MODULE_NAME") == 6
        )
    for script in (root / "DEBIAN").iterdir():
        if script.name not in ("control", "md5sums"):
            assert os.access(script, os.X_OK)
            assert "@" not in script.read_text("utf-8").replace('"$@"', "").replace("edgenpu@", "")
            subprocess.run(["sh", "-n", str(script)], check=True)
    subprocess.run(["md5sum", "-c", "--quiet", "DEBIAN/md5sums"], cwd=root, check=True)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Build(family="rpm"), "family 'rpm' is not one of vendor, dkms"),
        (Build(behaviour="explodes"), "behaviour 'explodes' is not one of builds, "),
        (Build(architecture="mips"), "architecture 'mips' is not one of "),
        (Build(version="3.6"), "version '3.6' is not of the form 3.6.5"),
        (Build(stamp="20251308154509"), "stamp '20251308154509' is not of the form YYYYMMDDhhmmss"),
        (Build(dpkg_version="latest!"), "dpkg version 'latest!' is none"),
    ],
)
def test_what_cannot_be_built(tmp_path: Path, wanted: Build, text: str) -> None:
    with pytest.raises(StandinError, match=re.escape(text)):
        build(tmp_path, wanted)
    assert list(tmp_path.iterdir()) == []


def test_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "twin.standin", "--family", "dkms", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_file()
    done = subprocess.run(
        [*command, "--version", "x"], cwd=HERE.parents[1], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "twin: version 'x' is not of the form 3.6.5\n")


@pytest.mark.parametrize("architecture", ["arm64", "amd64"])
def test_program_is_one_of_its_architecture(tmp_path: Path, architecture: str) -> None:
    program = tmp_path / "program"
    program.write_bytes(elf(architecture))
    program.chmod(0o755)
    machine = int.from_bytes(program.read_bytes()[18:20], "little")
    assert machine == {"arm64": 183, "amd64": 62}[architecture]
    if platform.machine() in {"arm64": ("aarch64", "arm64"), "amd64": ("x86_64",)}[architecture]:
        assert subprocess.run([str(program)], check=False).returncode == ENDED_WELL


def test_sources_refuse_a_host_they_do_not_know(tmp_path: Path) -> None:
    write_sources(tmp_path, Build())
    done = subprocess.run(["make", "-C", str(tmp_path), "host=mips"], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "host=mips is not supported" in done.stderr


class Board:
    """A tree in which the stand-in's tool finds a driver, cards and settings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tool = path / "axcl-smi"

    def file(self, name: str, text: str = "") -> None:
        target = self.path / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def cards(self, *lines: str) -> None:
        self.file("/dev/axcl_host")
        self.file("/sys/module/axcl_host/parameters/cards", "".join(f"{line}\n" for line in lines))
        for line in lines:
            self.file(f"/sys/bus/pci/devices/{line.split()[0]}/driver")

    def run(self, *words: str, stdin: str = "") -> tuple[str, str]:
        """Standard output and error, with times and process ids taken out as `plain` does."""
        done = subprocess.run(
            [sys.executable, str(self.tool), *words],
            env={**os.environ, "AXCL_STANDIN_ROOT": str(self.path)},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == ENDED_WELL, "whatever happened"
        return plain(done.stdout), done.stderr


def plain(text: str) -> str:
    text = re.sub(r"\[\d{4}-\d\d-\d\d [\d:.]+\]\[\d+\]", "[DATE][PID]", text)
    return re.sub(r"\[\d\d-\d\d [\d:]+\]", "[DATE]", text)


def capture(name: str) -> str:
    return plain((CAPTURES / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tool of V3.10.2, of which the captures without a card are."""
    root = unpacked(tmp_path_factory.mktemp("package"), Build(version="3.10.2", stamp="20251215140224"))
    return (root / "usr/bin/axcl/axcl-smi").read_text("utf-8")


@pytest.fixture
def board(tmp_path: Path, tool: str) -> Board:
    """A tree that holds the tool alone."""
    made = Board(tmp_path)
    made.file("axcl-smi", tool)
    return made


def test_without_a_driver(board: Board) -> None:
    assert board.run() == (capture("smi-error-no-driver.txt"), "")


def test_without_a_card(board: Board) -> None:
    board.cards()
    assert board.run() == (capture("smi-error-no-device.txt"), "")
    board.file("/etc/axcl-standin.conf", "log=cuts\n")
    assert board.run("info", "--cpu") == (capture("smi-error-no-device-interleaved.txt"), "")


def test_dead_card(board: Board) -> None:
    board.cards(f"{BDF} dead V3.10.2_20251215140224")
    assert board.run() == (capture("smi-error-dead-card-table.txt"), "")
    said = board.run("info", "--cmm")[0].splitlines()
    assert sorted(said) == sorted(capture("smi-error-dead-card-info.txt").splitlines())


def test_version(board: Board) -> None:
    assert board.run("-v")[0].startswith(capture("smi-version-v3.10.2.txt").partition(" BUILD")[0])


def test_table(board: Board) -> None:
    """The layout of a card's rows and of processes is that of captures, to the character."""
    busy = capture("smi-table-v2.18.0-one-process.txt").splitlines()
    board.file("/etc/axcl-standin.conf", "temperature_c=52\ncpu_percent=3\nmemory_mib=181/954\ncmm_kib=22528/3145728\n")
    board.cards("0001:81:00.0 alive V2.18.0_x")
    (board.path / "proc/763/fd").mkdir(parents=True)
    (board.path / "proc/763/fd/3").symlink_to("/dev/axcl_host")
    (board.path / "proc/763/exe").symlink_to("/opt/bin/axcl/axcl_run_model")
    assert board.run()[0].splitlines()[2:] == busy[2:]


def test_card_that_has_been_removed_from_the_bus(board: Board) -> None:
    board.cards(f"{BDF} alive V3.10.2_20251215140224")
    (board.path / f"sys/bus/pci/devices/{BDF}/driver").unlink()
    assert "no device connected" in board.run()[0]


def test_details(board: Board) -> None:
    board.file("/usr/share/axcl-standin/defaults.conf", "# of the package\ncmm_kib=18876/3145728\n")
    board.cards("0000:81:00.0 alive V3.10.2")
    assert board.run("info", "--cmm")[0] == capture("smi-info-cmm-dev129.txt").rstrip("\n") + "\n\n"
    assert "temperature         : 54000\n" in board.run("info", "--temp")[0]
    assert (
        "total size=3145728KB(3072MB),used=18876KB(18MB + 444KB),remain=3126852KB(3053MB + 580KB)"
        in (board.run("sh", "cat", "/proc/ax_proc/mem_cmm_info")[0])
    )
    assert "device index 1 is out of connected devices number 1" in board.run("info", "--temp", "-d", "1")[0]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["bogus"], "Unknown command: bogus\n"),
        (["--bogus"], "Flag could not be matched: bogus\n"),
        (["info"], "Group validation failed somewhere!\n"),
    ],
)
def test_bad_calls_end_well_and_draw_the_table(board: Board, words: list[str], error: str) -> None:
    board.cards(f"{BDF} alive V3.10.2")
    said = board.run(*words)
    assert (said[1], "0003:31:00.0" in said[0]) == (error, True)


def test_reboot(board: Board) -> None:
    board.cards(f"{BDF} alive V3.10.2")
    assert board.run("reboot", "-d", "0", stdin="n\n")[0] == capture("smi-reboot-prompt-declined.txt")
    assert board.run("reboot", "-d", "0", stdin="y\n")[0].endswith("(y/n): reboot device 0 success\n")
    assert (board.path / "dev/axcl_host").read_text("utf-8") == f"reboot {BDF}"


def test_second_instance(board: Board) -> None:
    with socket.socket(socket.AF_UNIX) as mark:
        mark.bind("\0axcl-standin-smi" + str(board.path))
        assert board.run("-v") == (capture("smi-error-already-running.txt"), "")
    assert board.run("-v")[0].startswith("AXCL-SMI V3.10.2")


def test_hangs(board: Board) -> None:
    board.file("/etc/axcl-standin.conf", "tool=hangs\n")
    command = [sys.executable, str(board.tool)]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(command, env={**os.environ, "AXCL_STANDIN_ROOT": str(board.path)}, timeout=1, check=False)


def test_every_behaviour_is_described() -> None:
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert [name for name in BEHAVIOURS if f"`behaviour={name}`" not in text] == []
