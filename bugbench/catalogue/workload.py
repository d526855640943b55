"""A workload: a program with its data set and configuration; and the same with a card applied to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from bugbench.card import Card, change_config, check_settings
from bugbench.catalogue.variations import Variation, fitted, merged, varied_source
from bugbench.injection import Edit, Edited, NoMatch, inject


@dataclass(frozen=True)
class Workload:
    """A program with its data set and configuration.

    Attributes:
        settings: the whole of conf/workload/<name>.yaml.
        changed: hyperparameters that were set to another value than the file's.
        variations: other data and another model, see :mod:`bugbench.catalogue.variations`; ``dataset`` and ``settings``
            are then those of the variation.
    """

    name: str
    program: Path
    dataset: Path
    settings: Mapping[str, Any]
    changed: Mapping[str, Any] = field(default_factory=dict)
    variations: tuple[Variation, ...] = ()

    @cached_property
    def source(self) -> str:
        return varied_source(self.program.read_text(), self.variations, self.settings["roles"], self.name)

    @property
    def config(self) -> dict[str, Any]:
        return {**self.settings["config"], **self.changed}

    @property
    def traits(self) -> set[str]:
        return set(self.settings["traits"])

    @property
    def label(self) -> str:
        inner = [variation.label for variation in self.variations]
        inner += [f"{k}={v}" for k, v in sorted(self.changed.items())]
        return f"{self.name}({','.join(inner)})" if inner else self.name

    def set_to(self, settings: Mapping[str, Any]) -> "Workload":
        """Return the workload with its settings as they were composed; SettingError if one is of another kind."""
        settings = fitted(settings, self.variations, self.source) if self.variations else settings
        check_settings(settings["config"], self.config, "workload.config.")
        changed = {k: v for k, v in settings["config"].items() if self.config.get(k) != v}
        return replace(self, settings=settings, changed=changed)

    def varied(self, variations: Sequence[Variation], datasets: Mapping[str, Path]) -> "Workload":
        """Return the workload with other data or another model."""
        source = varied_source(self.source, variations, self.settings["roles"], self.name)
        settings = self.settings
        for variation in variations:
            settings = merged(settings, variation.settings)
        dataset = datasets.get(settings["dataset"], self.dataset)
        settings = fitted(settings, variations, source)
        return replace(self, dataset=dataset, settings=settings, variations=tuple(variations))


def apply(card: Card, workload: Workload) -> tuple[Edited, dict[str, Any], dict[str, Any]]:
    """Return the edited program, its config, and the twin's config.

    Raises:
        NoMatch, SettingError: the card does not apply.
        InjectionError: the card is defective on this program.
    """
    where = f"{card.id} on {workload.name}"
    edited = Edited(workload.source, ())
    if card.variants:
        roles = workload.settings["roles"].items()
        names = tuple((role, name if isinstance(name, str) else tuple(name)) for role, name in roles)
        found = _injected(workload.source, card.variants, names, card.id, workload.name)
        if isinstance(found, NoMatch):
            raise NoMatch(str(found))
        edited = found
    base = {"seed": 0, **workload.config}
    twin = change_config(base, card.setting, where)
    return edited, change_config(twin, card.config, where), twin


@lru_cache(maxsize=4096)  # who lists a catalogue or tests it asks several times whether each card applies where
def _injected(
    source: str,
    variants: tuple[tuple[Edit, ...], ...],
    roles: tuple[tuple[str, str | tuple[str, ...]], ...],
    card: str,
    program: str,
) -> Edited | NoMatch:
    try:
        return inject(source, variants, roles=dict(roles), card=card, program=program)
    except NoMatch as reason:
        return reason
