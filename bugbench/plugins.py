"""Import the files of the catalogue: detectors and data sets, the project's own and those from outside."""

import ast
import importlib
import importlib.util
import sys
import threading
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bugbench.detector import Detector


PACKAGE = Path(__file__).resolve().parent
RECORDER_FILES = (  # whose code runs within a program's own
    *("recorder.py", "watching.py", "tensor_summary.py", "statistics_log.py", "sample_log.py", "trace_writer.py"),
)


_parsing = threading.Lock()


def parse(source: str) -> ast.Module:
    """Return the syntax tree of a program, as ``ast.parse`` does, but safely from several threads.

    Until Python 3.12 two threads at it may both get a SystemError (python/cpython#106905: they share a counter).
    """
    with _parsing:
        return ast.parse(source)


class CatalogueError(ValueError):
    """Something in the catalogue is malformed; the message names the file and what would be right."""


def project_folder(name: str) -> Path:
    """Return the folder ``name`` of the project, in a checkout or inside the installed package."""
    import bugbench

    for root in bugbench.__path__:
        if (Path(root) / name).is_dir():
            return Path(root) / name
    raise CatalogueError(f"the folder {name}/ is missing beside or in {PACKAGE}")


def load_module(path: Path) -> ModuleType:
    """Import a plug-in's file, the project's own through its package."""
    if package := _own_package(path):
        return importlib.import_module(f"{package}.{path.stem}")
    name = f"bugbench_plugin_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CatalogueError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CatalogueError(f"{path}: import failed: {type(error).__name__}: {error}") from error
    return module


def _own_package(path: Path) -> str | None:
    """Return the project's package that ``path`` is in; None for a file from outside, wherever its folder lies."""
    folders = {"bugbench.detectors": project_folder("detectors"), "bugbench.datasets": PACKAGE / "datasets"}
    parent = path.resolve().parent
    return next((package for package, folder in folders.items() if folder.resolve() == parent), None)


def load_detector(path: Path) -> "type[Detector]":
    """Return the one Detector class that the file at ``path`` defines; for judging processes only."""
    from bugbench.detector import Detector  # not before: a judging process is confined before it loads numpy

    module = load_module(path)
    classes = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Detector) and c.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise CatalogueError(f"{path}: a detector's file defines exactly one Detector class, this one {len(classes)}")
    return classes[0]


def is_own_oracle(path: Path) -> bool:
    """Tell whether this is the project's own oracle: nobody else may see the truth."""
    return path.stem == "oracle" and _own_package(path) == "bugbench.detectors"


def sources_of(path: Path) -> list[str]:
    """Return the text of a Python file and of every module of bugbench that it imports, directly or not, sorted.

    Detectors count among them: one that asks others depends on what they say.
    """
    texts, waiting = {path: path.read_text()}, [path]
    while waiting:
        for name in _imported(texts[waiting.pop()]):
            first, *rest = name.split(".")
            folder = project_folder("detectors").parent if rest[:1] == ["detectors"] else PACKAGE
            module = folder.joinpath(*rest).with_suffix(".py")
            if first == "bugbench" and rest and module not in texts and module.is_file():
                texts[module] = module.read_text()
                waiting.append(module)
    return [texts[path] for path in sorted(texts)]


@lru_cache(maxsize=1000)  # each detector of each job asks for the same few texts
def _imported(source: str) -> list[str]:
    """Return the names of all modules, and of what may be modules, that a text imports."""
    try:
        tree = parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # it imports nothing, then
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names
