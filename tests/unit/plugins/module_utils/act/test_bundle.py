# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bundle tells elsewhere what the host told, and not whose host it was."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import pathlib
import re
import shutil
import struct
import tarfile
from typing import Any, Dict, List, Sequence, Set, Tuple

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import bundle as bundle_module
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.bundle import (
    ARCHITECTURE,
    COLLECTION_VERSION,
    Bundle,
    bundle,
    write_new,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN, CardKind, resolve
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.describe import report
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import MODULES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.captured import Recorder, open_root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran, Runner
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.drivers import module_file, stanza
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import (
    Tree,
    captured,
    config_space,
)

TAKEN = "2026-01-31T12:00:00Z"
REPOSITORY = pathlib.Path(__file__).parents[5]

HOST, DOMAIN, OTHER_NAME = "wohnzimmer", "mueller.example", "oldname-17"
MAC, USB_MAC = "d8:3a:dd:12:ab:ef", "00e04c68beef"
BOARD_SERIAL, DISK_SERIAL, CPU_SERIAL = "FE1234SN77", "S5GXNX0R123456", "100000001badcafe"
MACHINE_ID, ROOT_UUID = "0123456789abcdef0123456789abcdee", "8f14e45f-ceea-467f-a0e6-9be1d0b1c0de"
USER, ADDRESS, ADDRESS6 = "gertrud", "192.168.178.23", "fe80::da3a:ddff:fe12:abef"
SERIAL_NUMBER = bytes.fromhex("efab12feffdd3ad8")  # made of the MAC address, as network cards do
SECRETS = (
    HOST,
    DOMAIN,
    "mueller",
    OTHER_NAME,
    MAC,
    MAC.replace(":", "-"),
    MAC.replace(":", ""),
    USB_MAC,
    BOARD_SERIAL,
    DISK_SERIAL,
    CPU_SERIAL,
    MACHINE_ID,
    ROOT_UUID,
    hosts.BOOT,
    USER,
    "herbert",
    ADDRESS,
    ADDRESS6,
    "sesame",
    "10.1.2.3",
    "ffff800011223344",
    "SECRET_OF_PID_1",
    "nfs-server",
    "//box/share",
)


@pytest.fixture(name="board")
def fixture_board(tree: Tree) -> hosts.Board:
    """A board that is irqbalance's, somebody's, and full of secrets."""
    board = hosts.Board(tree)
    board.irqbalance("--foreground")
    tree.files("/proc/sys/kernel", {"hostname": "%s.%s" % (HOST, DOMAIN), "domainname": "(none)"})
    tree.file("/etc/hostname", OTHER_NAME + "\n")
    tree.file("/etc/machine-id", MACHINE_ID + "\n")
    tree.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n%s:x:1000:1000:G M:/home/%s:/bin/sh\n" % (USER, USER))
    tree.files("/sys/class/dmi/id", {"board_serial": BOARD_SERIAL, "product_serial": "Default string"})
    tree.files("/sys/class/nvme/nvme0", {"serial": DISK_SERIAL + "      "})
    tree.files("/sys/class/net/eth0", {"address": MAC})
    tree.file("/proc/cpuinfo", "processor\t: 0\nFeatures\t: fp\n\nSerial\t\t: %s\n" % CPU_SERIAL)
    tree.file("/proc/1/environ", "HOME=/\0TOKEN=SECRET_OF_PID_1\0")
    tree.file(
        "/proc/mounts",
        "/dev/mapper/%s--vg-root / ext4 rw 0 0\nproc /proc proc rw 0 0\nsysfs /sys sysfs rw 0 0\n"
        "nfs-server:/export/%s /home/%s nfs rw,addr=%s 0 0\n//box/share /mnt cifs rw,username=%s 0 0\n"
        % (HOST, USER, USER, ADDRESS, USER),
    )
    tree.file(
        "/proc/cmdline",
        "BOOT_IMAGE=/boot/vmlinuz root=UUID=%s ro quiet pcie_aspm=off isolcpus=2,3 ip=%s::10.1.2.3::%s:eth0:off "
        'wifi.psk="open sesame" sesame\n' % (ROOT_UUID, ADDRESS, HOST),
    )
    tree.file("/proc/version", "Linux version 6.1.57 (%s@%s) (gcc 12) #1 SMP\n" % (USER, HOST))
    tree.file("/proc/modules", "r8125 200704 0 - Live 0xffff800011223344 (O)\n")
    tree.file("/proc/uptime", "4711.42 9000.00\n")
    tree.file("/proc/interrupts", captured("interrupts/rock5itx-before.txt"))
    board.irq(55)
    tree.files("/sys/kernel/irq/55", {"actions": "%s-rx,enx%s" % (HOST, USB_MAC)})
    nic = config_space((0x10EC, 0x8125), 0x020000, extended=[(0x0003, SERIAL_NUMBER), (0x000B, b"\x01vsec\x02")])
    tree.pci(hosts.SLOT.replace("0003:30", "0004:40") + "/0004:41:00.0", nic, {"vendor": "0x10ec", "device": "0x8125"})
    note = "of %s, see http://%s:sesame@%s/" % (USER, USER, ADDRESS)
    tree.file("/etc/default/irqbalance", 'IRQBALANCE_ARGS="" # %s\n' % note)
    drop_in = "/etc/systemd/system/irqbalance.service.d/%s.conf" % HOST
    tree.file(drop_in, "[Service]\nEnvironmentFile=/home/herbert/env-of-%s\n" % HOST)
    tree.file("/home/herbert/env-of-%s" % HOST, 'IRQBALANCE_ARGS="--policyscript=/opt/p"\nAPI_KEY=sesame\n')
    tree.link("/etc/systemd/system/service.d", "/home/%s/units" % USER)
    tree.file("/home/%s/units/99.conf" % USER, "[Service]\n")
    for number in (1, 500):
        tree.file("/proc/%d/comm" % number, "irqbalance\n" if number == 500 else "systemd\n")
    return board


def log(argv: Sequence[str], timeout_s: float) -> Ran:
    """Stand in for the commands that show logs."""
    assert timeout_s > 0
    if argv[0] == "dmesg":
        return Ran(
            0,
            "[    0.0] Kernel command line: root=UUID=%s\n"
            "[    1.0] pci %s: [1f4b:0650] type 00\n"
            "[    2.0] r8125 0004:41:00.0 eth0: %s, IRQ 55\n"
            "[    2.1] r8125 0004:41:00.0: wake-on-lan for %s from %s and %s by bob@mueller.example\n"
            "[    3.0] wlan0: connected to sesame\n" % (ROOT_UUID, hosts.BDF, MAC.upper(), USER, ADDRESS, ADDRESS6),
        )
    assert argv[0] == "journalctl" and "--no-hostname" in argv
    return Ran(1, "no journal of %s" % HOST)


def taken_of(board: hosts.Board, kinds: Sequence[CardKind] = BUILT_IN, run: Any = log) -> Tuple[Dict[str, Any], Bundle]:
    """Return the report of a board, and the bundle of what it rests on."""
    recorder = Recorder(board.root.path)
    told = report(look(recorder, kinds))
    commands: Runner = run
    return told, bundle(recorder, kinds, commands, TAKEN)


def replayed(path: pathlib.Path, data: bytes, kinds: Sequence[CardKind] = BUILT_IN) -> Dict[str, Any]:
    """Return the report that a bundle gives."""
    path.write_bytes(data)
    return report(look(open_root(str(path)).root, kinds))


def entries(data: bytes) -> Dict[str, Tuple[str, bytes]]:
    """Return type and content (or target) of a bundle's members, by name."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            content = stream.read() if stream is not None else member.linkname.encode()
            found[member.name] = ("link" if member.issym() else "dir" if member.isdir() else "file", content)
    return found


@pytest.fixture(name="outside")
def fixture_outside(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where bundles go: not in the board's own tree."""
    return tmp_path_factory.mktemp("outside") / "bundle.tar.gz"


class TestSameReport:
    def test_on_the_host_and_elsewhere(self, board: hosts.Board, outside: pathlib.Path) -> None:
        board.wishes("irq_affinity", AffinityWishes(BUILT_IN).to_data())
        told, made = taken_of(board)
        assert told == report(look(Root(board.root.path), BUILT_IN)), "to note what is read changes nothing"
        assert told["irqbalance"]["policy_script"] is None
        again = replayed(outside, made.data)
        assert again["host"].pop("boot_id") != told["host"].pop("boot_id")
        name = told["irqbalance"]["drop_ins"].pop(1)
        assert name.endswith("/%s.conf" % HOST)
        assert again["irqbalance"]["drop_ins"].pop(1) == name.replace(HOST, "host-1")
        assert again == told

    def test_what_irqbalance_would_be_given(self, board: hosts.Board, outside: pathlib.Path) -> None:
        """Names in files and the files of these names are replaced alike."""
        (board.tree.path / "proc/500/comm").write_text("other\n")
        told, made = taken_of(board)
        assert told["irqbalance"]["policy_script"] == "/opt/p"
        assert replayed(outside, made.data)["irqbalance"]["policy_script"] == "/opt/p"

    def test_untuned_unbound_dead_and_empty(self, board: hosts.Board, outside: pathlib.Path) -> None:
        card = board.tree.path / "sys/devices" / hosts.SLOT / hosts.BDF
        driver = card / "driver"
        for spoil in (
            driver.unlink,
            lambda: (card / "config").write_bytes(b"\xff" * 256),
            lambda: (card / "config").write_bytes(b""),
            lambda: (board.tree.path / "sys").rename(board.tree.path / "gone"),
            lambda: (board.tree.path / "proc").rename(board.tree.path / "gone-too"),
        ):
            spoil()
            told, made = taken_of(board)
            again = replayed(outside, made.data)
            for one in (told, again):
                del one["host"]["boot_id"], one["irqbalance"]["drop_ins"]
            assert again == told

    def test_heat_sleep_other_clocks_services_and_movement(self, board: hosts.Board, outside: pathlib.Path) -> None:
        board.wishes("governor", {})
        tree = board.tree
        heat = "/sys/devices/virtual/thermal/"
        tree.files(heat + "cooling_device0", {"type": "cpufreq-cpu4", "cur_state": "3", "max_state": "8"})
        trip = {"trip_point_0_type": "passive", "trip_point_0_temp": "75000"}
        tree.files(heat + "thermal_zone0", dict(trip, type="bigcore0-thermal", temp="76000"))
        tree.link(heat + "thermal_zone0/cdev0", "../cooling_device0")
        for name in ("cooling_device0", "thermal_zone0"):
            tree.link("/sys/class/thermal/" + name, "../../devices/virtual/thermal/" + name)
        tree.files("/sys/devices/system/cpu/cpu0/cpuidle/state1", {"name": "x", "latency": "220", "disable": "0"})
        tree.file("/proc/device-tree/compatible", b"rockchip,rk3588\0")
        tree.files("/sys/class/devfreq/dmc", {"governor": "dmc_ondemand", "cur_freq": "1"})
        tree.file("/usr/lib/systemd/system/cpufrequtils.service")
        tree.link(
            "/etc/systemd/system/multi-user.target.wants/cpufrequtils.service",
            "/usr/lib/systemd/system/cpufrequtils.service",
        )
        tree.files("/sys/devices/system/cpu", {"possible": "0-7"})
        tree.files("/sys/kernel/irq/38", {"per_cpu_count": "5,0,0,0,0,0,0,0"})
        columns = " ".join("CPU%d" % cpu for cpu in range(8))
        tree.file("/proc/interrupts", "  %s\n 38: 6 0 0 0 9 0 0 0 ITS-MSI 0 Edge MSI\n" % columns)
        told, made = taken_of(board)
        staged = {
            "host_throttled",
            "idle_states_deep",
            "devfreq_drops",
            "clock_conflict",
            "agent_off",
            "interrupt_moving",
        }
        assert staged <= {one["id"] for one in told["findings"]}
        again = replayed(outside, made.data)
        for name in ("verdict", "worth_doing", "expected_gain", "findings"):
            assert again[name] == told[name]

    def test_refused_is_refused_again(
        self, board: hosts.Board, outside: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refused = {"aer_dev_fatal": 13, "affected_cpus": 16}
        board.tree.file("/sys/devices/%s/%s/aer_dev_fatal" % (hosts.SLOT, hosts.BDF))
        plain = Root.data

        def data(self: Root, path: str, limit: int = -1) -> Any:
            code = refused.get(os.path.basename(path))
            spared = (code == 13 and hosts.BDF not in path) or "policy0" in path
            if code is not None and isinstance(self, Recorder) and not spared:
                self._note(path, OSError(code, "refused"))
                return None
            return plain(self, path, limit)

        monkeypatch.setattr(Root, "data", data)
        told, made = taken_of(board)
        monkeypatch.undo()
        assert [policy["all_offline"] for policy in told["policies"]] == [False, True, True]
        [unread] = [one for one in told["findings"] if one["id"] == "unread"]
        assert unread["evidence"] == {"/sys/bus/pci/devices/%s/aer_dev_fatal" % hosts.BDF: "EACCES"}
        again = replayed(outside, made.data)
        assert (again["policies"], again["findings"]) == (told["policies"], told["findings"])

    def test_live_machine(self, outside: pathlib.Path) -> None:
        recorder = Recorder("/")
        told = report(look(recorder, BUILT_IN))
        made = bundle(recorder, BUILT_IN, None, TAKEN)
        again = replayed(outside, made.data)
        assert again["host"]["architecture"] == told["host"]["architecture"] == os.uname().machine
        for one in (told, again):
            del one["host"]["boot_id"]
        assert again == told

    def test_process_that_ends_after_it_was_listed(self, board: hosts.Board, outside: pathlib.Path) -> None:
        board.tree.file("/proc/4711/comm", "sh")
        recorder = Recorder(str(board.tree.path))
        assert "4711" in recorder.names("/proc")
        shutil.rmtree(str(board.tree.path / "proc/4711"))
        assert recorder.text("/proc/4711/comm") is None
        outside.write_bytes(bundle(recorder, BUILT_IN, None, TAKEN).data)
        again = open_root(str(outside)).root
        assert again.text("/proc/4711/comm") is None
        assert again.unread == recorder.unread == []

    def test_architecture_where_the_kernel_does_not_tell_it(self, outside: pathlib.Path) -> None:
        recorder = Recorder("/")
        told = report(look(recorder, BUILT_IN))
        recorder.captured.files.pop(ARCHITECTURE, None)
        recorder.captured.missing.add(ARCHITECTURE)
        again = replayed(outside, bundle(recorder, BUILT_IN, None, TAKEN).data)
        assert again["host"]["architecture"] == told["host"]["architecture"] == os.uname().machine

    def test_catalogue_comes_along(self, board: hosts.Board, outside: pathlib.Path) -> None:
        board.tree.pci("pci0000:00/0000:00:02.0", contents={"vendor": "0xabcd", "device": "0x0001"})
        kinds = resolve([{"vendor": "abcd", "device": "0001", "name": "mine, %s" % USER}])
        _told, made = taken_of(board, kinds)
        outside.write_bytes(made.data)
        assert [device["name"] for device in open_root(str(outside)).devices] == ["mine, user-1"]
        told = replayed(outside, made.data, resolve(open_root(str(outside)).devices))
        assert [card["bdf"] for card in told["cards"]] == ["0000:00:02.0", hosts.BDF]

    def test_unpacked_by_a_person(self, board: hosts.Board, outside: pathlib.Path) -> None:
        _told, made = taken_of(board)
        directory = outside.parent / "unpacked"
        with tarfile.open(fileobj=io.BytesIO(made.data)) as archive:
            archive.extractall(str(directory), **({"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}))
        opened = open_root(str(directory))
        assert report(look(opened.root, BUILT_IN)) == replayed(outside, made.data)


SMI = "/usr/bin/axcl/axcl-smi"
SERIAL = "ZX81LKJH0042"
KERNEL_SAID = (
    "[    1.0] pci %s: [1f4b:0650] type 00\n"
    "[    2.0] nvme nvme0: pci function with serial %s\n"
    "[   90.0] [mmb_alloc, 12]: there are no free entries\n" % (hosts.BDF, SERIAL)
)


class Asked:
    """Stands in for dmesg and axcl-smi, and counts the calls."""

    def __init__(self, log_text: str = KERNEL_SAID, smi: str = "v3.6.5-rk3588-54c") -> None:
        self.log_text = log_text
        table = captured("axcl/smi-table-%s.txt" % smi)
        self.table = re.sub(r"[0-9A-F]{4}:[0-9A-F]{2}:00\.0", hosts.BDF, table).replace("baiwen", USER)
        self.commands: List[str] = []

    def __call__(self, argv: Sequence[str], timeout_s: float) -> Ran:
        assert 0 < timeout_s < 60, "a diagnosis waits for nobody that long"
        words = list(argv)
        if words[0] == "sh":
            assert words[4] == "/run/edgenpu-tuning-axcl.lock", "one call at a time"
            self.commands.append("axcl-smi")
            return Ran(0, self.table)
        self.commands.append(words[0])
        return Ran(0, self.log_text) if words[0] == "dmesg" else Ran(1, "no journal")


@pytest.fixture(name="driven")
def fixture_driven(board: hosts.Board) -> hosts.Board:
    """The same board with the driver's package, a little spoilt."""
    tree = board.tree
    modules = "".join("%s 16384 0 - Live 0x0\n" % name for name in reversed(MODULES[:5]))
    tree.file("/proc/modules", modules)
    tree.files("/sys/power", {"state": "freeze mem"})
    tree.file("/proc/uptime", "100.0 90.0\n")
    for name, mode in (("axcl_host", 0o666), ("p2p", 0o660)):
        tree.file("/dev/" + name)
        (tree.path / "dev" / name).chmod(mode)
    tree.file(SMI)
    tree.file("/etc/apt/apt.conf.d/10sandbox", 'APT::Sandbox::User "root";\n')
    tree.file("/etc/udev/rules.d/axcl_host.rules", 'KERNEL=="axcl_host", GROUP="<users>"\n')
    tree.file(
        "/var/lib/dpkg/status",
        stanza("sesame") + stanza("axclhost", "3.6.5-m5stack1", "install ok half-configured") + stanza("zzz"),
    )
    tree.link("/etc/systemd/system/hibernate.target", "/dev/null")
    for name in MODULES[:5]:
        tree.file("/lib/modules/%s/updates/%s.ko" % (hosts.RELEASE, name), module_file("6.1.50", "ABC"))
        tree.files("/sys/module/" + name, {"srcversion": "XYZ"})
    return board


class TestAsked:
    def test_the_same_findings_from_the_bundle(self, driven: hosts.Board, outside: pathlib.Path) -> None:
        ask = Asked(smi="v3.16.0-16gb-busy")
        recorder = Recorder(driven.root.path)
        told = report(look(recorder, BUILT_IN, ask))
        assert {one["id"] for one in told["findings"]} >= {
            "apt_sandbox_off",
            "device_nodes_open",
            "driver_of_other_kernel",
            "driver_package_broken",
            "driver_stale",
            "host_may_sleep",
            "log_host_memory_fragmented",
            "udev_group_missing",
        }
        made = bundle(recorder, BUILT_IN, ask, TAKEN)
        assert ask.commands == ["dmesg", "axcl-smi", "journalctl"], "nothing is asked twice"
        again = replayed(outside, made.data)
        assert again["findings"] == told["findings"]
        assert made.manifest["logs"]["axcl-smi.txt"] == "16 lines"

    def test_no_secret_of_these(self, driven: hosts.Board) -> None:
        recorder = Recorder(driven.root.path)
        ask = Asked(smi="v3.16.0-16gb-busy")
        look(recorder, BUILT_IN, ask)
        unzipped = gzip.decompress(bundle(recorder, BUILT_IN, ask, TAKEN).data)
        assert b"106912  /home/user-" in unzipped
        for secret in (SERIAL, USER, "sesame", "zzz"):
            assert secret.encode() not in unzipped, secret
        assert b"Package: axclhost" in unzipped

    def test_a_hot_card_is_hot_in_the_bundle(self, driven: hosts.Board, outside: pathlib.Path) -> None:
        recorder = Recorder(driven.root.path)
        ask = Asked()
        ask.table = ask.table.replace(" 54C", "111C")
        told = report(look(recorder, BUILT_IN, ask))
        [hot] = [one for one in told["findings"] if one["id"] == "card_hot"]
        again = replayed(outside, bundle(recorder, BUILT_IN, ask, TAKEN).data)
        assert hot in again["findings"]

    def test_no_answer_is_none_in_the_bundle(self, driven: hosts.Board, outside: pathlib.Path) -> None:
        ask = Asked()
        ask.table = "\nedgenpu-tuning: exit status 124\n"
        recorder = Recorder(driven.root.path)
        told = report(look(recorder, BUILT_IN, ask))
        assert "card_silent" in {one["id"] for one in told["findings"]}
        again = replayed(outside, bundle(recorder, BUILT_IN, ask, TAKEN).data)
        assert again["findings"] == told["findings"]

    def test_unpacked_by_a_person(self, driven: hosts.Board, outside: pathlib.Path) -> None:
        ask, recorder = Asked(), Recorder(driven.root.path)
        told = report(look(recorder, BUILT_IN, ask))
        made = bundle(recorder, BUILT_IN, ask, TAKEN)
        with tarfile.open(fileobj=io.BytesIO(made.data)) as archive:
            more: Any = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
            archive.extractall(str(outside.parent / "x"), **more)
        again = report(look(open_root(str(outside.parent / "x")).root, BUILT_IN))
        assert "log_host_memory_fragmented" in {one["id"] for one in again["findings"]}
        lost = {one["id"] for one in told["findings"]} - {one["id"] for one in again["findings"]}
        assert lost <= {"device_nodes_open"}, "who unpacks it may have a umask of their own"

    def test_nobody_may_run_commands(self, driven: hosts.Board) -> None:
        told = {one["id"] for one in report(look(Root(driven.root.path), BUILT_IN))["findings"]}
        assert "apt_sandbox_off" in told
        assert not [name for name in told if name.startswith("log_")]

    def test_no_such_card(self, tree: Tree) -> None:
        ask = Asked()
        look(hosts.Board(tree, card=False).root, BUILT_IN, ask)
        assert ask.commands == []

    @pytest.mark.parametrize(
        ("path", "content"),
        [
            ("power_state", b"D3cold\n"),
            ("config", b"\xff" * 256),
            ("/proc/modules", b"axcl_host 16384 1 - Loading 0x0\n"),
            ("/proc/modules", b""),
        ],
    )
    def test_a_card_is_left_alone(self, driven: hosts.Board, path: str, content: bytes) -> None:
        """One that sleeps, is dead, or has no driver that has ended its start."""
        card = "/sys/devices/%s/%s/" % (hosts.SLOT, hosts.BDF)
        driven.tree.file(path if path.startswith("/") else card + path, content)
        ask = Asked()
        look(driven.root, BUILT_IN, ask)
        assert ask.commands == ["dmesg"]

    def test_without_driver_node_or_tool(self, driven: hosts.Board) -> None:
        for path in ("sys/devices/%s/%s/driver" % (hosts.SLOT, hosts.BDF), "dev/axcl_host", "usr/bin/axcl/axcl-smi"):
            place = driven.tree.path / path
            kept = place.with_name("kept")
            place.rename(kept)
            ask = Asked()
            look(driven.root, BUILT_IN, ask)
            assert ask.commands == ["dmesg"], path
            kept.rename(place)
        ask = Asked()
        look(driven.root, BUILT_IN, ask)
        assert ask.commands == ["dmesg", "axcl-smi"]

    def test_a_card_that_the_log_calls_dead_is_not_asked(self, driven: hosts.Board) -> None:
        dead = "[50.0] [heartbeat_recv_thread, 578]: device 31: dead!\n"
        for text, commands in ((dead, ["dmesg"]), (dead + "[60.0] device 31: alive!\n", ["dmesg", "axcl-smi"])):
            ask = Asked(text)
            look(driven.root, BUILT_IN, ask)
            assert ask.commands == commands

    def test_log_that_may_not_be_read(self, driven: hosts.Board) -> None:
        ask = Asked()
        root = Root(driven.root.path)
        look(root, BUILT_IN, lambda argv, limit: Ran(1, "dmesg: denied") if argv[0] == "dmesg" else ask(argv, limit))
        assert list(root.printed) == ["axcl-smi.txt"]


class TestSecrets:
    def test_none_is_left(self, board: hosts.Board, outside: pathlib.Path) -> None:
        board.tree.file(
            "/var/lib/edgenpu-tuning/ledger.json",
            json.dumps(
                {
                    "schema": 1,
                    "entries": [
                        {"kind": "file", "id": "/x", "state": {"content": base64.b64encode(HOST.encode()).decode()}},
                        {"kind": "interrupt", "id": "%s#0" % hosts.BDF, "value": "0-7", "boot_id": hosts.BOOT},
                    ],
                }
            ),
        )
        _told, made = taken_of(board)
        unzipped = gzip.decompress(made.data).lower()
        for secret in SECRETS:
            assert secret.lower().encode() not in unzipped, secret
        assert base64.b64encode(HOST.encode()).lower() not in unzipped
        assert SERIAL_NUMBER not in unzipped
        assert HOST not in outside.name

    def test_they_were_all_asked_for(self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the replacing most secrets are in it, or the test above would prove nothing."""

        class Idle:
            def __init__(self, identity: Any, words: Set[str]) -> None:
                self.counts: Dict[str, int] = {}

            def text(self, data: bytes, prose: bool = True) -> bytes:
                return data

            def path(self, path: str, target: Any = None) -> str:
                return path if target is None else str(target)

            def content(self, path: str, data: bytes) -> bytes:
                return data

        monkeypatch.setattr(bundle_module, "Scrubber", Idle)
        _told, made = taken_of(board)
        unzipped = gzip.decompress(made.data).lower()
        # the others stand in files that are not read at all
        left = {BOARD_SERIAL, DISK_SERIAL, MACHINE_ID, OTHER_NAME, MAC.replace(":", "-"), MAC.replace(":", "")}
        assert {secret for secret in SECRETS if secret.lower().encode() not in unzipped} == left
        assert SERIAL_NUMBER in unzipped

    def test_what_is_needed_is_left(self, board: hosts.Board) -> None:
        _told, made = taken_of(board)
        found = entries(made.data)
        assert found["root/proc/cmdline"][1] == (
            b"BOOT_IMAGE=removed root=removed ro quiet pcie_aspm=off isolcpus=2,3 ip=removed wifi.psk=removed removed\n"
        )
        assert found["root/proc/mounts"][1] == (
            b"removed / ext4 rw 0 0\nproc /proc proc rw 0 0\nsysfs /sys sysfs rw 0 0\n"
        )
        assert found["root/proc/1/environ"][1] == b""
        assert found["root/proc/interrupts"][1].decode() == captured("interrupts/rock5itx-before.txt")
        assert found["root/sys/kernel/irq/55/actions"][1] == b"host-1-rx,enx000000000001\n"
        assert found["logs/kernel.txt"][1] == (
            b"[    1.0] pci 0003:31:00.0: [1f4b:0650] type 00\n"
            b"[    2.0] r8125 0004:41:00.0 eth0: 00:00:00:00:00:02, IRQ 55\n"
            b"[    2.1] r8125 0004:41:00.0: wake-on-lan for user-1 from 198.18.0.1 and 2001:db8::2 by removed\n"
        )

    def test_configuration_space_is_as_it_was_but_for_the_serial_number(self, board: hosts.Board) -> None:
        _told, made = taken_of(board)
        found = entries(made.data)
        for real in (hosts.SLOT + "/" + hosts.BDF, hosts.SLOT.replace("0003:30", "0004:40") + "/0004:41:00.0"):
            before = (board.tree.path / "sys/devices" / real / "config").read_bytes()
            expected = before.replace(SERIAL_NUMBER, bytes(8))
            assert found["root/sys/devices/%s/config" % real] == ("file", expected)
            assert (before != expected) == ("0004" in real)

    def test_boots_are_still_told_apart(self, board: hosts.Board) -> None:
        board.tree.file(
            "/var/lib/edgenpu-tuning/ledger.json",
            json.dumps({"entries": [{"boot_id": hosts.BOOT}, {"boot_id": hosts.BOOT.replace("1", "9")}]}),
        )
        _told, made = taken_of(board)
        found = entries(made.data)
        now = found["root/proc/sys/kernel/random/boot_id"][1].decode().strip()
        recorded = json.loads(found["root/var/lib/edgenpu-tuning/ledger.json"][1].decode())["entries"]
        assert (recorded[0]["boot_id"] == now, recorded[1]["boot_id"] == now) == (True, False)


class TestContents:
    def test_same_host_same_bytes(self, board: hosts.Board) -> None:
        assert taken_of(board)[1].data == taken_of(board)[1].data

    def test_order_and_owners(self, board: hosts.Board) -> None:
        with tarfile.open(fileobj=io.BytesIO(taken_of(board)[1].data)) as archive:
            members = archive.getmembers()
        names = [member.name for member in members]
        assert names[0] == "manifest.json"
        assert names[1:] == sorted(names[1:]) and len(names) == len(set(names))
        assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {(0, 0, "", 0)}

    def test_links_stay_inside(self, board: hosts.Board, outside: pathlib.Path) -> None:
        board.tree.link("/lib/systemd/system/irqbalance.service", "../../../../../../../dev/null")
        found = entries(taken_of(board)[1].data)
        links = {name: content.decode() for name, (kind, content) in found.items() if kind == "link"}
        assert links["root/sys/bus/pci/devices/" + hosts.BDF] == "../../../devices/%s/%s" % (hosts.SLOT, hosts.BDF)
        assert links["root/etc/systemd/system/service.d"] == "../../../home/user-1/units"
        for name, target in links.items():
            assert not target.startswith("/")
            assert os.path.normpath(os.path.join(os.path.dirname(name), target)).startswith("root/"), name

    def test_odd_names(self, board: hosts.Board, outside: pathlib.Path) -> None:
        odd = ["a b", "line\nfeed", "tab\t", "grün", os.fsdecode(b"\xff\xfe"), "x" * 200, "-", "a\\b", "*?"]
        for name in odd:
            board.tree.file("/etc/edgenpu-tuning/wishes.d/%s.json" % name, "{}")
        outside.write_bytes(taken_of(board)[1].data)
        there = open_root(str(outside)).root.names("/etc/edgenpu-tuning/wishes.d")
        assert there == sorted(name + ".json" for name in odd)

    def test_manifest(self, board: hosts.Board) -> None:
        made = taken_of(board)[1]
        manifest = json.loads(entries(made.data)["manifest.json"][1].decode())
        assert manifest == made.manifest
        assert (manifest["schema"], manifest["taken"], manifest["collection"]) == (1, TAKEN, COLLECTION_VERSION)
        assert manifest["logs"] == {
            "axcl-smi.txt": "not asked: no card that is awake and alive, or its driver is not ready",
            "edgenpu-tuning.txt": "journalctl ended with 1: no journal of host-1",
            "kernel.txt": "3 lines",
        }
        assert manifest["scrubbed"]["mount"] == 2
        assert set(manifest["scrubbed"]) >= {"MAC address", "UUID", "IP address", "host name", "user name"}
        assert "/sys/class" not in manifest["listed"] and "/sys/bus/pci/devices" in manifest["listed"]

    def test_version_is_the_collection_s(self) -> None:
        assert "\nversion: %s\n" % COLLECTION_VERSION in (REPOSITORY / "galaxy.yml").read_text("utf-8")

    def test_second_reading(self, board: hosts.Board) -> None:
        found = entries(taken_of(board)[1].data)
        assert found["later/proc/uptime"][1] == b"4711.42 9000.00\n"
        assert "later/proc/interrupts" in found

    def test_without_commands(self, board: hosts.Board) -> None:
        made = taken_of(board, run=None)[1]
        assert made.manifest["logs"] == {}
        assert not [name for name in entries(made.data) if name.startswith("logs/")]

    def test_too_much_is_left_out_and_told(
        self, board: hosts.Board, outside: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import captured as module

        monkeypatch.setattr(module, "MAX_FILE_BYTES", 5000)
        board.tree.file("/proc/interrupts", captured("interrupts/rock5itx-before.txt") + " 0:  1  2\n" * 500)
        told, made = taken_of(board)
        assert told["verdict"] == report(look(board.root, BUILT_IN))["verdict"], "the report itself lacks nothing"
        assert made.manifest["unread"]["/proc/interrupts"] == "EFBIG"
        monkeypatch.undo()
        outside.write_bytes(made.data)
        root = open_root(str(outside)).root
        assert (root.data("/proc/interrupts"), root.unread) == (None, [("/proc/interrupts", "EFBIG")])


class TestWriting:
    def test_for_nobody_else(self, outside: pathlib.Path) -> None:
        write_new(str(outside), b"data")
        assert (outside.read_bytes(), outside.stat().st_mode & 0o777) == (b"data", 0o600)
        assert os.listdir(str(outside.parent)) == [outside.name]

    def test_owner(self, outside: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given: List[Tuple[int, int]] = []
        monkeypatch.setattr(os, "fchown", lambda handle, uid, gid: given.append((uid, gid)))
        write_new(str(outside), b"data", (1000, 100))
        assert given == [(1000, 100)]

    @pytest.mark.parametrize("suffix", ["", ".new"])
    def test_overwrites_nothing(self, outside: pathlib.Path, suffix: str) -> None:
        there = pathlib.Path(str(outside) + suffix)
        there.write_bytes(b"mine")
        with pytest.raises(WishError, match="is there already, and a bundle overwrites nothing; choose another name"):
            write_new(str(outside), b"data")
        assert there.read_bytes() == b"mine"
        assert os.listdir(str(outside.parent)) == [there.name]

    def test_follows_no_link(self, outside: pathlib.Path) -> None:
        outside.symlink_to(outside.parent / "elsewhere")
        with pytest.raises(WishError, match="is there already"):
            write_new(str(outside), b"data")
        assert os.listdir(str(outside.parent)) == [outside.name]

    def test_what_fails_leaves_nothing(self, outside: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_new(str(outside), b"data")
        assert os.listdir(str(outside.parent)) == []


def test_auxiliary_vector_is_kept(board: hosts.Board, outside: pathlib.Path) -> None:
    """It is binary, and the page size in it is part of the report."""
    board.tree.link("/proc/self", "77")
    board.tree.file("/proc/77/auxv", struct.pack("<QQQQ", 6, 16384, 0, 0))
    told, made = taken_of(board)
    assert replayed(outside, made.data)["host"]["page_size"] == told["host"]["page_size"] == 16384
