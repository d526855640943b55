"""Put the catalogue into Hydra's ConfigStore, and check names before Hydra composes."""

from collections.abc import Iterable
from pathlib import Path

import yaml
from bugbench.card import FIELDS
from bugbench.catalogue import CHOICES, Catalogue
from bugbench.names import UnknownName, unknown
from bugbench.plugins import project_folder
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, Sweep
from hydra.errors import HydraException


def register(catalogue: Catalogue) -> None:
    """Make every card, detector and outside workload an option of its Hydra group."""
    store = ConfigStore.instance()
    for name, fields in catalogue.cards.items():
        store.store(group="bug", name=name, node={"id": name, **fields})
    for name, detector in catalogue.detectors.items():
        store.store(group="detector", name=name, package=f"detector.{name}", node=dict(detector.knobs))
    store.store(group="detector", name="all", node={"defaults": sorted(catalogue.detectors)})
    for name, workload in catalogue.workloads.items():
        if not (project_folder("conf") / "workload" / f"{name}.yaml").exists():
            store.store(group="workload", name=name, node=dict(workload.settings))


def check_arguments(arguments: Iterable[str], catalogue: Catalogue) -> None:
    """Check the names on the command line.

    Raises:
        UnknownName: the first unknown bug, workload, detector, suite, knob or setting, with the nearest right ones.
    """
    groups: dict[str, Iterable[str]] = {
        "bug": catalogue.cards,
        "workload": [*catalogue.workloads, *CHOICES],
        "detector": [*catalogue.detectors, "all"],
        "suite": [p.stem for p in (project_folder("conf") / "suite").glob("*.yaml")],
    }
    words = [a for a in arguments if "=" in a and not a.startswith("-")]
    try:
        overrides = [o for o in OverridesParser.create().parse_overrides(words) if not o.is_delete()]
    except HydraException as error:
        raise UnknownName(str(error).splitlines()[0]) from error
    chosen: dict[str, list[str]] = {}
    for override in overrides:
        if override.key_or_group in groups:
            names = _names(override)
            for name in names:
                if name not in groups[override.key_or_group]:
                    raise UnknownName(unknown(override.key_or_group, name, groups[override.key_or_group]))
            chosen[override.key_or_group] = names
    settings = [*yaml.safe_load((project_folder("conf") / "config.yaml").read_text()), *groups]
    for override in overrides:
        if not override.is_add():
            _check_key(override.key_or_group, chosen, catalogue, settings)


def _names(override: Override) -> list[str]:
    value = override.value()
    if isinstance(value, Glob):
        return []
    if isinstance(value, ChoiceSweep):
        items = [v for item in value.list for v in (item if isinstance(item, list) else [item])]
        return [str(item) for item in items if not isinstance(item, Glob)]
    if isinstance(value, Sweep) or value is None:
        return []
    return [str(v) for v in (value if isinstance(value, list) else [value])]


def _check_key(key: str, chosen: dict[str, list[str]], catalogue: Catalogue, settings: list[str]) -> None:
    first, *rest = key.split(".")
    if first.split("/")[0] == "hydra":
        return
    if first not in settings:
        raise UnknownName(unknown("setting", first, settings))
    if first == "bug" and rest and len(chosen.get("bug", [])) == 1:
        bug = chosen["bug"][0]
        knobs = [name for name in catalogue.cards[bug] if name not in FIELDS]
        if rest[0] not in [*knobs, *catalogue.cards[bug]]:
            raise UnknownName(unknown("knob", rest[0], knobs, f"bug {bug}"))
    if first == "workload" and rest[:1] == ["config"] and len(rest) > 1:
        names = [n for n in chosen.get("workload", ["auto"]) if n in catalogue.workloads]
        if not names:
            raise UnknownName(f"{key}: choose a workload too, e.g. workload={next(iter(catalogue.workloads))}")
        for name in names:
            config = catalogue.workloads[name].config
            if rest[1] not in config:
                raise UnknownName(unknown("setting", rest[1], config, f"workload {name}"))
    if first == "detector" and rest:
        if rest[0] not in catalogue.detectors:
            raise UnknownName(unknown("detector", rest[0], catalogue.detectors))
        knobs_here = catalogue.detectors[rest[0]].knobs
        if len(rest) > 1 and rest[1] not in knobs_here:
            raise UnknownName(unknown("knob", rest[1], knobs_here, f"detector {rest[0]}"))


def results_folder(arguments: Iterable[str]) -> Path:
    """Return the folder named by ``results=…`` among command-line arguments."""
    values = [a.partition("=")[2] for a in arguments if a.startswith("results=")]
    return Path(values[-1] if values else "results")
