# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the sources of the layers import and call, read from their syntax trees."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "ansible_collections.edgenpu.tuning.plugins.module_utils"
# Lowest first: a layer may use those before it.
LAYERS = ("observe", "decide", "act")

# Code that decides gets everything handed in: no file, clock, environment, chance or network can be reached from here.
PURE_MODULES = {
    "__future__",
    "bisect",
    "collections",
    "collections.abc",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "statistics",
    "string",
    "textwrap",
    "typing",
}
IMPURE_CALLS = {"open", "input", "exec", "eval", "compile", "globals", "breakpoint"}

# Whoever needs a command gets a runner handed in, and whoever has something to say returns it.
RUNNING_MODULES = {"subprocess", "multiprocessing", "asyncio", "pty", "popen2", "_posixsubprocess", "runpy"}
RUNNING_CALLS = {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp"}
# An import that the syntax tree does not show would slip through everything here.
IMPORTING_CALLS = {"__import__", "import_module", "exec_module", "load_module"}
PRINTING_CALLS = {"print", "sys.stdout.write", "sys.stderr.write", "sys.__stdout__.write", "sys.__stderr__.write"}

WRITING_CALLS = {
    "chmod",
    "chown",
    "fchmod",
    "fchown",
    "ftruncate",
    "lchown",
    "link",
    "makedirs",
    "mkdir",
    "mkfifo",
    "mknod",
    "pwrite",
    "remove",
    "removedirs",
    "rename",
    "renames",
    "replace",
    "rmdir",
    "sendfile",
    "setxattr",
    "symlink",
    "truncate",
    "unlink",
    "utime",
    "write",
    "writev",
}


class Import(NamedTuple):
    """One imported name: ``from module import name``, or ``import module`` with an empty name."""

    line: int
    module: str
    name: str


class Source:
    """A Python file of the collection, parsed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = ast.parse(path.read_text(encoding="utf-8"), str(path))

    def imports(self, package: str = "") -> Iterator[Import]:
        """Yield every import, those inside functions and under TYPE_CHECKING too. PACKAGE resolves relative ones."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(node.lineno, alias.name, "")
            elif isinstance(node, ast.ImportFrom):
                base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                module = ".".join([*base, *([node.module] if node.module else [])])
                for alias in node.names:
                    yield Import(node.lineno, module, alias.name)

    def calls(self) -> Iterator[tuple[int, str, ast.Call]]:
        """Yield line, dotted name and node of every call."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node.lineno, dotted(node.func), node


def dotted(node: ast.AST) -> str:
    """Return "os.path.join" for the node of that expression, with "?" for what is not a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


def layer_violations(source: Source, layer: str) -> list[str]:
    """Return what in SOURCE breaks the rules of LAYER, a sentence each."""
    where = f"{layer}/{source.path.name}"
    broken = [f"{where}:{found.line}: {why}" for found, why in _import_violations(source, layer)]
    for line, name, node in source.calls():
        last = name.rpartition(".")[2]
        if name in PRINTING_CALLS:
            broken.append(f"{where}:{line}: prints ({name})")
        if name.startswith("os.") and (last in RUNNING_CALLS or last.startswith(("exec", "spawn"))):
            broken.append(f"{where}:{line}: runs a program ({name})")
        if last in IMPORTING_CALLS:
            broken.append(f"{where}:{line}: hides an import ({name})")
        if layer == "decide" and name in IMPURE_CALLS:
            broken.append(f"{where}:{line}: {name}() reaches out of what was handed in")
        if layer == "observe" and (_is_writing(name, last) or (name == "open" and not _opens_for_reading(node))):
            broken.append(f"{where}:{line}: writes ({name})")
    return broken


def _import_violations(source: Source, layer: str) -> Iterator[tuple[Import, str]]:
    for found in source.imports(f"{PACKAGE}.{layer}"):
        full = f"{found.module}.{found.name}" if found.name else found.module
        if full == PACKAGE or full.startswith(f"{PACKAGE}."):
            room = full[len(PACKAGE) + 1 :].split(".")[0]
            if room not in LAYERS[: LAYERS.index(layer) + 1]:
                yield found, f"{layer} must not import {room or 'all of module_utils'}"
            elif layer == "decide" and room == "observe":
                yield from _reading_violations(source, found)
            continue
        top = found.module.split(".")[0]
        if top not in sys.stdlib_module_names:
            yield found, f"{found.module} is neither the standard library nor a layer"
        elif top in RUNNING_MODULES:
            yield found, f"{found.module} runs programs"
        elif layer == "decide" and found.module not in PURE_MODULES:
            yield found, f"{found.module} is not among the modules that a decision may use"


def _is_writing(name: str, last: str) -> bool:
    return (name.startswith(("os.", "shutil.")) and last in WRITING_CALLS) or last in ("write_text", "write_bytes")


def _opens_for_reading(node: ast.Call) -> bool:
    modes = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "mode")]
    return all(isinstance(mode, ast.Constant) and not set(str(mode.value)) & set("wax+") for mode in modes)


def _reading_violations(source: Source, found: Import) -> Iterator[tuple[Import, str]]:
    """Yield FOUND if it brings into decide more than a type or a pure function of observe."""
    directory = source.path.parent.parent / "observe"
    name = found.module.rpartition(".")[2]
    if not found.name or name == "observe":
        yield found, "decide must name what it takes from observe: a whole module brings its readers along"
        return
    if found.name in readers(Source(directory / f"{name}.py")):
        yield found, f"{found.name} reads the system: decide takes types and pure functions from observe"


def readers(source: Source) -> set[str]:
    """Return the names in a file of observe that read the system.

    That is Root, whatever takes a Root or touches a module that is not pure, and whatever uses one of those.
    """
    impure = {"Root", "open"} | {
        found.name or found.module.split(".")[0]
        for found in source.imports()
        if found.module not in PURE_MODULES | {"struct", "shlex", "errno"} and not found.module.startswith(PACKAGE)
    }
    uses = {
        node.name: {
            inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load)
        }
        for node in source.tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    while True:
        more = {name for name, used in uses.items() if used & impure} - impure
        if not more:
            return impure
        impure |= more
