"""What a judging process may see, and the strongest way in which this machine can see to it.

============ ============================================================ ==========================================
level        how                                                          where
============ ============================================================ ==========================================
namespaces   own file system, processes and network for every diagnosis   Linux 5.12 and later, where unprivileged
             (:mod:`bugbench.namespaces`)                                 user namespaces are allowed
landlock     files outside cannot be opened (:mod:`bugbench.landlock`)    Linux 5.13 and later, most containers too
process      only what the process is told: no argument, environment      everywhere
             variable or file it is given names the case
============ ============================================================ ==========================================

SECURITY.md says what each level prevents.
"""

import ast
import os
import shutil
import site
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bugbench.plugins import PACKAGE, parse, project_folder

LEVELS = ("namespaces", "landlock", "process")
SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/nix/store", "/gnu/store"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"),
    *("/sys/devices/system/cpu", "/sys/devices/system/node"),  # what torch counts cores and caches by
)
PLACES = tuple(  # where packages lie below a prefix: of the system, of a virtual environment, of conda
    prefix + place
    for prefix in ("", "local/", "envs/*/", "pkgs/*/")
    for place in ("", "site-packages/", "lib*/python3*/", "lib*/python3*/*-packages/")
)


@dataclass(frozen=True)
class View:
    """The paths a judging process may read, and those below them that it may not; of nested ones the deeper decides."""

    readable: tuple[Path, ...]
    hidden: tuple[Path, ...]

    def parts(self) -> list[Path]:
        """Return paths that together hold what is readable and nothing hidden, for a system that can only grant."""
        real = {path.resolve() for path in self.readable}
        return [part for path in sorted(real) for part in _without(path, self.hidden)]

    def split(self) -> list[Path]:
        """Return the folders that are in parts: to import from them, Python must list them."""
        real = [path.resolve() for path in self.readable]
        return sorted({p for h in self.hidden for p in h.parents if any(p.is_relative_to(r) for r in real)})


def _without(path: Path, hidden: Sequence[Path]) -> list[Path]:
    if path in hidden:
        return []
    if not any(path in h.parents for h in hidden):
        return [path]
    try:
        children = sorted(path.iterdir())
    except OSError:
        return []
    # a link needs no grant of its own, and to grant where it leads would grant what is hidden there
    return [part for child in children if not child.is_symlink() for part in _without(child, hidden)]


def judging_view(own: Iterable[Path], hidden: Iterable[Path] = ()) -> View:
    """Return what a judging process needs: the system's libraries, Python with its packages, and its ``own`` folders.

    ``hidden`` is what it must not see wherever it lies: search path, results, raw data sets. The project's own folders
    are always hidden.
    """
    readable = _libraries(hidden)
    hidden = {*_own_folders(), *_installed(readable, PACKAGE.name), *(p.resolve() for p in hidden)}
    within = [p for p in hidden if readable.intersection(p.parents)]  # others are out of sight: their names are, too
    return View(tuple(sorted({*readable, *own})), tuple(sorted(within)))


def _libraries(hidden: Iterable[Path] = ()) -> set[Path]:
    """Return the folders with the system's libraries and with Python's packages."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *site.getsitepackages()}
    prefixes |= {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")}
    if site.ENABLE_USER_SITE:
        prefixes.add(site.getusersitepackages())
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    readable = {Path(p) for p in [*SYSTEM, *prefixes, *libraries, *extra_packages(hidden)] if p and os.path.isabs(p)}
    return readable | {path.resolve() for path in readable if path.exists()}


def _installed(folders: Iterable[Path], name: str) -> set[Path]:
    """Return what goes by ``name`` where Pythons below these folders install packages: a machine may have several."""
    return {found.resolve() for folder in folders for place in PLACES for found in folder.glob(f"{place}{name}")}


def extra_packages(hidden: Iterable[Path] = ()) -> list[str]:
    """Return the folders on PYTHONPATH that are neither the project nor hidden: where clusters put their packages."""
    secret = {*_own_folders(), *(p.resolve() for p in hidden), Path.cwd()}
    paths = [Path(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return [str(p) for p in paths if p.is_dir() and not {p.resolve(), *p.resolve().parents} & secret]


def _own_folders() -> set[Path]:
    import bugbench

    return {Path(p).resolve() for p in bugbench.__path__}


def raw_data(datasets: Iterable[Path]) -> list[Path]:
    """Return the folders that data sets are made from: whoever has them has the hidden test too.

    A data set's module names it as ``ORIGIN``, relative to where packages are installed, if it ships in one. Every copy
    counts: the system's own Python may have the package too.
    """
    origins = set()
    for module in datasets:
        for node in parse(module.read_text()).body:
            if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["ORIGIN"]:
                origins.add(ast.literal_eval(node.value))
    readable = _libraries()
    imported = [Path(p) / origin for p in sys.path if p for origin in origins if (Path(p) / origin).is_dir()]
    return sorted({*imported, *(path for origin in origins for path in _installed(readable, origin))})


def copy_package(folder: Path) -> Path:
    """Copy into ``folder`` the part of bugbench that a detector may use, and return the folder to import it from.

    Without workloads, data sets, cards, configuration and results: with the healthy text of a program at hand, a diff
    would tell the fault.
    """
    target = folder / "bugbench"
    (target / "detectors").mkdir(parents=True)
    for path in [*PACKAGE.glob("*.py"), PACKAGE / "faults.yaml"]:
        shutil.copyfile(path, target / path.name)
    for path in project_folder("detectors").glob("*.py"):
        shutil.copyfile(path, target / "detectors" / path.name)
    return folder
