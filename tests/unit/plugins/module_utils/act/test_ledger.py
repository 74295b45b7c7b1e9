# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import errno
import fcntl
import json
import os
import pathlib
import stat
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Dict, Iterator, List

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import agent
from ansible_collections.edgenpu.tuning.plugins.module_utils.act import ledger as ledger_module
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import (
    LOCK_PATH,
    PATH,
    SHARED,
    Entry,
    Ledger,
    Locked,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import _UNIT_TEXT as UNIT_TEXT
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import FileState, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

FILE = "/etc/theirs.conf"


@pytest.fixture(name="sink")
def fixture_sink(tree: Tree) -> Sink:
    tree.file("/var/lib/.keep")
    return Sink(tree.root)


def reread(sink: Sink) -> Ledger:
    return Ledger(sink)


class TestRoundTrip:
    def test_values(self, sink: Sink) -> None:
        ledger = Ledger(sink)
        ledger.remember_value("irq_affinity", "interrupt", "0003:31:00.0#0", "0-7", hosts.BOOT)
        ledger.remember_value("governor", "governor", "policy4", None, None)
        ledger.save()
        assert reread(sink).entries() == [
            Entry("irq_affinity", "interrupt", "0003:31:00.0#0", "0-7", hosts.BOOT),
            Entry("governor", "governor", "policy4"),
        ]

    @pytest.mark.parametrize(
        "state",
        [
            FileState(),
            FileState(b"", None, 0o644, 0, 0),
            FileState(bytes(range(256)), None, 0o6755, 1000, 65534),
            FileState(None, "../there", 0o777, 0, 0),
            FileState(None, os.fsdecode(b"latin \xe9"), 0o777, 0, 0),
        ],
    )
    def test_files(self, sink: Sink, state: FileState, monkeypatch: pytest.MonkeyPatch) -> None:
        """Content is bytes: a file of another encoding comes back byte for byte, as does a link's target."""
        monkeypatch.setattr(sink, "state", lambda path: state)
        ledger = Ledger(sink)
        ledger.remember_file("governor", FILE)
        ledger.save()
        [entry] = [entry for entry in reread(sink).entries() if entry.kind == "file"]
        assert entry == Entry("governor", "file", FILE, state=state)

    def test_pending(self, sink: Sink) -> None:
        ledger = Ledger(sink)
        ledger.set_pending(["/b", "/a", "/b"])
        ledger.save()
        assert reread(sink).pending == ["/a", "/b"]
        ledger.set_pending([])
        ledger.save()
        assert reread(sink).pending == []
        assert not sink.root.exists(PATH)

    def test_mode(self, sink: Sink, tree: Tree) -> None:
        """It may hold what others must not read."""
        ledger = Ledger(sink)
        ledger.remember_made("tree", "/x")
        ledger.save()
        assert stat.S_IMODE((tree.path / PATH[1:]).stat().st_mode) == 0o600

    def test_order(self, sink: Sink) -> None:
        """Files are given back in the reverse order of writing."""
        ledger = Ledger(sink)
        for name in ("/b", "/c", "/a"):
            ledger.remember_file("governor", name)
        ledger.save()
        assert [entry.id for entry in reread(sink).entries()] == ["/b", "/c", "/a"]


class TestFirstOriginalWins:
    def test_value(self, sink: Sink) -> None:
        ledger = Ledger(sink)
        for value in ("0-7", "4"):
            ledger.remember_value("irq_affinity", "interrupt", "x#0", value, hosts.BOOT)
        assert ledger.value("irq_affinity", "interrupt", "x#0", hosts.BOOT) == "0-7"

    def test_value_of_an_older_boot_is_void(self, sink: Sink) -> None:
        ledger = Ledger(sink)
        ledger.remember_value("irq_affinity", "interrupt", "x#0", "0-7", "older")
        assert ledger.value("irq_affinity", "interrupt", "x#0", hosts.BOOT) is None
        ledger.remember_value("irq_affinity", "interrupt", "x#0", "0-3", hosts.BOOT)
        assert ledger.entries() == [Entry("irq_affinity", "interrupt", "x#0", "0-3", hosts.BOOT)]

    def test_file(self, sink: Sink, tree: Tree) -> None:
        tree.file(FILE, "theirs")
        ledger = Ledger(sink)
        ledger.remember_file("governor", FILE)
        tree.file(FILE, "ours")
        ledger.remember_file("governor", FILE)
        ledger.save()
        again = reread(sink)
        again.remember_file("governor", FILE)
        [entry] = again.entries()
        assert entry.state is not None
        assert entry.state.content == b"theirs"

    def test_file_that_two_roles_want(self, sink: Sink) -> None:
        """What the second role finds is ours already."""
        ledger = Ledger(sink)
        ledger.remember_file("governor", FILE)
        ledger.remember_file("irq_affinity", FILE)
        assert [entry.role for entry in ledger.entries(kind="file")] == ["governor"]

    def test_values_are_told_apart(self, sink: Sink) -> None:
        ledger = Ledger(sink)
        ledger.remember_value("irq_affinity", "interrupt", "x#0", "0", hosts.BOOT)
        ledger.remember_value("irq_affinity", "interrupt", "x#1", "1", hosts.BOOT)
        ledger.remember_value("governor", "interrupt", "x#0", "2", hosts.BOOT)
        assert [entry.value for entry in ledger.entries()] == ["0", "1", "2"]
        assert [entry.value for entry in ledger.entries("governor")] == ["2"]
        assert ledger.entries("governor", "file") == []


class TestDirectories:
    def test_missing_ones_are_recorded(self, sink: Sink) -> None:
        ledger = Ledger(sink)
        ledger.remember_file("governor", "/etc/a/b/file")
        assert [entry.id for entry in ledger.entries(SHARED, "directory")] == ["/etc", "/etc/a", "/etc/a/b"]

    def test_those_that_are_there_are_not(self, sink: Sink, tree: Tree) -> None:
        tree.file("/etc/a/.keep")
        ledger = Ledger(sink)
        ledger.remember_file("governor", "/etc/a/file")
        assert ledger.entries(kind="directory") == []

    def test_made_by_us_before(self, sink: Sink, tree: Tree) -> None:
        """A directory that stands because we made it remains one that we made."""
        ledger = Ledger(sink)
        ledger.remember_file("governor", "/etc/a/file")
        tree.file("/etc/a/file")
        ledger.remember_file("irq_affinity", "/etc/a/other")
        assert [entry.id for entry in ledger.entries(kind="directory")] == ["/etc", "/etc/a"]


class TestSave:
    def test_empty_ledger_leaves_nothing(self, sink: Sink, tree: Tree) -> None:
        ledger = Ledger(sink)
        ledger.save()
        assert not (tree.path / "var/lib/edgenpu-tuning").exists()
        ledger.remember_made("tree", "/x")
        ledger.save()
        assert sink.root.exists(PATH)
        again = reread(sink)
        again.forget(again.entries()[0])
        again.save()
        assert not (tree.path / "var/lib/edgenpu-tuning").exists()
        assert (tree.path / "var/lib").exists()

    def test_somebody_else_s_file_beside_it_stays(self, sink: Sink, tree: Tree) -> None:
        ledger = Ledger(sink)
        ledger.remember_made("tree", "/x")
        ledger.save()
        tree.file("/var/lib/edgenpu-tuning/notes", "theirs")
        ledger.forget(ledger.entries()[0])
        ledger.save()
        assert os.listdir(str(tree.path / "var/lib/edgenpu-tuning")) == ["notes"]

    def test_unchanged_is_not_written(self, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
        ledger = Ledger(sink)
        ledger.remember_value("governor", "governor", "policy4", "schedutil", hosts.BOOT)
        ledger.save()
        monkeypatch.setattr(sink, "put", lambda *args: pytest.fail("written"))
        ledger.save()
        ledger.remember_value("governor", "governor", "policy4", "performance", hosts.BOOT)
        ledger.forget(Entry("governor", "governor", "policy6"))
        ledger.set_pending([])
        ledger.save()
        again = reread(sink)
        again.remember_value("governor", "governor", "policy4", "performance", hosts.BOOT)
        again.save()

    def test_killed_while_saving(self, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
        ledger = Ledger(sink)
        ledger.remember_value("governor", "governor", "policy4", "schedutil", hosts.BOOT)
        ledger.save()
        before = sink.state(PATH)

        def refuse(source: str, target: str) -> None:
            raise OSError(errno.EIO, "Input/output error", target)

        ledger.remember_value("governor", "governor", "policy6", "schedutil", hosts.BOOT)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
            patch.setattr(os, "rename", refuse)
            ledger.save()
        assert sink.state(PATH) == before
        assert len(reread(sink).entries()) == 1
        ledger.save()
        assert len(reread(sink).entries()) == 2


GOOD: Dict[str, Any] = {
    "schema": 1,
    "pending": ["/x"],
    "entries": [
        {"role": "irq_affinity", "kind": "interrupt", "id": "x#0", "value": "0-7", "boot_id": "b"},
        {
            "role": "shared",
            "kind": "file",
            "id": "/x",
            "state": {"content": "eA==", "target": None, "mode": 420, "uid": 0, "gid": 0},
        },
    ],
}


def changed(at: List[Any], value: Any) -> bytes:
    """Return a ledger with one thing in it replaced."""
    document = copy.deepcopy(GOOD)
    place = document
    for step in at[:-1]:
        place = place[step]
    place[at[-1]] = value
    return json.dumps(document).encode()


DAMAGED = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"schema"',
    b"\xff\xfe",
    b"{}",
    b"[" * 100000,
    b"1" * 5000,
    json.dumps(GOOD)[:-20].encode(),
    changed(["entries"], None),
    changed(["entries"], 5),
    changed(["entries"], [5]),
    changed(["entries"], [None]),
    changed(["entries"], [[]]),
    changed(["pending"], 5),
    changed(["entries", 0, "role"], None),
    changed(["entries", 0, "kind"], 5),
    changed(["entries", 0, "kind"], "file"),
    changed(["entries", 0, "id"], ["x"]),
    changed(["entries", 0, "id"], "x"),
    changed(["entries", 0, "id"], "x#y"),
    changed(["entries", 0, "id"], "x#-1"),
    changed(["entries", 0, "value"], 5),
    changed(["entries", 0, "boot_id"], 5),
    changed(["entries", 0, "unheard_of"], 5),
    changed(["entries", 0], {"role": "irq_affinity", "kind": "interrupt"}),
    changed(["entries", 1, "state"], None),
    changed(["entries", 1, "state"], {}),
    changed(["entries", 1, "state"], []),
    changed(["entries", 1, "state", "content"], "e"),
    changed(["entries", 1, "state", "content"], 5),
    changed(["entries", 1, "state", "content"], "\u00e4"),
    changed(["entries", 1, "state", "target"], 5),
    changed(["entries", 1, "state", "mode"], "0644"),
    changed(["entries", 1, "state", "mode"], None),
    changed(["entries", 1, "state", "uid"], -1),
    changed(["entries", 1, "state", "gid"], 0.5),
]


class TestDamaged:
    def test_the_undamaged_one_is_read(self, sink: Sink, tree: Tree) -> None:
        """What the cases below are made from."""
        tree.file(PATH, json.dumps(GOOD))
        assert [entry.id for entry in Ledger(sink).entries()] == ["x#0", "/x"]

    @pytest.mark.parametrize("raw", DAMAGED, ids=lambda raw: raw[-60:].decode("ascii", "replace"))
    def test_refused_and_left_alone(self, sink: Sink, tree: Tree, raw: bytes) -> None:
        """Whoever took it for empty would record our own values as originals."""
        tree.file(PATH, raw)
        with pytest.raises(WishError) as caught:
            Ledger(sink)
        assert str(caught.value).startswith(PATH + " is damaged (")
        assert str(caught.value).endswith(
            "); nothing was changed; restore it from a backup, or move it away and accept that the originals recorded "
            "in it are lost"
        )
        assert (tree.path / PATH[1:]).read_bytes() == raw

    @pytest.mark.parametrize("schema", [0, 2, "1", None, []])
    def test_of_another_version(self, sink: Sink, tree: Tree, schema: Any) -> None:
        raw = changed(["schema"], schema)
        tree.file(PATH, raw)
        with pytest.raises(WishError) as caught:
            Ledger(sink)
        assert str(caught.value) == (
            "%s has schema %r and this version knows 1; use the version of the collection that wrote it"
            % (PATH, schema)
        )
        assert (tree.path / PATH[1:]).read_bytes() == raw

    def test_of_a_version_that_knew_no_pending_files(self, sink: Sink, tree: Tree) -> None:
        tree.file(PATH, json.dumps({"schema": 1, "entries": GOOD["entries"]}))
        assert Ledger(sink).pending == []

    def test_not_readable(self, sink: Sink, tree: Tree) -> None:
        (tree.path / PATH[1:]).mkdir(parents=True)
        with pytest.raises(WishError) as caught:
            Ledger(sink)
        assert str(caught.value) == PATH + " cannot be read; run as root"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**7) | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "kind", "id", "state", "mode", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)
STATE = st.fixed_dictionaries(
    {},
    optional={
        "content": st.sampled_from(["", "eA==", "e"]) | JSON,
        "target": st.text(max_size=4) | JSON,
        "mode": st.integers(0, 0o7777) | JSON,
        "uid": st.integers(0, 9) | JSON,
        "gid": st.integers(0, 9) | JSON,
    },
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["irq_affinity", "governor", "shared"]) | JSON,
        "kind": st.sampled_from(["interrupt", "governor", "file", "directory", "tree"]) | JSON,
        "id": st.sampled_from(["/x", "x#0", "policy4"]) | JSON,
        "value": JSON,
        "boot_id": JSON,
        "state": STATE | JSON,
    },
)
DOCUMENT = st.fixed_dictionaries(
    {"schema": st.just(1)}, optional={"entries": st.lists(ENTRY, max_size=3) | JSON, "pending": JSON}
)


@hosts.STEADY
@given(
    st.binary(max_size=64)
    | JSON.map(lambda data: json.dumps(data).encode())
    | DOCUMENT.map(lambda data: json.dumps(data).encode())
)
@example(json.dumps(GOOD).encode())
def test_any_file_is_a_ledger_or_refused(raw: bytes) -> None:
    """And one that is read can be saved, read again, and says the same."""
    with tempfile.TemporaryDirectory() as directory:
        tree = Tree(pathlib.Path(directory))
        tree.file(PATH, raw)
        sink = Sink(tree.root)
        try:
            ledger = Ledger(sink)
        except WishError as error:
            assert "\n" not in str(error)
            return
        ledger.remember_made("tree", "/another")
        ledger.save()
        again = Ledger(sink)
        assert (again.entries(), again.pending) == (ledger.entries(), ledger.pending)


class TestLock:
    def test_held_and_let_go(self, sink: Sink, tree: Tree) -> None:
        where = tree.path / LOCK_PATH[1:]
        with Locked(sink):
            with open(str(where), "rb") as other, pytest.raises(OSError, match="unavailable"):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert stat.S_IMODE(where.stat().st_mode) == 0o600
        with open(str(where), "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_let_go_after_an_error(self, sink: Sink, tree: Tree) -> None:
        with pytest.raises(ValueError, match="inside"), Locked(sink):
            raise ValueError("inside")
        with open(str(tree.path / LOCK_PATH[1:]), "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_a_link_in_its_place_is_not_followed(self, sink: Sink, tree: Tree) -> None:
        tree.file("/etc/theirs", "x")
        tree.link(LOCK_PATH, str(tree.path / "etc/theirs"))
        with pytest.raises(OSError), Locked(sink):
            pytest.fail("locked")

    def test_nobody_else_may_make_it(self) -> None:
        """In a directory that everybody may write to, anybody could make the file first and hold us up."""
        assert os.path.dirname(ledger_module.LOCK_PATH) == "/run"

    def test_another_lock(self, sink: Sink) -> None:
        with Locked(sink), Locked(sink, "/run/another.lock"):
            assert sink.root.exists("/run/another.lock")

    @pytest.fixture(name="holder")
    def fixture_holder(self, sink: Sink) -> Iterator[subprocess.Popen[bytes]]:
        """Another process, which holds the lock until its input ends."""
        program = (
            "import fcntl, sys\n"
            "handle = open(sys.argv[1], 'w')\n"
            "fcntl.flock(handle, fcntl.LOCK_EX)\n"
            "print(flush=True)\n"
            "sys.stdin.read()\n"
        )
        os.makedirs(os.path.dirname(sink.host_path(LOCK_PATH)), exist_ok=True)
        command = [sys.executable, "-c", program, sink.host_path(LOCK_PATH)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            yield process
            process.kill()

    def test_one_that_is_held_is_waited_for(self, sink: Sink, holder: subprocess.Popen[bytes]) -> None:
        assert holder.stdin is not None
        threading.Timer(0.3, holder.stdin.close).start()
        began = time.monotonic()
        with Locked(sink, limit_s=60):
            assert 0.2 < time.monotonic() - began < 50
            with open(sink.host_path(LOCK_PATH), "rb") as other, pytest.raises(OSError, match="unavailable"):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with open(sink.host_path(LOCK_PATH), "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_holder_that_hangs_is_named(self, tree: Tree, sink: Sink, holder: subprocess.Popen[bytes]) -> None:
        """With what the kernel of this machine says of its locks."""
        for path in ("/proc/locks", "/proc/%d/comm" % holder.pid):
            tree.file(path, pathlib.Path(path).read_bytes())
        name = pathlib.Path("/proc/%d/comm" % holder.pid).read_text("utf-8").strip()
        with pytest.raises(WishError) as refused, Locked(sink, limit_s=0.2):
            pytest.fail("locked")
        assert str(refused.value) == (
            "/run/edgenpu-tuning.lock could not be locked within 0.2 s, so nothing was changed: process %d (%s) holds "
            "it; if that hangs (`fuser -v /run/edgenpu-tuning.lock` shows it), end it and run again"
            % (holder.pid, name)
        )

    def test_holder_that_cannot_be_seen(self, sink: Sink, holder: subprocess.Popen[bytes]) -> None:
        with pytest.raises(WishError, match=r"within 0\.1 s, so nothing was changed: another process holds it"):
            Locked(sink, limit_s=0.1).__enter__()

    def test_who_gave_up_does_not_get_it_later(self, sink: Sink, holder: subprocess.Popen[bytes]) -> None:
        """A thread still waits in the kernel, and the next one must not wait for that."""
        threads, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
        with pytest.raises(WishError), Locked(sink, limit_s=0.1):
            pytest.fail("locked")
        [waiting] = set(threading.enumerate()) - threads
        assert waiting.daemon, "the process could not end"
        holder.kill()
        with Locked(sink, limit_s=60):
            pass
        waiting.join(60)
        assert not waiting.is_alive()
        assert len(os.listdir("/proc/self/fd")) == files

    def test_works_in_a_thread_that_is_not_the_main_one(self, sink: Sink, holder: subprocess.Popen[bytes]) -> None:
        """Where a signal's handler could not be set."""
        refused: List[WishError] = []

        def lock() -> None:
            try:
                Locked(sink, limit_s=0.1).__enter__()
            except WishError as error:
                refused.append(error)

        thread = threading.Thread(target=lock)
        thread.start()
        thread.join()
        assert len(refused) == 1

    def test_a_run_of_the_agent_is_waited_for(self) -> None:
        """As long as its unit lets it run; and the agent itself gives up before systemd ends it without a word."""
        limit_s = int(UNIT_TEXT.partition("TimeoutStartSec=")[2].split()[0])
        assert agent.LOCK_LIMIT_S < limit_s < ledger_module.LOCK_LIMIT_S
