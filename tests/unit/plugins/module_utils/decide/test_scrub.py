# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from typing import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.scrub import Scrubber, kernel_lines, vocabulary
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.identity import Identity
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.hosts import STEADY
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import captured

PROSE = "/logs/x"


def scrubber(hosts: Iterable[str] = (), serials: Iterable[str] = (), users: Iterable[str] = ()) -> Scrubber:
    """Return a scrubber that knows this of the host."""
    return Scrubber(Identity(tuple(hosts), tuple(serials), tuple(users)), vocabulary(["/sys/devices/platform"], {}))


def scrubbed(text: str, path: str = PROSE, **known: Iterable[str]) -> str:
    """Return a text of a file without what identifies the host."""
    return scrubber(**known).content(path, text.encode()).decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("link d8:3a:dd:12:ab:ef up", "link 00:00:00:00:00:01 up"),
        ("MAC: D8-3A-DD-12-AB-EF, d8:3a:dd:12:ab:ef:", "MAC: 00-00-00-00-00-01, 00:00:00:00:00:01:"),
        ("guid 00:11:22:33:44:55:66:77", "guid 00:00:00:00:00:00:00:01"),
        ("enxd83add12abef", "enx000000000001"),
        ("8f14e45f-ceea-467f-a0e6-9be1d0b1c0de", "00000000-0000-0000-0000-000000000001"),
        ("id 0123456789abcdef0123456789abcdef", "id 00000000000000000000000000000001"),
        ("from 192.168.1.2:22 to 192.168.1.3, 192.168.1.2", "from 198.18.0.1:22 to 198.18.0.2, 198.18.0.1"),
        ("fe80::1 2001:db8:1:2:3:4:5:6 2003:a:b::", "2001:db8::1 2001:db8::2 2001:db8::3"),
        ("password=hunter2 x", "password=removed x"),
        ('"api_key": "hunter 2", "a": 1', '"api_key": "removed", "a": 1'),
        ("WIFI_PSK='a b'", "WIFI_PSK='removed'"),
        ("https://me:pw@example.org/x", "https://removed@example.org/x"),
        ("by bob.b@mail.example.org.", "by removed."),
        ("nvme0: serial S5GXNX0R12, S/N: WD-WX1234", "nvme0: serial serial-1, S/N: serial-2"),
        ("SerialNumber: 0123456789AB", "SerialNumber: 000000000001"),
        ("Serial number = X9-77713; serial no. 7771-ZZ", "Serial number = serial-1; serial no. serial-2"),
        ("in /home/bob/x and /home/eve", "in /home/user-1/x and /home/user-2"),
    ],
)
def test_replaced(before: str, after: str) -> None:
    assert scrubbed(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "0003:31:00.0 [1f4b:0650] type 00 class 0x040000",
        "ff:ff:ff:ff:ff:ff 00:00:00:00:00:00 00000000-0000-0000-0000-000000000000",
        "Serial: 8250/16550 driver, 4 ports; serial8250: ttyS0; feb50000.serial: ttyS2 at MMIO 0xfeb50000",
        "serial 00:02: disabled; Serial bus multi instantiate; New: Mfr=1, SerialNumber=3",
        "127.0.0.1 0.0.0.0 255.255.255.0 ::1",
        "at 12:34:56, 5.10.110, 1.2.3.4.5, r8125 9.011.00-NAPI",
        "pcie@fe180000 getty@tty1.service modprobe@drm.service",
        "smp_affinity 00000000,00000000,00000000,000000ff",
        "ITS-MSI 570425344 Edge; GICv3 27 Level",
        "abcdef0123456789abcdef0123456789abcdef01",
        "usb 1-1.2: new device",
    ],
)
def test_left(text: str) -> None:
    assert scrubbed(text) == text


@pytest.mark.parametrize("name", ["rock5itx-before", "graviton", "rpi4", "x86-laptop", "coreos", "opi5plus-head"])
def test_interrupts_are_left(name: str) -> None:
    text = captured("interrupts/%s.txt" % name)
    assert scrubbed(text, "/proc/interrupts", hosts=["wohnzimmer"], users=["gertrud"]) == text


def test_values_of_the_kernel_are_no_addresses() -> None:
    assert scrubbed("1.2.3.4", "/sys/module/x/version") == "1.2.3.4"
    assert scrubbed("token=x", "/sys/module/x/parameters/y") == "token=x"


class TestKnown:
    def test_whole_words_of_any_case(self) -> None:
        before = "nas2 NAS2: x-nas2.lan nas23 _nas2_ bnas2"
        assert scrubbed(before, hosts=["nas2"]) == "host-1 host-1: x-host-1.lan nas23 _host-1_ bnas2"

    def test_longest_first(self) -> None:
        assert scrubbed("nas2.lan nas2", hosts=["nas2", "nas2.lan"]) == "host-1 host-2"

    def test_words_of_kernel_and_board_stay(self) -> None:
        words = vocabulary(
            ["/sys/devices/platform/fe180000.pcie", "/proc/irq/38/eth-of-bob", "/home/bob"],
            {"/proc/device-tree/model": b"FriendlyElec CM3588 NAS\0", "/sys/x/scaling_governor": b"performance\n"},
        )
        known = Identity(("cm3588", "platform", "performance", "pcie", "bob"), ("fe180000",), ("nas",))
        text = b"cm3588 platform performance pcie fe180000 nas bob"
        assert Scrubber(known, words).text(text) == text[:-3] + b"host-1"

    @pytest.mark.parametrize("name", ["7", "n", "42"])
    def test_names_that_cannot_be_told_from_other_text(self, name: str) -> None:
        assert scrubbed("n 7 42", hosts=[name]) == "n 7 42"

    def test_serial_numbers(self) -> None:
        serials = ["S5GXNX0R1", "123456789", "d8:3a:dd:12:ab:ef"]
        before = "disk s5gxnx0r1, board 123456789, mac d83add12abef"
        assert scrubbed(before, serials=serials) == "disk serial-1, board 000000002, mac 000000000003"

    def test_regular_expressions_are_none(self) -> None:
        assert scrubbed("a+b (a.b", hosts=["a+b"], users=["(a.b"]) == "host-1 user-1"


class TestFiles:
    def test_identities_that_nobody_should_read(self) -> None:
        one = scrubber()
        for path in ("/sys/class/dmi/id/product_uuid", "/proc/device-tree/serial-number", "/etc/machine-id"):
            assert re.fullmatch(b"serial-[0-9]+\n", one.content(path, b"whatever it is"))
        assert one.content("/sys/x/serial", b"\n") == b"\n"
        assert one.content("/sys/kernel/irq/1/type", b"serial") == b"serial"

    def test_command_line(self) -> None:
        before = 'a="b c" quiet cryptkey=x pci=nomsi hunter2 cpufreq.default_governor=ondemand irqaffinity=0-3\n'
        after = "a=removed quiet cryptkey=removed pci=nomsi removed cpufreq.default_governor=ondemand irqaffinity=0-3\n"
        assert scrubbed(before, "/proc/cmdline") == after
        assert scrubbed("x=y\0", "/proc/device-tree/chosen/bootargs") == "x=removed\n"

    def test_environment(self) -> None:
        assert scrubbed("A=b\0container=lxc\0", "/proc/1/environ") == "container=lxc\0"

    def test_processor_s_serial_number(self) -> None:
        before = "BogoMIPS: 48\nSerial\t\t: 100000001badcafe\n"
        assert scrubbed(before, "/proc/cpuinfo") == "BogoMIPS: 48\nSerial\t\t: 0000000000000000\n"

    def test_who_built_the_kernel(self) -> None:
        before = "Linux version 6.1.57 (bob@builder) (gcc (Debian 12.2.0-14) 12.2.0) #1 SMP\n"
        assert scrubbed(before, "/proc/version") == before.replace("bob@builder", "removed")

    def test_kernel_addresses(self) -> None:
        before = "r8125 200704 0 - Live 0xffff800011223344 (O)\n"
        assert scrubbed(before, "/proc/modules") == before.replace("ffff800011223344", "0" * 16)

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("10.0.0.5:/nas / nfs4 rw,vers=4.2,clientaddr=10.0.0.9,addr=10.0.0.5 0 0", "removed / nfs4 rw 0 0"),
            ("overlay / overlay ro,lowerdir=/home/anna/a:/home/anna/b 0 0", "overlay / overlay ro 0 0"),
            ("sysfs /sys sysfs rw,nosuid,nodev 0 0", "sysfs /sys sysfs rw 0 0"),
        ],
    )
    def test_options_of_a_mount(self, line: str, expected: str) -> None:
        assert scrubbed(line + "\n", "/proc/self/mounts") == expected + "\n"

    def test_names_of_other_processes(self) -> None:
        one = scrubber()
        names = (b"irqbalance\n", b"irq/38-0003:31:\n", b"family-photos\n", b"irqbalance-ui\n")
        found = [one.content("/proc/%d/comm" % pid, name) for pid, name in enumerate(names)]
        assert found == [names[0], names[1], b"removed\n", b"removed\n"]
        assert one.counts == {"process": 2}

    def test_damaged_ledger(self) -> None:
        for text in ("{", "[]", '{"entries": [1]}', "[" * 99999):
            assert scrubbed(text, "/var/lib/edgenpu-tuning/ledger.json") == "{}\n"

    def test_counted(self) -> None:
        one = scrubber(hosts=["nas2"])
        one.content(PROSE, b"nas2 nas2 1.2.3.4 d8:3a:dd:12:ab:ef")
        assert one.counts == {"host name": 2, "IP address": 1, "MAC address": 1}


@STEADY
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """Nothing that is no secret is altered, in whatever encoding, and no file makes it stumble."""
    one = scrubber(hosts=["wohnzimmer"])
    quiet = bytes(byte for byte in data if byte not in b"0123456789abcdefABCDEF=:@/wW")
    assert one.content(PROSE, quiet) == quiet
    names = ("cmdline", "mounts", "1/environ", "cpuinfo", "version", "modules", "interrupts")
    for path in [
        *("/proc/" + name for name in names),
        "/sys/devices/a/0000:00:00.0/config",
        "/var/lib/edgenpu-tuning/ledger.json",
    ]:
        one.content(path, data)


def test_kernel_log() -> None:
    log = (
        "[0] Linux version 6.1 (bob@box)\n[0] Kernel command line: pci=nomsi key=secret\n[1] pci 0003:31:00.0: BAR\n"
        "[2] usb 1-1: SerialNumber: 123, irq 4\n[3] EXT4-fs mounted\n[4] ax_pcie_host_dev: ready\n"
        "[5] irq 29: nobody cared\n"
    )
    assert kernel_lines(log) == "[1] pci 0003:31:00.0: BAR\n[4] ax_pcie_host_dev: ready\n[5] irq 29: nobody cared\n"
    assert kernel_lines(log, 1) == "[5] irq 29: nobody cared\n"
