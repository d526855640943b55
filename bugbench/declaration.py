"""What a detector's file declares, read without running a line of it.

Code of a detector runs in judging processes only: in the harness it could see the truth before it judges.
"""

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bugbench.detector import ORIGINS
from bugbench.names import unknown
from bugbench.plugins import CatalogueError, is_own_oracle, parse
from bugbench.trace import ACCESS


@dataclass(frozen=True)
class Declaration:
    """A detector as its file declares it: what it may see, knobs with defaults, docstring, if it learns, its origin."""

    name: str
    file: Path
    access: frozenset[str]
    knobs: Mapping[str, Any]
    about: str
    learns: bool = False
    origin: str = "practice"


def read_declaration(path: Path) -> Declaration:
    """Read a detector's file.

    Raises:
        CatalogueError: it is not one dataclass derived from Detector, with a method ``diagnose``, a set of known
            accesses, and knobs whose defaults are plain values; or only one of ``extract`` and ``fit`` is there; or
            its origin is unknown.
    """
    try:
        tree = parse(path.read_text())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CatalogueError(f"{path}: {type(error).__name__}: {error}") from error
    found = [n for n in tree.body if isinstance(n, ast.ClassDef) and "Detector" in [_last(base) for base in n.bases]]
    if len(found) != 1:
        raise CatalogueError(f"{path}: a detector's file defines exactly one Detector class, this one {len(found)}")
    body, name = found[0].body, found[0].name
    methods = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    if "dataclass" not in [_last(d) for d in found[0].decorator_list] or "diagnose" not in methods:
        raise CatalogueError(f"{path}: {name} must be a @dataclass with a method diagnose(self, trace)")
    if ("fit" in methods) != ("extract" in methods):
        raise CatalogueError(f"{path}: {name} learns by two methods: extract(self, trace) and fit(self, examples)")
    access, origin = {"curves"}, "practice"
    knobs = {}
    for node in body:
        if isinstance(node, ast.Assign) and [_last(target) for target in node.targets] == ["access"]:
            access = _plain(node.value, path, "access")
        elif isinstance(node, ast.Assign) and [_last(target) for target in node.targets] == ["origin"]:
            origin = _plain(node.value, path, "origin")
        elif isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
            knob = _last(node.target)
            if node.value is None:
                raise CatalogueError(f"{path}: the knob {knob} needs a default")
            knobs[knob] = _plain(node.value, path, f"the knob {knob}")
        elif isinstance(node, ast.AnnAssign) and _last(node.target) == "access" and node.value is not None:
            access = _plain(node.value, path, "access")
    if not isinstance(access, set):
        raise CatalogueError(f"{path}: access is a set such as {{'curves'}}, not {access!r}")
    for item in sorted(access, key=str):
        if item not in ACCESS and not (item == "truth" and is_own_oracle(path)):
            raise CatalogueError(f"{path}: {unknown('access', item, ACCESS)}")
    if origin not in ORIGINS:
        raise CatalogueError(f"{path}: {unknown('origin', str(origin), ORIGINS)}")
    about = ast.get_docstring(found[0]) or ast.get_docstring(tree) or ""
    return Declaration(path.stem, path, frozenset(access), knobs, about, "fit" in methods, origin)


def detector_groups(detectors: Mapping[str, Declaration]) -> dict[str, list[str]]:
    """Return the names that a word stands for.

    ``all``, an origin, ``rerun`` (what runs programs again) and ``no_rerun``, ``fitted`` (what learns from other cases)
    and ``not_fitted``.

    A detector that has one of these names itself is what the name stands for.
    """
    groups: dict[str, list[str]] = {"all": sorted(detectors)}
    for name in groups["all"]:
        again = "rerun" if "rerun" in detectors[name].access else "no_rerun"
        taught = "fitted" if detectors[name].learns else "not_fitted"
        for word in {again, taught, detectors[name].origin} - detectors.keys():
            groups.setdefault(word, []).append(name)
    return groups


def _last(node: ast.AST) -> str:
    """Return the last part of a dotted name, also of one that is called."""
    return ast.unparse(node.func if isinstance(node, ast.Call) else node).rpartition(".")[2]


def _plain(node: ast.expr, path: Path, what: str) -> Any:
    try:
        value = set() if ast.unparse(node) == "set()" else ast.literal_eval(node)
        if what != "access":
            json.dumps(value)  # it goes to another process
        return value
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        message = f"{path}: {what} is {ast.unparse(node)}: give a plain value, for it is read without running the file"
        raise CatalogueError(message) from error
