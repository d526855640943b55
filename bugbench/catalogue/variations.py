"""Other data and other models for a workload: ``data=mnist``, ``model=resnet18``.

Each is a file of ``conf/data`` or ``conf/model``, which Hydra composes as it stands. Under the group's own name stands
what it does to the program: ``workloads`` that it is for, ``edits`` as in a card, ``network`` (for data: edits that are
left out where another model takes the network's place), ``lacks`` (traits that the workload then does not have). Under
``workload`` stands what it changes in ``conf/workload/<name>.yaml``. The model's edits come before the data's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from bugbench.injection import Edit, InjectionError, inject
from bugbench.plugins import CatalogueError

KINDS = ("data", "model")  # Hydra's groups, and folders below conf/
FIELDS = ("name", "workloads", "edits", "network", "lacks")


@dataclass(frozen=True)
class Variation:
    """One file of ``conf/data`` or ``conf/model``.

    Attributes:
        kind: "data" or "model".
        document: the whole file.
    """

    kind: str
    name: str
    workloads: tuple[str, ...]
    edits: tuple[Edit, ...]
    network: tuple[Edit, ...]
    lacks: frozenset[str]
    document: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"{self.kind}={self.name}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it changes in the workload's settings."""
        return self.document.get("workload", {})


def read_variation(kind: str, path: Path) -> Variation:
    """Read a file; raises CatalogueError, naming it, where it is malformed."""
    document = yaml.safe_load(path.read_text())
    own = document.get(kind) if isinstance(document, dict) else None
    if not isinstance(own, dict) or set(document) - {kind, "workload"}:
        raise CatalogueError(f"{path}: it has the fields {kind!r} and 'workload', and '# @package _global_' above them")
    if wrong := sorted({"name", "workloads"} - set(own) or set(own) - set(FIELDS)):
        raise CatalogueError(f"{path}: field {wrong[0]!r}: {kind} has name and workloads, and may have {FIELDS[2:]}")
    if own["name"] != path.stem:
        raise CatalogueError(f"{path}: field 'name' is {own['name']!r}: it must be the file's name, {path.stem!r}")
    try:
        edits, network = (tuple(map(Edit.from_mapping, own.get(field, []))) for field in ("edits", "network"))
    except ValueError as error:
        raise CatalogueError(f"{path}: {error}") from error
    return Variation(
        kind, path.stem, tuple(own["workloads"]), edits, network, frozenset(own.get("lacks", [])), document
    )


def varied_source(source: str, variations: Sequence[Variation], roles: Mapping[str, Any], program: str) -> str:
    """Return the program for other data, or with another model.

    Raises:
        CatalogueError: an edit of theirs finds nothing in it.
    """
    other_model = any(variation.kind == "model" for variation in variations)
    for variation in sorted(variations, key=lambda v: v.kind, reverse=True):
        edits = (*variation.edits, *(() if other_model else variation.network))
        try:
            if edits:
                source = inject(source, [edits], roles=roles, card=variation.label, program=program).source
        except InjectionError as error:
            raise CatalogueError(str(error)) from error
    return source


def fitted(settings: Mapping[str, Any], variations: Sequence[Variation], source: str) -> dict[str, Any]:
    """Return settings without what the varied program does not have: roles, traits, hyperparameters it never reads."""
    roles = {role: place for role, place in settings["roles"].items() if place is not None}
    config = {name: value for name, value in settings["config"].items() if re.search(rf"\bconfig\.{name}\b", source)}
    lacking = frozenset().union(*(variation.lacks for variation in variations))
    traits = [trait for trait in settings["traits"] if trait not in lacking]
    return {**settings, "roles": roles, "config": config, "traits": traits}


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with changes in them, as Hydra composes the two."""
    both = {name: merged(settings[name], changes[name]) for name in changes if _is_mapping(name, settings, changes)}
    return {**settings, **changes, **both}


def _is_mapping(name: str, *parts: Mapping[str, Any]) -> bool:
    return all(isinstance(part.get(name), Mapping) for part in parts)
