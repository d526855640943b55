"""Put the catalogue into Hydra's ConfigStore; check and complete the command line before Hydra composes."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from bugbench import image_files
from bugbench.card import FIELDS
from bugbench.catalogue import CHOICES, Catalogue
from bugbench.catalogue.launchers import UNBOUNDED, check_launcher
from bugbench.declaration import detector_groups
from bugbench.names import UnknownName, unknown
from bugbench.plugins import project_folder
from bugbench.records import results_folder
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, Quote, QuotedString, Sweep
from hydra.errors import HydraException


def register(catalogue: Catalogue) -> None:
    """Make every card, detector and outside workload an option of its Hydra group."""
    store = ConfigStore.instance()
    # Hydra copies the whole store, deeply, for each config it composes, and sends it to each job's process: it holds
    # what the command line may set, and the catalogue the rest
    for name in catalogue.cards:
        store.store(group="bug", name=name, node={"id": name, **knobs_of_card(catalogue, name)})
    for name, detector in catalogue.detectors.items():
        store.store(group="detector", name=name, package=f"detector.{name}", node=dict(detector.knobs))
    for word, names in detector_groups(catalogue.detectors).items():
        # one node, not a list of defaults: Hydra composes each job twice, and each default costs it 3 ms
        store.store(group="detector", name=word, node={name: dict(catalogue.detectors[name].knobs) for name in names})
    for family, cards in cards_by_family(catalogue).items():
        params = {"bug": ",".join(cards), "workload": "all"}
        sweep = {"mode": "MULTIRUN", "sweeper": {"params": params}}
        store.store(group="suite", name=family, package="_global_", node={"seeds": 5, "hydra": sweep})
    for name, workload in catalogue.workloads.items():
        if not (project_folder("conf") / "workload" / f"{name}.yaml").exists():
            store.store(group="workload", name=name, node=dict(workload.settings))
    for kind, variations in catalogue.variations.items():
        for name, variation in variations.items():
            if not (project_folder("conf") / kind / f"{name}.yaml").exists():
                store.store(group=kind, name=name, package="_global_", node=dict(variation.document))


def cards_by_family(catalogue: Catalogue) -> dict[str, list[str]]:
    """Return the bugs of each family of faults that has any."""
    families: dict[str, list[str]] = {}
    for name, card in catalogue.cards.items():
        if card["fault"] in catalogue.faults:
            families.setdefault(catalogue.faults[card["fault"]]["family"], []).append(name)
    return families


def knobs_of_card(catalogue: Catalogue, name: str) -> dict[str, Any]:
    """Return the knobs of a card with their values as written."""
    return {field: value for field, value in catalogue.cards[name].items() if field not in FIELDS}


def check_arguments(arguments: Iterable[str], catalogue: Catalogue) -> None:
    """Check the names on the command line.

    Raises:
        UnknownName: the first unknown bug, workload, detector, suite, knob or setting, with the nearest right ones.
    """
    groups: dict[str, Iterable[str]] = {
        "bug": catalogue.cards,
        "workload": [*catalogue.workloads, *CHOICES],
        "detector": [*catalogue.detectors, *detector_groups(catalogue.detectors)],
        "suite": [
            *(p.stem for p in (project_folder("conf") / "suite").glob("*.yaml")),
            *cards_by_family(catalogue),
        ],
        **catalogue.variations,
    }
    arguments = list(arguments)
    _check_words(arguments, catalogue)
    overrides = _parsed(arguments)
    chosen: dict[str, list[str]] = {}
    for override in overrides:
        if override.key_or_group in groups:
            names = _names(override)
            for name in names:
                if name not in groups[override.key_or_group]:
                    raise UnknownName(unknown(override.key_or_group, name, groups[override.key_or_group]))
            chosen[override.key_or_group] = names
        if override.key_or_group == "hydra/launcher":
            check_launcher(str(override.value()))
    settings = [*yaml.safe_load((project_folder("conf") / "config.yaml").read_text()), *groups]
    for override in overrides:
        if not override.is_add():
            _check_key(override.key_or_group, chosen, catalogue, settings)


def _check_words(arguments: list[str], catalogue: Catalogue) -> None:
    """Refuse a word that is no setting, and no value of one of Hydra's own flags."""
    before = ""
    for word in arguments:
        flag_wants_it = before.startswith("-") and before not in ("-m", "--multirun")
        if "=" not in word and not word.startswith(("-", "~")) and not flag_wants_it:
            hint = f"did you mean bug={word}?" if word in catalogue.cards else "settings are given as name=value"
            raise UnknownName(f"{word!r} is no setting: {hint}")
        before = word


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
        knobs = knobs_of_card(catalogue, bug)
        if rest[0] not in knobs:
            raise UnknownName(unknown("knob", rest[0], knobs, f"bug {bug}"))
    if first == "workload" and rest[:1] == ["config"] and len(rest) > 1:
        names = [n for n in chosen.get("workload", ["auto"]) if n in catalogue.workloads]
        if not names:
            raise UnknownName(f"{key}: choose a workload too, e.g. workload={next(iter(catalogue.workloads))}")
        varied = catalogue.varied(**{kind: chosen[kind][0] for kind in catalogue.variations if chosen.get(kind)})
        for name in names:
            config = varied.workload(name).config
            if rest[1] not in config:
                raise UnknownName(unknown("setting", rest[1], config, f"workload {name}"))
    if first == "detector" and rest:
        if rest[0] not in catalogue.detectors:
            raise UnknownName(unknown("detector", rest[0], catalogue.detectors))
        knobs_here = catalogue.detectors[rest[0]].knobs
        if len(rest) > 1 and rest[1] not in knobs_here:
            raise UnknownName(unknown("knob", rest[1], knobs_here, f"detector {rest[0]}"))


def settled(arguments: Iterable[str], search_path: Iterable[str]) -> list[str]:
    """Return the command line with what a job on another machine, in another folder, could not know by itself.

    Folders become absolute, also where they come from BUGBENCH_PATH and BUGBENCH_DATA; and the launcher that would
    start all jobs at once gets as many at a time as there are cores.

    Raises:
        NotADirectoryError, PermissionError: the results cannot lie there.
    """
    given = {override.key_or_group: override for override in _parsed(arguments)}
    results = given["results"].value() if "results" in given else "results"
    added = {}
    if folders := [_quoted(os.path.abspath(os.path.expanduser(folder))) for folder in search_path]:
        added["search_path"] = f"[{','.join(folders)}]"
    if isinstance(results, str) and "${" not in results:
        added["results"] = _quoted(str(results_folder(Path(os.path.expanduser(results)))))
    data_root = given["data_root"].value() if "data_root" in given else os.environ.get(image_files.ROOT_VARIABLE)
    if isinstance(data_root, str) and data_root:
        added["data_root"] = _quoted(os.path.abspath(os.path.expanduser(data_root)))
    launcher = given["hydra/launcher"].value() if "hydra/launcher" in given else None
    if launcher == UNBOUNDED and "hydra.sweeper.max_batch_size" not in given:
        added["hydra.sweeper.max_batch_size"] = str(os.cpu_count() or 1)
    words = [a for a in arguments if a.lstrip("+").partition("=")[0] not in added]
    is_setting = ["=" in word and not word.startswith("-") for word in words]
    flags = [word for word, setting in zip(words, is_setting, strict=True) if not setting]
    settings = [word for word, setting in zip(words, is_setting, strict=True) if setting]
    return [*flags, *(f"{key}={value}" for key, value in added.items()), *settings]  # argparse wants them in one run


def _parsed(arguments: Iterable[str]) -> list[Override]:
    words = [a for a in arguments if "=" in a and not a.startswith("-")]
    try:
        return [o for o in OverridesParser.create().parse_overrides(words) if not o.is_delete()]
    except HydraException as error:
        raise UnknownName(str(error).splitlines()[0]) from error


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()
