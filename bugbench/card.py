"""A bug card: one way to break a program, read from YAML and checked field by field."""

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from bugbench.injection import Edit
from bugbench.names import nearest, unknown
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

FIELDS = {
    "title": str,
    "fault": str,
    "edits": list,
    "variants": list,
    "config": dict,
    "setting": dict,
    "requires": list,
    "accepts": list,
    "sources": list,
    "about": str,
    "fools": list,
    "latent": str,
}
RELATIVE = re.compile(r"\s*([*/+-])\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
KNOB = re.compile(r"\$\{bug\.(\w+)\}")
OPERATORS = {"*": operator.mul, "/": operator.truediv, "+": operator.add, "-": operator.sub}


class CardError(ValueError):
    """A malformed card; the message says which field of which file, and why."""


@dataclass(frozen=True)
class Card:
    """One bug (or control, if ``fault`` is "none").

    Attributes:
        id: the file's name without its ending.
        variants: alternative lists of edits; the first that matches a program is used; empty for a card that
            consists of ``config`` alone.
        config: changes of the workload's config for the bug alone; "* 100" and the like are relative.
        setting: changes for bug and twin alike.
        requires: traits a workload must have.
        accepts: other faults that a fair judge would also take.
        fools: for a control, the detectors or rules that it is known to fool.
        latent: for a bug that does no harm on any workload, why it is kept.
        knobs: the card's own numbers, with their present values.
        changed: knobs that were set to another value than the card's.
    """

    id: str
    title: str
    fault: str
    variants: tuple[tuple[Edit, ...], ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    setting: Mapping[str, Any] = field(default_factory=dict)
    requires: frozenset[str] = frozenset()
    accepts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    about: str = ""
    fools: tuple[str, ...] = ()
    latent: str = ""
    knobs: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def control(self) -> bool:
        return self.fault == "none"

    @property
    def label(self) -> str:
        """The id, with the knobs that were changed: ``softmax_dim(dim=1)``."""
        inner = ",".join(f"{k}={v}" for k, v in sorted(self.changed.items()))
        return f"{self.id}({inner})" if inner else self.id


def read_card(path: Path, faults: Mapping[str, Any]) -> dict[str, Any]:
    """Read one card file and check it; return its fields as written (knobs still unresolved).

    Raises:
        CardError: naming file, field and reason.
    """
    try:
        fields = _parsed(path.read_text())
    except yaml.YAMLError as error:
        raise CardError(f"{path}: not valid YAML (quote patterns or use a block scalar): {error}") from error
    if not isinstance(fields, dict):
        raise CardError(f"{path}: a card is a mapping of fields, not {type(fields).__name__}")
    make_card(path.stem, fields, faults, where=str(path))
    return fields


def _parsed(text: str) -> Any:
    try:  # libyaml, where PyYAML has it: ten times as fast, and every command reads all cards
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return yaml.safe_load(text)  # whose message shows the line


def make_card(id: str, fields: Mapping[str, Any], faults: Mapping[str, Any], where: str | None = None) -> Card:
    """Build a card from its fields, knobs resolved; ``where`` names it in errors."""
    where = where or f"card {id}"
    fields = dict(fields)
    changed = fields.pop("changed", {})
    for name in fields:
        if not isinstance(name, str):
            raise CardError(f"{where}: the field's name {name!r} is no text: put it in quotes")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", id):
        raise CardError(f"{where}: the file's name is the bug's id and must be snake_case, not {id!r}")
    for name in ("title", "fault", "about", "sources"):
        if not fields.get(name):
            similar = nearest(name, [f for f in fields if f not in FIELDS])
            hint = f" (is {similar[0]!r} a misspelling?)" if similar else ""
            raise CardError(f"{where}: field {name!r} is missing or empty{hint}")
    for name, kind in FIELDS.items():
        if name in fields and not isinstance(fields[name], kind):
            raise CardError(f"{where}: field {name!r} must be a {kind.__name__}, not {type(fields[name]).__name__}")
    knobs = {name: value for name, value in fields.items() if name not in FIELDS}
    used = {name: KNOB.findall(str(value)) for name, value in fields.items()}
    for name, knob in ((name, knob) for name, found in used.items() for knob in found):
        if knob not in knobs:
            raise CardError(f"{where}: field {name!r}: {unknown('knob', knob, knobs)}")
    for name, value in knobs.items():
        if not isinstance(value, (str, int, float, bool)):
            raise CardError(f"{where}: {unknown('field', name, FIELDS)} (a knob would be a number, text or boolean)")
        if "/" in str(value):
            raise CardError(
                f"{where}: the knob {name} is {value!r}: it names a folder of results, which '/' would split"
            )
        if not any(name in found for found in used.values()):
            raise CardError(f"{where}: nothing uses the knob ${{bug.{name}}}; {unknown('field', name, FIELDS)}")
    if fields["fault"] != "none" and fields["fault"] not in faults:
        raise CardError(f"{where}: field 'fault': {unknown('fault', fields['fault'], [*faults, 'none'])}")
    for fault in fields.get("accepts", []):
        if fault not in faults:
            raise CardError(f"{where}: field 'accepts': {unknown('fault', str(fault), faults)}")
    try:
        resolved: Any = {"bug": fields}
        if "${" in str(fields):  # most cards have no knob, and resolving takes as long as reading
            resolved = OmegaConf.to_container(OmegaConf.create(resolved), resolve=True)
    except OmegaConfBaseException as error:
        raise CardError(f"{where}: {str(error).splitlines()[0]}; its knobs: {', '.join(knobs) or 'none'}") from error
    resolved = resolved["bug"]
    return Card(
        id=id,
        title=resolved["title"],
        fault=resolved["fault"],
        variants=_variants(resolved, id, where),
        config=resolved.get("config", {}),
        setting=resolved.get("setting", {}),
        requires=frozenset(resolved.get("requires", [])),
        accepts=tuple(resolved.get("accepts", [])),
        sources=tuple(str(s) for s in resolved["sources"]),
        about=resolved["about"].strip(),
        fools=tuple(str(s) for s in resolved.get("fools", [])),
        latent=resolved.get("latent", "").strip(),
        knobs={name: resolved[name] for name in knobs},
        changed=changed,
    )


def _variants(fields: Mapping[str, Any], id: str, where: str) -> tuple[tuple[Edit, ...], ...]:
    if "edits" in fields and "variants" in fields:
        raise CardError(f"{where}: give either 'edits' or 'variants' (a list of lists of edits), not both")
    lists = fields.get("variants", [fields["edits"]] if "edits" in fields else [])
    if not lists and not fields.get("config") and id != "none":
        raise CardError(f"{where}: the card changes nothing: it needs 'edits', 'variants' or 'config'")
    variants = []
    for v, edits in enumerate(lists, start=1):
        name = f"variants {v}, edits" if "variants" in fields else "edits"
        if not isinstance(edits, list) or not edits:
            raise CardError(f"{where}: field {name!r} must be a list with at least one edit")
        try:
            variants.append(tuple(Edit.from_mapping(edit) for edit in edits))
        except ValueError as error:
            raise CardError(f"{where}: field {name!r}: {error}") from error
    return tuple(variants)


class SettingError(LookupError):
    """A card changes a setting that the workload does not have, or cannot change so."""

    def __str__(self) -> str:
        return str(self.args[0])


def check_settings(settings: Mapping[str, Any], usual: Mapping[str, Any], where: str) -> None:
    """Check that settings are of the kind they usually are: a whole number stays one.

    Raises:
        SettingError: naming the first that is not, and what it usually is.
    """
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    for name in settings.keys() & usual.keys():
        value, kind = settings[name], type(usual[name])
        if kind in kinds and type(value) is not kind and not (kind is float and type(value) is int):
            raise SettingError(f"{where}{name}: it must be {kinds[kind]}, such as {usual[name]}, not {value!r}")


def change_config(config: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``config`` with ``changes`` applied; "* 100", "/ 10", "+ 1", "- 1" are relative to the value there.

    An integer stays one: it is rounded, and a positive one stays at least 1 under a positive factor.

    Raises:
        SettingError: naming the setting and the nearest ones the workload has.
    """
    result = dict(config)
    for name, change in changes.items():
        if name not in config:
            raise SettingError(unknown("setting", name, config, where))
        match = RELATIVE.fullmatch(change) if isinstance(change, str) else None
        if match is None:
            result[name] = change
            continue
        value, amount = config[name], float(match.group(2))
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SettingError(f"{where}: setting {name!r} is {value!r}: {change!r} needs a number")
        if match.group(1) == "/" and amount == 0:
            raise SettingError(f"{where}: setting {name!r} cannot be divided by 0")
        changed = OPERATORS[match.group(1)](value, amount)
        if isinstance(value, int):
            scaled = match.group(1) in "*/" and value > 0 and amount > 0
            changed = max(round(changed), 1) if scaled else round(changed)
        result[name] = changed if isinstance(changed, int) else float(f"{changed:.12g}")  # 7, not 7.000000000000001
    return result
