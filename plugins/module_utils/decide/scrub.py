# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a bundle must not tell: names, serial numbers and addresses, each replaced by one of its own. Pure.

The same value always gets the same replacement, in a form that parsers take, so that what matched still matches (a
boot's identity, say). Work is done on bytes: what is not replaced stays as it was, whatever its encoding.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, Iterable, List, Match, Optional, Pattern, Set, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import may_tell
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import is_driver_package
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.identity import Identity
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import decode_config

EXT_CAP_DSN = 0x0003
REMOVED = b"removed"

# Whatever these files hold is an identity, should anybody ever read them for a diagnosis.
_IDENTITY_FILES = re.compile(
    r".*/(?:serial|serial[-_]number|subsysnqn|[a-z]*_?(?:serial|uuid|asset_tag)|wwid|cid|eui|nguid|machine-id|hostname"
    r"|domainname|vpd|unique_id)"
)
_CONFIG = re.compile(r"/sys/devices/.*/[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]/config")
_BINARY = re.compile(r"/proc/[^/]+/auxv")
_CMDLINE = re.compile(r"/proc/cmdline|.*/bootargs")
_MOUNTS = re.compile(r"/proc/(?:[^/]+/)?mounts")
_ENVIRON = re.compile(r"/proc/[^/]+/environ")
_COMM = re.compile(r"/proc/[0-9]+/comm")
_OUR_PROCESSES = re.compile(rb"irqbalance\n?|irq/.*", re.DOTALL)  # those that a diagnosis is about
_WORD = re.compile(r"[a-z0-9]+")
# Contents of /proc and /sys that are one of the kernel's or the board's own words
_WORD_FILES = re.compile(
    r".*/(?:model|compatible|scaling_(?:available_governors|governor|driver)|chip_name|type|power_state|osrelease|policy"
    r"|(?:product|board)_name|(?:sys|board|bios)_vendor)"
)
_WORDS = "schema wishes catalogue governor irq_affinity agent edgenpu tuning npu card root kernel irqbalance systemd"

# Parameters of the kernel's command line that say nothing of whose machine it is; of all others only the name is kept.
_HARMLESS = re.compile(
    rb"(?:pci|pcie\w*|irqaffinity|isolcpus|nohz|nohz_full|rcu_nocbs|rcu_nocb_poll|threadirqs|noirqdebug|irqpoll|irqfixup"
    rb"|maxcpus|nr_cpus|possible_cpus|nosmt|nosmp|idle|intel_pstate|amd_pstate|intel_iommu|amd_iommu|iommu|swiotlb|cma"
    rb"|coherent_pool|default_hugepagesz|hugepagesz|hugepages|mitigations|preempt|skew_tick|tsc|clocksource|nowatchdog"
    rb"|nmi_watchdog|console|earlycon|loglevel|quiet|splash|ro|rw|rootwait|rootfstype|acpi|noacpi|noapic|nolapic|mem"
    rb"|numa|numa_balancing|psi|cgroup_\w+|modprobe\.blacklist|module_blacklist|transparent_hugepage"
    rb"|(?:cpufreq|cpuidle|processor|intel_idle|workqueue|pcie_aspm|pciehp|iommu|nvme|nvme_core|ax_pcie\w*|axcl\w*"
    rb"|hailo_pci|amdxdna|apex|gasket)\.\w+)"
)
_PARAMETER = re.compile(rb'(?:[^\s"]|"[^"]*"?)+')

_KINDS = {
    "address": "MAC address",
    "interface": "MAC address",
    "uuid": "UUID",
    "digest": "UUID",
    "ipv4": "IP address",
    "ipv6": "IP address",
    "host": "host name",
    "serial": "serial number",
    "labelled": "serial number",
    "user": "user name",
    "home": "user name",
    "secret": "password or key",
    "login": "password or key",
    "mail": "e-mail address",
}
_ANYWHERE = (
    rb"(?<![0-9a-f-])(?P<uuid>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?![0-9a-f])",
    rb"(?<![0-9a-f])(?P<address>[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5,})(?![0-9a-f])",
    rb"(?<![0-9a-z])(?:en|wl|ww|et)x(?P<interface>[0-9a-f]{12})(?![0-9a-f])",
    rb"(?<![0-9a-f])(?P<digest>[0-9a-f]{32})(?![0-9a-f])",
)
# Only where people and programs write: a kernel's value may look like an address without being one.
_SECRET = (
    rb"(?<![\w.-])[\w.-]{0,40}?(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|credential|private[_-]?key|psk|ssid)"
    rb"[\w.-]{0,40}[\"']?[ \t]*[=:][ \t]*(?P<secret>\"[^\"\n]*\"?|'[^'\n]*'?|[^\s,;\"']+)"
)
# "serial S5GXNX0R123456", "S/N: X1", "SerialNumber: 0123456"; a serial port's number has no such form.
_LABELLED = (
    rb"(?<![\w./-])(?:serial(?:[ _-]?(?:number|num|no)\.?)?(?:[ \t]*[=:#][ \t]*|[ \t]+)|s/n[ \t]*[=:#]?[ \t]*)"
    rb"(?P<labelled>(?=[\w-]*\d)[\w-]{5,})(?![\w./-]*[/:])"
)
_LOGIN = rb"(?<=://)(?P<login>[^/\s:@]+:[^/\s@]+)(?=@)"
_MAIL = (
    rb"(?<![\w.+-])(?P<mail>[\w.+-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*\."
    rb"(?!(?:service|socket|timer|target|mount|device|slice|scope|conf)\b)[a-z]{2,})"
)
_HOME = rb"(?<=/home/)(?P<home>[^/\s:;,\"']+)"
_IPV4 = (
    rb"(?<![\w.])(?P<ipv4>(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d))"
    rb"(?![\w]|\.\d)"
)
_IPV6 = (
    rb"(?<![\w:.])(?P<ipv6>(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|(?:[0-9a-f]{1,4}:){1,6}(?::[0-9a-f]{1,4}){1,6}"
    rb"|(?:[0-9a-f]{1,4}:){1,7}:)(?![\w:])"
)
_TELLING_NOTHING = re.compile(rb"0\.0\.0\.0|127\..*|255\..*|(?:(?:00|ff)[:-]?)+|0[0:-]*", re.IGNORECASE)

# What the kernel log is asked for: everything around PCI devices, interrupts, clocks and NPUs, and only that.
_KERNEL_LOG = re.compile(
    r"pci|aer\b|msi|irq|interrupt|iommu|smmu|\bits\b|gic|axcl|ax_|ax650|hailo|npu|xdna|apex|gasket|cpufreq|opp\b|thermal"
    r"|throttl|cpu\d|smp:|cma\b|rcu.*stall|hung task|voltage"
    r"|[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]",
    re.IGNORECASE,
)
_NOT_THE_LOG = re.compile(r"command line|usb |\busb\d", re.IGNORECASE)  # the command line is in the bundle, cleaned


def kernel_lines(log: str, most: int = 4000) -> str:
    """Return the lines of a kernel log that matter to PCI devices, interrupts and clocks; the last MOST of them."""
    lines = [
        line
        for line in log.splitlines()
        if (_KERNEL_LOG.search(line) or may_tell(line)) and not _NOT_THE_LOG.search(line)
    ]
    return "".join(line + "\n" for line in lines[-most:])


def vocabulary(paths: Iterable[str], contents: Dict[str, bytes]) -> Set[str]:
    """Return the words that kernel and board use for themselves, in lower case.

    A host that is called "cm3588", or "cpu", gives nothing away by them, and to replace them would change what is told.
    """
    words = set(_WORDS.split())
    for path in paths:
        if path.startswith(("/proc/", "/sys/")) and not path.startswith("/proc/irq/"):
            words.update(part.lower() for part in path.split("/"))
            words.update(_WORD.findall(path.lower()))
    for path, data in contents.items():
        if _WORD_FILES.fullmatch(path):
            text = data.decode("utf-8", "replace").lower()
            words.update(text.replace("\0", " ").split())
            words.update(_WORD.findall(text))
    return words


def _is_prose(path: str) -> bool:
    return not path.startswith(("/proc/", "/sys/")) or path.endswith(("/cmdline", "/environ"))


class Scrubber:
    """Replaces what identifies a host; ``counts`` says how often, by kind.

    A host name of one character or of digits alone cannot be told from other text, and is not looked for.
    """

    def __init__(self, identity: Identity, words: Set[str]) -> None:
        self.counts: Dict[str, int] = {}
        self._names: Dict[Tuple[str, bytes], int] = {}
        known = []
        for kind, values in (("serial", identity.serials), ("host", identity.hosts), ("user", identity.users)):
            chosen = {value for value in values if len(value) > 1 and value.lower() not in words}
            if kind != "serial":
                chosen = {value for value in chosen if not value.isdigit()}
            addresses = {value for value in chosen if re.fullmatch("(?:[0-9a-f]{2}[:-]){5,}..", value)}
            chosen |= {re.sub("[:-]", "", value) for value in addresses}
            if chosen:
                longest_first = sorted(chosen, key=lambda value: (-len(value), value))
                listed = b"|".join(re.escape(value.encode("utf-8", "surrogateescape")) for value in longest_first)
                known.append(b"(?<![0-9a-z])(?P<%s>%s)(?![0-9a-z])" % (kind.encode(), listed))
        self._kernel = self._compiled([*_ANYWHERE, *known])
        self._prose = self._compiled([_SECRET, _LABELLED, _LOGIN, *_ANYWHERE, *known, _MAIL, _HOME, _IPV4, _IPV6])

    @staticmethod
    def _compiled(rules: List[bytes]) -> Pattern[bytes]:
        return re.compile(b"|".join(rules), re.IGNORECASE)

    def _number(self, kind: str, value: bytes) -> int:
        """Return the number of a value among those of its kind: 1, 2, ... in the order of their appearance."""
        key = (kind, value.lower())
        if key not in self._names:
            self._names[key] = sum(1 for known, _value in self._names if known == kind) + 1
        return self._names[key]

    def _replacement(self, rule: str, value: bytes) -> bytes:
        bare = re.sub(b"[:-]", b"", value)
        kind = _KINDS[rule]
        if rule in ("secret", "login", "mail"):
            quote = value[:1] if value[:1] in (b'"', b"'") else b""
            return quote + REMOVED + quote
        if rule in ("uuid", "digest", "address", "interface"):
            digits = b"%0*x" % (len(bare), self._number(kind, bare))
            if rule in ("digest", "interface"):
                return digits
            ends = (8, 12, 16, 20) if rule == "uuid" else range(2, len(digits), 2)
            between = b"-" if rule == "uuid" else value[2:3]
            for done, end in enumerate(ends):
                digits = digits[: end + done] + between + digits[end + done :]
            return digits
        if rule in ("serial", "labelled"):
            if re.fullmatch(b"[0-9a-f:-]+", value, re.IGNORECASE):
                return b"%0*x" % (len(bare), self._number(kind, bare))
            return b"serial-%d" % self._number(kind, value)
        number = self._number(kind, value)
        if rule == "ipv4":
            return b"198.18.%d.%d" % (number >> 8 & 0xFF, number & 0xFF)  # RFC 2544: nobody's
        if rule == "ipv6":
            return b"2001:db8::%x" % (number & 0xFFFF)  # RFC 3849
        return b"%s-%d" % (b"host" if rule == "host" else b"user", number)

    def _replace(self, match: Match[bytes]) -> bytes:
        rule = match.lastgroup or ""
        value = match.group(rule)
        if _TELLING_NOTHING.fullmatch(value):
            return match.group()
        self._count(_KINDS[rule])
        start, end = match.start(rule) - match.start(), match.end(rule) - match.start()
        whole = match.group()
        return whole[:start] + self._replacement(rule, value) + whole[end:]

    def _count(self, kind: str, times: int = 1) -> None:
        if times:
            self.counts[kind] = self.counts.get(kind, 0) + times

    def text(self, data: bytes, prose: bool = True) -> bytes:
        """Return DATA without what identifies the host."""
        return (self._prose if prose else self._kernel).sub(self._replace, data)

    def path(self, path: str, target: Optional[str] = None) -> str:
        """Return a path, or the TARGET of the link there, without what identifies the host."""
        data = (path if target is None else target).encode("utf-8", "surrogateescape")
        return self.text(data, _is_prose(path)).decode("utf-8", "surrogateescape")

    def content(self, path: str, data: bytes) -> bytes:
        """Return the content of the file at PATH without what identifies the host."""
        if _CONFIG.fullmatch(path):
            return self._config(data)
        if _BINARY.fullmatch(path):
            return data
        if _IDENTITY_FILES.fullmatch(path):
            self._count("serial number", 1 if data.strip(b"\0 \n") else 0)
            value = data.strip(b"\0 \n")
            return b"serial-%d\n" % self._number("serial number", value) if value else data
        if _COMM.fullmatch(path) and not _OUR_PROCESSES.fullmatch(data):
            self._count("process")
            return REMOVED + b"\n"
        special: Optional[Callable[[bytes], bytes]] = None
        if _CMDLINE.fullmatch(path):
            special = self._command_line
        elif _MOUNTS.fullmatch(path):
            special = self._mounts
        elif _ENVIRON.fullmatch(path):
            special = self._environment
        elif path == "/proc/cpuinfo":
            special = self._cpuinfo
        elif path == "/proc/version":
            special = self._version
        elif path == "/var/lib/dpkg/status":
            special = self._packages
        elif path == "/proc/modules":
            special = self._modules
        elif path.endswith("/ledger.json"):
            special = self._ledger
        return self.text(data if special is None else special(data), _is_prose(path))

    def _config(self, data: bytes) -> bytes:
        """Zero the Device Serial Number capability of a configuration space; it holds a MAC address, often."""
        cleaned = bytearray(data)
        for number, offset in decode_config(data).extended:
            if number == EXT_CAP_DSN and any(data[offset + 4 : offset + 12]):
                cleaned[offset + 4 : offset + 12] = bytes(len(cleaned[offset + 4 : offset + 12]))
                self._count("serial number")
        return bytes(cleaned)

    def _command_line(self, data: bytes) -> bytes:
        words = []
        for word in _PARAMETER.findall(data.replace(b"\0", b" ")):
            name, equals, _value = word.partition(b"=")
            if _HARMLESS.fullmatch(name):
                words.append(word)
                continue
            self._count("boot parameter")
            words.append(name + b"=" + REMOVED if equals else REMOVED)
        return b" ".join(words) + b"\n"

    def _mounts(self, data: bytes) -> bytes:
        """Keep the mounts that say how /sys and /proc can be used; all others are the user's business."""
        kept = []
        for line in data.splitlines(keepends=True):
            fields = line.split(b" ")
            mine = len(fields) > 3 and (fields[1] == b"/" or re.match(rb"/(?:sys|proc|run|dev)(?:/|$)", fields[1]))
            if not mine:
                self._count("mount")
                continue
            if b"/" in fields[0]:
                fields[0] = REMOVED
            # The other options may name a server, an address or a user's directory, and nobody reads them.
            fields[3] = b"ro" if b"ro" in fields[3].split(b",") else b"rw"
            kept.append(b" ".join(fields))
        return b"".join(kept)

    def _environment(self, data: bytes) -> bytes:
        words = [word for word in data.split(b"\0") if word]
        kept = [word + b"\0" for word in words if word.startswith(b"container=")]
        self._count("environment variable", len(words) - len(kept))
        return b"".join(kept)

    def _cpuinfo(self, data: bytes) -> bytes:
        cleaned, times = re.subn(rb"(?m)^(Serial\s*:\s*)(\S*[1-9A-Za-z]\S*)", rb"\g<1>0000000000000000", data)
        self._count("serial number", times)
        return cleaned

    def _version(self, data: bytes) -> bytes:
        return re.sub(rb"\([^()\s]+@[^()\s]+\)", b"(" + REMOVED + b")", data)

    def _modules(self, data: bytes) -> bytes:
        return re.sub(rb"0x[0-9a-f]{8,16}", lambda match: b"0x" + b"0" * (len(match.group()) - 2), data)

    def _packages(self, data: bytes) -> bytes:
        """Keep the state of the driver's packages; what else is installed is the user's business."""
        kept = []
        for stanza in data.decode("utf-8", "replace").split("\n\n"):
            lines = [line for line in stanza.splitlines() if re.match("(?:Package|Status|Version|Architecture):", line)]
            if lines and lines[0].startswith("Package:") and is_driver_package(lines[0][8:].strip()):
                kept.append("".join(line + "\n" for line in lines))
            else:
                self._count("package", 1 if lines else 0)
        return "\n".join(kept).encode("utf-8")

    def _ledger(self, data: bytes) -> bytes:
        """Keep what was recorded of values; of files that stood there before, only that there were some."""
        try:
            document: Any = json.loads(data.decode("utf-8"))
            for entry in document["entries"]:
                if isinstance(entry.get("state"), dict) and entry["state"].get("content") is not None:
                    entry["state"]["content"] = None
                    self._count("file")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._count("file")
            return b"{}\n"  # damaged: nobody knows what is in it
        return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode("utf-8") + b"\n"
