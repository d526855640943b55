"""Answers of published rule sets: rules that fired, turned into suspects by a table that says what each points at."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bugbench.detector import Diagnosis, Suspect


@dataclass(frozen=True)
class Finding:
    """A rule that fired: its name in the table, what was seen, and where."""

    rule: str
    evidence: str
    layer: str | None = None
    line: int | None = None


def answer(table: Mapping[str, tuple[str, ...]], findings: Iterable[Finding]) -> Diagnosis:
    """Return the suspects of the rules that fired: in the order of the table, each fault once.

    Of several findings of a rule the first counts. Rules further up in the table are named first, and of what a rule
    points at the first comes first; confidence only says so again.
    """
    first: dict[str, Finding] = {}
    for finding in findings:
        if finding.rule not in table:
            raise KeyError(f"the rule {finding.rule!r} is not in the table")
        first.setdefault(finding.rule, finding)
    suspects: dict[str, Suspect] = {}
    for rule in table:
        if found := first.get(rule):
            for fault in table[rule]:
                text = f"{rule}: {found.evidence}"
                rank = 1 / (len(suspects) + 2)
                suspects.setdefault(fault, Suspect(fault, rank, text, line=found.line, layer=found.layer))
    return Diagnosis(suspects.values())
