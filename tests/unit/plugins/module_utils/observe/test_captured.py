# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is noted answers as it was read, and a stranger's bundle can do no harm."""

from __future__ import annotations

import gzip
import io
import json
import os
import pathlib
import tarfile
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import captured
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.captured import (
    BundleError,
    CapturedRoot,
    Recorder,
    open_root,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.hosts import STEADY
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

EMPTY: Dict[str, Any] = {"schema": 1, "listed": [], "missing": [], "unread": {}, "devices": []}
PATHS = (
    *("/", "/none", "/none/below", "/ring", "/dangling", "/out", "/empty", "/abs", "/abs/file"),
    *("/sys", "/sys/file", "/sys/file/below", "/sys/a/b/file", "/sys/a/../a/./b/file"),
    *("/sys/by-name/x", "/sys/by-name/x/file"),
)
ASKING: Tuple[Callable[[Root, str], Any], ...] = (
    Root.data,
    Root.names,
    Root.link,
    Root.link_target,
    Root.exists,
    Root.real,
    Root.number,
    Root.mode,
)
QUESTIONS = [(path, asking.__name__) for path in PATHS for asking in ASKING]


def ask(root: Root, at: int) -> Any:
    """Return a root's answer to one of the questions."""
    path, name = QUESTIONS[at]
    return getattr(root, name)(path)


def fill(tree: Tree) -> Tree:
    """Make files, directories and links of every sort."""
    tree.file("/sys/file", "42\n")
    tree.file("/sys/a/b/file", "b")
    (tree.path / "sys/file").chmod(0o444)
    tree.link("/sys/by-name/x", "../a/b")
    tree.link("/abs", "/sys/a/b")
    tree.link("/ring", "ring")
    tree.link("/dangling", "sys/nowhere")
    tree.link("/out", "../../../sys/file")
    (tree.path / "empty").mkdir()
    return tree


@pytest.fixture(name="full")
def fixture_full(tree: Tree) -> Tree:
    return fill(tree)


class TestReplay:
    @pytest.mark.parametrize("at", range(len(QUESTIONS)))
    def test_one_question(self, full: Tree, at: int) -> None:
        """Each is answered from what it alone has noted."""
        recorder = Recorder(str(full.path))
        plain = ask(full.root, at)
        assert ask(recorder, at) == plain, QUESTIONS[at]
        again = CapturedRoot(recorder.captured)
        assert (ask(again, at), again.unread) == (plain, []), QUESTIONS[at]

    def test_all_questions(self, full: Tree) -> None:
        recorder = Recorder(str(full.path))
        told = [ask(recorder, at) for at in range(len(QUESTIONS))]
        again = CapturedRoot(recorder.captured)
        assert [ask(again, at) for at in range(len(QUESTIONS))] == told
        assert again.unread == []

    @STEADY
    @given(st.lists(st.integers(0, len(QUESTIONS) - 1), max_size=6))
    def test_some_questions(self, tmp_path_factory: pytest.TempPathFactory, chosen: List[int]) -> None:
        tree = Tree(tmp_path_factory.mktemp("tree"))
        fill(tree)
        recorder = Recorder(str(tree.path))
        told = [ask(recorder, at) for at in chosen]
        again = CapturedRoot(recorder.captured)
        assert ([ask(again, at) for at in chosen], again.unread) == (told, [])

    def test_beginning_of_a_file(self, full: Tree) -> None:
        """Of which all is noted."""
        recorder = Recorder(str(full.path))
        assert recorder.data("/sys/file", 1) == b"4"
        again = CapturedRoot(recorder.captured)
        assert (again.data("/sys/file", 1), again.data("/sys/file")) == (b"4", b"42\n")

    def test_never_asked_is_unread_not_missing(self, full: Tree) -> None:
        recorder = Recorder(str(full.path))
        recorder.names("/sys")
        recorder.exists("/none")
        again = CapturedRoot(recorder.captured)
        assert again.text("/sys/file") is None  # listed, not read
        assert again.names("/sys/a") == []  # listed, not looked into
        assert again.text("/sys/c/d") is None  # the listing says that there is none
        assert again.text("/none/at/all") is None  # asked for, above
        assert again.text("/etc/hostname") is None  # nobody asked
        assert again.link("/sys/a/driver") is None
        assert again.unread == [
            ("/sys/file", "ENODATA"),
            ("/sys/a", "ENODATA"),
            ("/etc/hostname", "ENODATA"),
            ("/sys/a/driver", "ENODATA"),
        ]

    def test_refused(self, full: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
        listdir = os.listdir

        def refuse(path: str) -> List[str]:
            if path.endswith("/a"):
                raise PermissionError(13, "Permission denied")
            return listdir(path)

        monkeypatch.setattr(os, "listdir", refuse)
        recorder = Recorder(str(full.path))
        assert (recorder.names("/sys/a"), recorder.names("/sys")) == ([], ["a", "by-name", "file"])
        again = CapturedRoot(recorder.captured)
        assert (again.names("/sys/a"), again.unread, again.exists("/sys/a")) == ([], [("/sys/a", "EACCES")], True)

    def test_process_that_ends_meanwhile(self, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("1", "2"):
            tree.file("/proc/%s/comm" % name, name)
        plain = Root.data

        def data(self: Root, path: str, limit: int = -1) -> Optional[bytes]:
            if path == "/proc/2/comm" and (tree.path / "proc/2/comm").exists():
                (tree.path / "proc/2/comm").unlink()
                (tree.path / "proc/2").rmdir()
            return plain(self, path, limit)

        monkeypatch.setattr(Root, "data", data)
        recorder = Recorder(str(tree.path))
        for _time in range(2):
            told = [recorder.data("/proc/%s/comm" % name) for name in recorder.names("/proc")]
        again = CapturedRoot(recorder.captured)
        assert told == [b"1"]
        assert [again.data("/proc/%s/comm" % name) for name in again.names("/proc")] == [b"1", None]
        assert again.unread == []

    def test_every_way_to_ask_is_noted_and_answered(self) -> None:
        """A method that is added to Root has to be added to both, or bundles lack what it asks."""
        resting_on_others = {"text", "number", "walk"}
        asking = {name for name, value in vars(Root).items() if callable(value) and not name.startswith("_")}
        for kind in (Recorder, CapturedRoot):
            assert asking - set(vars(kind)) == resting_on_others

    def test_nothing_can_be_written_below_it(self) -> None:
        root = CapturedRoot(captured.nothing())
        assert not root.is_live
        with pytest.raises(NotADirectoryError):
            os.mkdir(os.path.join(root.path, "x"))


def packed(*members: Tuple[str, bytes, Any], manifest: Any = ...) -> bytes:
    """Return a bundle of (name, tar's type, content or target), with an empty manifest; MANIFEST None: without one."""
    buffer = io.BytesIO()
    manifest = EMPTY if manifest is ... else manifest
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        first = [] if manifest is None else [("manifest.json", tarfile.REGTYPE, json.dumps(manifest).encode())]
        for name, kind, content in [*first, *members]:
            member = tarfile.TarInfo(name)
            member.type = kind
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.linkname = content
                archive.addfile(member)
    return gzip.compress(buffer.getvalue(), mtime=0)


FILE, LINK = tarfile.REGTYPE, tarfile.SYMTYPE
GOOD = packed(("root/sys/file", FILE, b"42\n"), ("root/sys/x", LINK, "file"))


class Place:
    """A directory with one bundle in it, and nothing else when a test is over."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.file = path / "bundle.tar.gz"

    def open(self, data: bytes) -> Root:
        self.file.write_bytes(data)
        return open_root(str(self.file)).root

    def refuse(self, data: bytes) -> str:
        """Return the sentence for a bundle that is not taken."""
        with pytest.raises(BundleError) as caught:
            self.open(data)
        sentence = str(caught.value)
        assert "\n" not in sentence and sentence.isprintable() and len(sentence) < 400
        assert sentence.startswith("%s is " % self.file)
        return sentence[len(str(self.file)) + 1 :]


@pytest.fixture(name="place")
def fixture_place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    yield Place(tmp_path / "in")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] in (
        ["in", "in/bundle.tar.gz", "tmp"],
        ["in", "tmp"],
    ), "nothing is ever written"


class TestBundles:
    def test_good(self, place: Place) -> None:
        root = place.open(GOOD)
        assert (root.number("/sys/x"), root.link("/sys/x"), root.unread) == (42, "file", [])

    def test_repacked_by_a_person(self, place: Place) -> None:
        data = packed(
            ("./root", tarfile.DIRTYPE, b""),
            ("./root/sys/", tarfile.DIRTYPE, b""),
            ("./root/sys/file", FILE, b"42"),
            ("./manifest.json", FILE, json.dumps(EMPTY).encode()),
            ("./notes of mine.txt", FILE, b"hello"),
            manifest=None,
        )
        assert place.open(data).number("/sys/file") == 42

    @pytest.mark.parametrize("cut", [0, 1, 9, 10, 30, len(GOOD) // 2, len(GOOD) - 9, len(GOOD) - 1])
    def test_cut_off(self, place: Place, cut: int) -> None:
        assert place.refuse(GOOD[:cut]).startswith("is damaged or no bundle (")

    def test_bits_turned(self, place: Place) -> None:
        for at in range(0, len(GOOD), 3):
            data = bytearray(GOOD)
            data[at] ^= 0x55
            place.file.write_bytes(bytes(data))
            try:
                root = open_root(str(place.file)).root
            except BundleError as error:
                assert "\n" not in str(error)
            else:
                assert (root.number("/sys/x"), root.unread) == (42, []), "a bit that means nothing"

    @STEADY
    @given(st.data())
    def test_tar_and_manifest_of_any_bytes(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """What is packed well and makes no sense: a sentence or a tree, and nothing else."""
        plain = bytearray(gzip.decompress(GOOD)[:4096])
        for _time in range(data.draw(st.integers(1, 12))):
            plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
        for start in range(0, 4096, 512):  # headers whose checksum is right, or tar would stop at the first
            if data.draw(st.booleans()):
                header = plain[start : start + 512]
                total = sum(header[:148]) + 8 * 32 + sum(header[156:])
                plain[start + 148 : start + 156] = b"%06o\0 " % total
        path = tmp_path_factory.mktemp("any") / "bundle"
        path.write_bytes(gzip.compress(bytes(plain)))
        try:
            root = open_root(str(path)).root
        except BundleError:
            return
        root.data("/sys/x")
        root.names("/")

    @pytest.mark.parametrize(
        "data",
        [
            b"no gzip at all",
            b"\x1f\x8b",
            gzip.compress(b"", mtime=0),  # it stands in the test's name, and that must not depend on the hour
            gzip.compress(b"no tar" * 500, mtime=0),
            gzip.compress(b"\0" * 9999, mtime=0),
        ],
    )
    def test_something_else(self, place: Place, data: bytes) -> None:
        sentence = place.refuse(data)
        assert "is damaged or no bundle (" in sentence or "it has no manifest.json" in sentence

    def test_without_manifest(self, place: Place) -> None:
        assert place.refuse(packed(("root/proc/x", FILE, b""), manifest=None)) == (
            "is no bundle to be read: it has no manifest.json"
        )

    @pytest.mark.parametrize(
        ("manifest", "expected"),
        [
            (dict(EMPTY, schema=2), "its schema is 2, and this version knows 1; use the other version"),
            (dict(EMPTY, schema="\x1b[31m"), "its schema is '\\x1b[31m', and this version knows 1"),
            ([], "its schema is None"),
            ({"schema": 1}, "is damaged or no bundle ("),
            (dict(EMPTY, listed=3), "is damaged or no bundle (listed is no list of paths)"),
            (dict(EMPTY, missing=[3]), "is damaged or no bundle (missing is no list of paths)"),
            (dict(EMPTY, unread=[]), "is damaged or no bundle ("),
            (dict(EMPTY, devices={}), "is damaged or no bundle ("),
        ],
    )
    def test_manifest(self, place: Place, manifest: Any, expected: str) -> None:
        assert expected in place.refuse(packed(manifest=manifest))

    def test_manifest_that_is_none(self, place: Place) -> None:
        for content in (b"", b"{", b"\xff\xfe", b"[" * 100000, b'{"schema": 1e999}'):
            member = ("manifest.json", FILE, content)
            assert place.refuse(packed(member, manifest=None))

    @pytest.mark.parametrize(
        ("member", "expected"),
        [
            (("/etc/passwd", FILE, b"x"), "the name '/etc/passwd' in it leads out of it"),
            (("root/../../x", FILE, b"x"), "the name 'root/../../x' in it leads out of it"),
            (("..", FILE, b"x"), "the name '..' in it leads out of it"),
            (("root/a", LINK, "/etc"), "the link 'root/a' in it leads out of it"),
            (("root/a", LINK, "../x"), "the link 'root/a' in it leads out of it"),
            (("root/sys/a", LINK, "b/../../../root/x"), "the link 'root/sys/a' in it leads out of it"),
            (("root/dev", tarfile.CHRTYPE, ""), "'root/dev' in it is neither file, directory nor link"),
            (("root/dev", tarfile.BLKTYPE, ""), "'root/dev' in it is neither file, directory nor link"),
            (("root/fifo", tarfile.FIFOTYPE, ""), "'root/fifo' in it is neither file, directory nor link"),
            (("root/hard", tarfile.LNKTYPE, "manifest.json"), "'root/hard' in it is neither file, directory nor link"),
            (("root/x\x1b[2J", tarfile.FIFOTYPE, ""), "'root/x\\x1b[2J' in it is neither"),
            (("root/sys/file", FILE, b"again"), "'root/sys/file' is in it twice"),
            # A few hundred bytes of these would take minutes and gigabytes.
            (("root/" + "a/" * 20000 + "x", FILE, b""), "... in it is too long"),
            (("root/" + "a/" * 100 + "x", FILE, b""), "... in it is too long"),
            (("root/" + "a" * 2000, FILE, b""), "... in it is too long"),
            (("root/proc/interrupts", LINK, "./" * 2000000 + "x"), "... in it is too long"),
        ],
    )
    def test_hostile(self, place: Place, member: Tuple[str, bytes, Any], expected: str) -> None:
        assert expected in place.refuse(packed(("root/sys/file", FILE, b"x"), member))

    def test_through_a_link(self, place: Place) -> None:
        """Unpacked, the file would go where the link leads; here a link leads to what is in the bundle."""
        root = place.open(packed(("root/a", LINK, "b"), ("root/a/file", FILE, b"x"), ("root/b/file", FILE, b"y")))
        assert root.text("/a/file") == "y"

    def test_links_by_the_thousand(self, place: Place) -> None:
        members = [("root/%d" % number, LINK, "%d" % (number + 1)) for number in range(2000)]
        assert place.open(packed(*members)).data("/0") is None

    def test_one_file_that_is_too_large(self, place: Place) -> None:
        data = packed(("root/zeros", FILE, bytes((16 << 20) + 1)))
        assert len(data) < 100000
        assert place.refuse(data).endswith("'root/zeros' in it has 16777217 bytes, and 16777216 is the most")

    def test_file_that_says_it_is_large(self, place: Place) -> None:
        member = tarfile.TarInfo("root/zeros")
        member.size = 1 << 40
        data = gzip.compress(gzip.decompress(packed())[:1024] + member.tobuf(tarfile.GNU_FORMAT) + bytes(5000))
        assert place.refuse(data).endswith("has 1099511627776 bytes, and 16777216 is the most")

    def test_many_files_that_are_large_together(self, place: Place) -> None:
        files = [("root/%d" % number, FILE, bytes(15 << 20)) for number in range(5)]
        assert place.refuse(packed(*files)).endswith("it holds more than 64 MB")

    def test_name_of_gigabytes(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """tar keeps long names in members of their own, which are read whole before anybody sees them."""
        monkeypatch.setattr(captured, "_MAX_STREAM_BYTES", 4 << 20)
        member = tarfile.TarInfo("././@LongLink")
        member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
        data = gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(8 << 20))
        assert place.refuse(data).endswith("unpacked it has more than 4 MB")

    def test_long_names_in_a_chain(self, place: Place) -> None:
        link = tarfile.TarInfo("././@LongLink")
        link.type, link.size = tarfile.GNUTYPE_LONGNAME, 2
        data = gzip.compress((link.tobuf(tarfile.GNU_FORMAT) + b"x\0" + bytes(510)) * 20000)
        assert "is damaged or no bundle (" in place.refuse(data)

    def test_million_of_members(self, place: Place) -> None:
        plain = io.BytesIO()
        with gzip.GzipFile(fileobj=plain, mode="wb", compresslevel=1) as zipped:
            member = tarfile.TarInfo("root/sys")
            member.type = tarfile.DIRTYPE
            for _time in range(100):
                zipped.write(member.tobuf() * 10000)
        assert place.refuse(plain.getvalue()).endswith("it holds more than 100000 entries")

    def test_sparse(self, place: Place) -> None:
        member = tarfile.TarInfo("root/holes")
        member.type = tarfile.GNUTYPE_SPARSE
        data = gzip.compress(gzip.decompress(packed())[:1024] + member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        assert "is neither file, directory nor link" in place.refuse(data)


class TestDirectories:
    def test_captured_tree(self, tree: Tree) -> None:
        tree.file("/proc/sys/kernel/osrelease", "6.1")
        opened = open_root(str(tree.path))
        assert (opened.root.text("/proc/sys/kernel/osrelease"), opened.devices) == ("6.1", [])

    def test_live_system(self) -> None:
        assert open_root("/").root.is_live

    def test_neither(self, tmp_path: pathlib.Path) -> None:
        with pytest.raises(BundleError, match=r"it has neither manifest\.json nor proc nor sys in it"):
            open_root(str(tmp_path))

    def test_nothing_there(self, tmp_path: pathlib.Path) -> None:
        with pytest.raises(FileNotFoundError):
            open_root(str(tmp_path / "nowhere"))

    def test_fifo(self, tmp_path: pathlib.Path) -> None:
        os.mkfifo(str(tmp_path / "fifo"))
        with pytest.raises(BundleError, match="it is neither file nor directory"):
            open_root(str(tmp_path / "fifo"))

    @pytest.mark.parametrize("hostile", ["fifo", "link", "absolute"])
    def test_unpacked_and_hostile(self, tmp_path: pathlib.Path, hostile: str) -> None:
        (tmp_path / "manifest.json").write_text(json.dumps(EMPTY))
        (tmp_path / "root/sys").mkdir(parents=True)
        if hostile == "fifo":
            os.mkfifo(str(tmp_path / "root/sys/x"))
        else:
            (tmp_path / "root/sys/x").symlink_to("/etc" if hostile == "absolute" else "../../x")
        with pytest.raises(BundleError, match="'root/sys/x' in it "):
            open_root(str(tmp_path))


def test_a_driver_s_code_is_not_taken(tmp_path: pathlib.Path) -> None:
    """That it is there is told, and that its content is not."""
    place = tmp_path / "lib/modules/6.1/extra"
    place.mkdir(parents=True)
    for name in ("ax.ko", "ax.ko.xz", "modules.dep"):
        (place / name).write_bytes(b"what its maker wrote")
    recorder = Recorder(str(tmp_path))
    for name in ("ax.ko", "ax.ko.xz", "modules.dep"):
        assert recorder.data("/lib/modules/6.1/extra/" + name) == b"what its maker wrote"
    assert set(recorder.captured.files) == {"/lib/modules/6.1/extra/modules.dep"}
    again = CapturedRoot(recorder.captured)
    assert (again.data("/lib/modules/6.1/extra/ax.ko"), again.exists("/lib/modules/6.1/extra/ax.ko")) == (None, True)
    assert again.unread == [("/lib/modules/6.1/extra/ax.ko", "ENODATA")]
