"""Faults in the families of today's vocabulary, whatever they were in when a case was judged."""

import json
from dataclasses import dataclass, replace

import pandas as pd
from bugbench.catalogue import vocabulary
from bugbench.records import Cases


@dataclass(frozen=True)
class Regrouped:
    """Cases with one family for each fault.

    Attributes:
        cases: with the families of today, and the marks that follow from them.
        moved: the faults that stored cases have in another family.
    """

    cases: Cases
    moved: list[str]

    @property
    def words(self) -> str:
        """Return a sentence that names what has moved; empty if nothing has."""
        names = ", ".join(f"`{name}`" for name in self.moved)
        return f" **Judged when in another family, but counted in today's: {names}.**" if names else ""


def regrouped(cases: Cases) -> Regrouped:
    """Return the cases with their faults in the families of the vocabulary.

    A fault that is no longer in it stays where the first of its cases has it.
    """
    family_of = {record.fault: record.family for record in reversed(cases.records)}
    family_of |= {fault: entry["family"] for fault, entry in vocabulary()[0].items()}
    moved = sorted({record.fault for record in cases.records if record.family != family_of[record.fault]})
    if not moved:
        return Regrouped(cases, [])
    records = [replace(record, family=family_of[record.fault]) for record in cases.records]
    verdicts = cases.verdicts
    family = verdicts["fault"].map(family_of).fillna(verdicts["family"]).astype(verdicts["family"].dtype)
    named = pd.Series([_first(text) for text in verdicts["suspects"]], index=verdicts.index, dtype="object")
    related = verdicts["alarm"] & ~verdicts["control"] & (named.map(lambda name: family_of.get(name, name)) == family)
    right = (verdicts["exact"] | related).astype(verdicts["family_right"].dtype)
    verdicts = verdicts.assign(family=family, family_right=right)
    return Regrouped(replace(cases, records=records, verdicts=verdicts), moved)


def _first(suspects: str) -> str:
    """Return the fault, or family, that the first of a verdict's suspects names; empty without any."""
    found = json.loads(suspects)
    return str(found[0]["fault"]) if found else ""
