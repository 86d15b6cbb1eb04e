# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file of a Rust crate imports which, read from the ``use`` declarations and paths in its sources.

An import leads to the file that defines the item, through any number of re-exports. Tests are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A module's path in its crate; ``()`` is the root.
Module = tuple[str, ...]

_COMMENT_OR_STRING = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"')
_TESTS = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)?mod \w+(?:;| \{.*\Z)", re.DOTALL)
_USE = re.compile(r"^\s*(?P<public>pub(?:\([^)]*\))?\s+)?use\s+(?P<tree>[^;]+);", re.MULTILINE)
_PATH = re.compile(r"(?<![\w:])(?:crate|super|self)(?:::\w+)+")
_CHILD = re.compile(r"(?<![\w:])(\w+)::\w")
_VISIBILITY = re.compile(r"pub\((?:crate|super|self|in [\w:]+)\)")


@dataclass
class Crate:
    """The modules of one crate, each a file."""

    files: dict[Module, Path]
    _reexports: dict[Module, dict[str, Module]] = field(default_factory=dict)
    _imports: dict[Module, list[Module]] = field(default_factory=dict)

    @classmethod
    def read(cls, source: Path) -> Crate:
        """Reads the crate whose ``src`` folder this is."""
        files: dict[Module, Path] = {}
        for file in sorted(source.rglob("*.rs")):
            path = file.relative_to(source).with_suffix("").parts
            if "tests" in path:
                continue
            if path[-1] in {"mod", "lib", "main"}:
                path = path[:-1]
            files[path] = file
        crate = cls(files)
        for module, file in files.items():
            crate._parse(module, file.read_text())
        return crate

    def edges(self) -> dict[Module, set[Module]]:
        """Returns the modules that each module imports from."""
        return {
            module: {self._definer(path) for path in paths} - {module}
            for module, paths in self._imports.items()
        }

    def _parse(self, module: Module, text: str) -> None:
        text = _TESTS.sub("", _COMMENT_OR_STRING.sub("", text))
        reexports = self._reexports.setdefault(module, {})
        imports = self._imports.setdefault(module, [])
        for use in _USE.finditer(text):
            for path, name in _leaves(use["tree"]):
                absolute = self._absolute(module, path)
                if absolute is not None:
                    imports.append(absolute)
                    if use["public"]:
                        reexports[name] = absolute
        body = _VISIBILITY.sub("", _USE.sub("", text))
        inline = (self._absolute(module, tuple(path.split("::"))) for path in _PATH.findall(body))
        imports.extend(path for path in inline if path is not None)
        children = {(*module, found.group(1)) for found in _CHILD.finditer(body)}
        imports.extend(children & self.files.keys())

    def _absolute(self, module: Module, path: Module) -> Module | None:
        """Returns a path from the crate's root; ``None`` for one into another crate."""
        if path[-1] == "self":
            path = path[:-1]
        if path[:1] == ("crate",):
            return path[1:]
        if path[:1] == ("self",):
            return module + path[1:]
        if path[:1] == ("super",):
            while path[:1] == ("super",):
                module, path = module[:-1], path[1:]
            return module + path
        return module + path if module + path[:1] in self.files else None

    def _definer(self, path: Module) -> Module:
        """Returns the module that defines what a path names."""
        seen: set[tuple[Module, str]] = set()
        while True:
            module = next(path[:n] for n in range(len(path), -1, -1) if path[:n] in self.files)
            name = path[len(module)] if len(path) > len(module) else None
            target = self._reexports[module].get(name) if name else None
            if name is None or target is None or (module, name) in seen:
                return module
            seen.add((module, name))
            path = target + path[len(module) + 1 :]


def _leaves(tree: str, prefix: Module = ()) -> Iterator[tuple[Module, str]]:
    """Yields the paths of a ``use`` tree, each with the name that it gets."""
    head, brace, rest = tree.strip().partition("{")
    if not brace:
        path, _, name = head.partition(" as ")
        parts = prefix + tuple(part.strip() for part in path.split("::"))
        yield parts, name.strip() or parts[-1]
        return
    prefix += tuple(part.strip() for part in head.split("::") if part.strip())
    depth, start = 0, 0
    inner = rest.rstrip()[:-1]
    for at, character in enumerate(inner + ","):
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            if inner[start:at].strip():
                yield from _leaves(inner[start:at], prefix)
            start = at + 1


def cycles(edges: dict[Module, set[Module]]) -> list[set[Module]]:
    """Returns the sets of modules that import each other in a circle, directly or through others."""

    def reachable(start: Module) -> set[Module]:
        found: set[Module] = set()
        waiting = [start]
        while waiting:
            for module in edges[waiting.pop()] - found:
                found.add(module)
                waiting.append(module)
        return found

    from_each = {module: reachable(module) for module in edges}
    components = {
        frozenset(other for other in found if module in from_each[other])
        for module, found in from_each.items()
        if module in found
    }
    return sorted(map(set, components), key=len, reverse=True)
