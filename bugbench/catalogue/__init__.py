"""The catalogue: every card, workload, data set and detector, and what applies where.

``python -m bugbench.catalogue [--format json]`` lists it. Nothing is registered twice: a file in one of the folders
``bugs/ detectors/ workloads/ datasets/ conf/{workload,data,model}/`` (of the project, of a folder on the search path,
or of an installed package's entry point ``bugbench.plugins``) is all there is to do.
"""

import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml
from bugbench.card import Card, CardError, SettingError, make_card, read_card
from bugbench.catalogue.variations import KINDS, Variation, read_variation
from bugbench.catalogue.workload import Workload, apply
from bugbench.declaration import Declaration, read_declaration
from bugbench.injection import NoMatch
from bugbench.names import UnknownName, unknown
from bugbench.plugins import PACKAGE, CatalogueError, project_folder

WORKLOAD_FIELDS = ("name", "dataset", "task", "classes", "traits", "roles", "oracle", "report", "config")
CHOICES = ("auto", "all")  # words for `workload=` that name no workload


@dataclass(frozen=True)
class Catalogue:
    """Everything there is, by name.

    Attributes:
        faults: a fault's id to {"family", "title"}.
        folders: those from outside the project.
        datasets: a data set's name to its module.
        variations: other data and other models for workloads, by kind and name.
    """

    cards: Mapping[str, Mapping[str, Any]]
    workloads: Mapping[str, Workload]
    detectors: Mapping[str, Declaration]
    faults: Mapping[str, Mapping[str, str]]
    families: Mapping[str, str]
    folders: tuple[Path, ...] = ()
    datasets: Mapping[str, Path] = field(default_factory=dict)
    variations: Mapping[str, Mapping[str, Variation]] = field(default_factory=dict)

    def card(self, name: str, fields: Mapping[str, Any] | None = None) -> Card:
        """Return a card, with its knobs as in ``fields`` if given.

        Raises:
            UnknownName: with the nearest names.
        """
        if name not in self.cards:
            raise UnknownName(unknown("bug", name, self.cards))
        return make_card(name, fields or self.cards[name], self.faults)

    def workload(self, name: str) -> Workload:
        if name not in self.workloads:
            if chosen := next(iter(self.workloads.values())).variations:
                what = " and ".join(variation.label for variation in chosen)
                raise UnknownName(f"{what}: it is for {', '.join(self.workloads)}, not for {name}")
            raise UnknownName(unknown("workload", name, self.workloads))
        return self.workloads[name]

    def varied(self, **chosen: str | None) -> "Catalogue":
        """Return the catalogue with the workloads alone that ``data`` and ``model`` are for, with these.

        Raises:
            UnknownName: there is no such data or model, or no workload for both.
        """
        variations = []
        for kind, name in chosen.items():
            if name is not None and name not in self.variations[kind]:
                raise UnknownName(unknown(kind, name, self.variations[kind]))
            variations += [self.variations[kind][name]] if name is not None else []
        if not variations:
            return self
        workloads = {
            name: workload.varied(variations, self.datasets)
            for name, workload in self.workloads.items()
            if all(name in variation.workloads for variation in variations)
        }
        if not workloads:
            what = " and ".join(variation.label for variation in variations)
            raise UnknownName(f"{what}: there is no workload for it")
        return replace(self, workloads=workloads)

    def why_not(self, card: Card, workload: Workload) -> str | None:
        """Return why ``card`` does not apply to ``workload``, or None if it does."""
        missing = sorted(card.requires - workload.traits)
        if missing:
            has = ", ".join(sorted(workload.traits))
            return f"{card.id} does not apply to {workload.name}: it requires the trait {missing[0]!r}, not in {has}"
        try:
            apply(card, workload)
        except NoMatch as reason:
            return str(reason)
        except SettingError as reason:
            return f"{card.id} does not apply to {workload.name}: {reason}"
        return None

    def applicable(self, card: Card) -> list[Workload]:
        """Return the workloads that ``card`` applies to, in the catalogue's order."""
        return [w for w in self.workloads.values() if self.why_not(card, w) is None]


def vocabulary() -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return faults.yaml: each fault's family and title, and each family's title."""
    document = yaml.safe_load((PACKAGE / "faults.yaml").read_text())
    families = {name: entry["title"] for name, entry in document["families"].items()}
    faults = {
        fault: {"family": family, "title": title}
        for family, entry in document["families"].items()
        for fault, title in entry["faults"].items()
    }
    return faults, families


def load(search_path: Iterable[str | Path] = ()) -> Catalogue:
    """Read the project's folders and those on ``search_path``.

    Raises:
        CardError, CatalogueError: naming the file that is malformed, or two files with the same name.
    """
    faults, families = vocabulary()
    roots: list[dict[str, Path]] = [
        {
            "bugs": project_folder("bugs"),
            "detectors": project_folder("detectors"),
            "workloads": PACKAGE / "workloads",
            "datasets": PACKAGE / "datasets",
            "conf": project_folder("conf") / "workload",
            **{kind: project_folder("conf") / kind for kind in KINDS},
        }
    ]
    given = [Path(folder).expanduser().resolve() for folder in [*search_path, *_plugin_folders()]]
    folders = tuple(dict.fromkeys(given))  # who names an installed plugin's folder means the same one
    roots += [_own_root(folder) for folder in folders]
    files = {kind: _collect(kind, [root[kind] for root in roots]) for kind in roots[0]}
    cards = {name: read_card(path, faults) for name, path in files["bugs"].items()}
    configs = {name: path for name, path in files["conf"].items() if name not in CHOICES}
    workloads = {name: _read_workload(name, path, files) for name, path in configs.items()}
    detectors = {name: read_declaration(path) for name, path in files["detectors"].items()}
    variations = {kind: {name: read_variation(kind, path) for name, path in files[kind].items()} for kind in KINDS}
    for variation in (v for of_kind in variations.values() for v in of_kind.values()):
        _check_variation(variation, files)
    return Catalogue(cards, workloads, detectors, faults, families, folders, files["datasets"], variations)


@cache
def catalogue_of(search_path: tuple[str, ...] = ()) -> Catalogue:
    """Return what :func:`load` does, read once in a process."""
    return load(search_path)


def _own_root(folder: Path) -> dict[str, Path]:
    kinds = {k: folder / k for k in ("bugs", "detectors", "workloads", "datasets")} | {"conf": folder / "conf/workload"}
    kinds |= {kind: folder / "conf" / kind for kind in KINDS}
    if not folder.is_dir():
        raise CatalogueError(f"search_path: there is no folder {folder}")
    if not any(path.is_dir() for path in kinds.values()):
        places = "bugs/ detectors/ workloads/ datasets/ conf/workload/ conf/data/ conf/model/"
        raise CatalogueError(f"search_path: {folder} has none of {places}")
    return kinds


def _plugin_folders() -> list[Path]:
    folders = []
    for point in entry_points(group="bugbench.plugins"):
        module = point.load()
        folders.append(Path(inspect.getfile(module)).parent)
    return folders


def _collect(kind: str, folders: Iterable[Path]) -> dict[str, Path]:
    ending = ".yaml" if kind in ("bugs", "conf", *KINDS) else ".py"
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob(f"*{ending}")) if folder.is_dir() else []:
            if path.name == "__init__.py":
                continue
            if path.stem in found:
                raise CatalogueError(f"{kind}: {path.stem!r} exists twice: {found[path.stem]} and {path}")
            found[path.stem] = path
    return found


def _read_workload(name: str, path: Path, files: Mapping[str, Mapping[str, Path]]) -> Workload:
    settings = yaml.safe_load(path.read_text())
    for key in WORKLOAD_FIELDS:
        if key not in settings:
            raise CatalogueError(f"{path}: field {key!r} is missing; a workload has {', '.join(WORKLOAD_FIELDS)}")
    if settings["name"] != name:
        raise CatalogueError(f"{path}: field 'name' is {settings['name']!r}: it must be the file's name, {name!r}")
    if name not in files["workloads"]:
        raise CatalogueError(f"{path}: {unknown('program', name, files['workloads'])} (expected workloads/{name}.py)")
    if settings["dataset"] not in files["datasets"]:
        raise CatalogueError(f"{path}: {unknown('data set', str(settings['dataset']), files['datasets'])}")
    return Workload(name, files["workloads"][name], files["datasets"][settings["dataset"]], settings)


def _check_variation(variation: Variation, files: Mapping[str, Mapping[str, Path]]) -> None:
    path = files[variation.kind][variation.name]
    for name in variation.workloads:
        if name not in files["conf"]:
            raise CatalogueError(f"{path}: {unknown('workload', str(name), files['conf'])}")
    dataset = variation.settings.get("dataset")
    if dataset is not None and dataset not in files["datasets"]:
        raise CatalogueError(f"{path}: {unknown('data set', str(dataset), files['datasets'])}")


def search_path_of(arguments: Iterable[str]) -> list[str]:
    """Return the folders named by ``search_path=[…]`` among command-line arguments, else by BUGBENCH_PATH."""
    for argument in arguments:
        name, _, value = argument.lstrip("+").partition("=")
        if name == "search_path":
            return [part.strip().strip("'\"") for part in value.strip("[]").split(",") if part.strip()]
    return [part for part in os.environ.get("BUGBENCH_PATH", "").split(os.pathsep) if part]


__all__ = ["CardError", "Catalogue", "CatalogueError", "Workload", "apply", "catalogue_of", "load", "vocabulary"]
