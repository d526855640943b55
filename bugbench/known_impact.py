"""What is known of the harm that bugs do: what this results folder has measured, and what ships with the project."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from bugbench.card import Card
from bugbench.catalogue import Catalogue, Workload
from bugbench.names import UnknownName
from bugbench.plugins import project_folder
from bugbench.records import Record, impact_of, merge_impact, read_impact
from bugbench.runner import digest


def reference_impact(results: Path) -> pd.DataFrame | None:
    """Return the impact table that ships with the project, with this results folder's own measurements in it."""
    shipped = read_impact(project_folder("results") / "impact.csv")
    own = read_impact(results / "impact.csv")
    return shipped if own is None else merge_impact(shipped, own)


def choose_workloads(card: Card, choice: str, catalogue: Catalogue, impact: pd.DataFrame | None) -> list[Workload]:
    """Return the workloads a job runs on: "auto" is where the bug bites hardest, "all" every one it applies to.

    A card that bites nowhere, as a control should, takes one by its name, so that many of them spread evenly.

    Raises:
        UnknownName: the card applies to no workload, with the reason for each.
    """
    applicable = catalogue.applicable(card)
    if not applicable:
        reasons = [f"  {w.name}: {catalogue.why_not(card, w)}" for w in catalogue.workloads.values()]
        raise UnknownName("\n".join([f"{card.id} applies to no workload:", *reasons]))
    if choice == "all":
        return applicable
    if impact is None:
        return applicable[:1]
    rows = impact[impact["bug"] == card.id].set_index("workload")

    def bite(workload: Workload) -> float:
        if workload.name not in rows.index:
            return -1.0
        row = rows.loc[workload.name]
        if row["state"] == "latent":
            return 0.0
        width = workload.settings["oracle"]["bounds"][1] - workload.settings["oracle"]["bounds"][0]
        misreport = abs(row["report_shift"]) / width
        return 1.0 + max(row["effect_share"], misreport) + (2.0 if row["state"] == "crashed" else 0.0)

    hardest = max(applicable, key=bite)
    return [hardest if bite(hardest) > 0 else applicable[int(digest(card.id), 16) % len(applicable)]]


def measured_impact(results: Path, records: Sequence[Record]) -> pd.DataFrame:
    """Return the impact of these cases, from longer measurements of the same programs where there are any."""
    measured = impact_of(records)
    reference = reference_impact(results)
    if reference is None:
        return measured
    merged = merge_impact(reference, measured).set_index(["bug", "workload"])
    pairs = measured.set_index(["bug", "workload"]).index
    return merged.loc[pairs].reset_index()
