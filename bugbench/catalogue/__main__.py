"""List the catalogue: ``python -m bugbench.catalogue [NAME …] [--format table|json] [--search-path FOLDER …]``."""

import argparse
import json
import sys
from typing import Any

import pandas as pd
import yaml
from bugbench.catalogue import Catalogue, load, search_path_of
from bugbench.catalogue.entry import show_entry
from bugbench.impact import is_harmful
from bugbench.known_impact import reference_impact
from bugbench.plugins import project_folder
from bugbench.scoring import tier
from rich.console import Console
from rich.table import Table


def listing(catalogue: Catalogue, impact: pd.DataFrame | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return bugs, faults, workloads, detectors, suites, and cases: which bug applies where.

    Args:
        catalogue: what to list.
        impact: the impact table, of which each case gets its ``state`` (None where it was not measured).
    """
    cards = [catalogue.card(name) for name in catalogue.cards]
    families = {f: entry["family"] for f, entry in catalogue.faults.items()} | {"none": "none"}
    states = {} if impact is None else {(row.bug, row.workload): row.state for row in impact.itertuples()}
    places = {c.id: [w.name for w in catalogue.applicable(c)] for c in cards}
    return {
        "bugs": [
            {"id": c.id, "fault": c.fault, "family": families[c.fault], "control": c.control, "title": c.title}
            for c in cards
        ],
        "faults": [
            {"id": fault, **entry, "bugs": [c.id for c in cards if c.fault == fault]}
            for fault, entry in catalogue.faults.items()
        ],
        "workloads": [
            {
                "id": w.name,
                "task": w.settings["task"],
                "traits": sorted(w.traits),
                "oracle": w.settings["oracle"]["metric"],
                **{
                    kind: [v.name for v in variations.values() if w.name in v.workloads]
                    for kind, variations in catalogue.variations.items()
                },
            }
            for w in catalogue.workloads.values()
        ],
        "detectors": [
            {
                **{"id": name, "access": sorted(d.access), "tier": tier(d.access), "knobs": dict(d.knobs)},
                "learns": d.learns,
            }
            for name, d in catalogue.detectors.items()
        ],
        "suites": [suite(name, catalogue, places) for name in ("quick", "full")],
        "cases": [{"bug": bug, "workload": w, "state": states.get((bug, w))} for bug in places for w in places[bug]],
    }


def suite(name: str, catalogue: Catalogue, places: dict[str, list[str]]) -> dict[str, Any]:
    """Return how many cases of bugs and of controls a suite holds, given the workloads that each card applies to."""
    settings = yaml.safe_load((project_folder("conf") / "suite" / f"{name}.yaml").read_text())
    general = {"seeds": settings["seeds"], "workload": settings["hydra"]["sweeper"]["params"].get("workload", "auto")}
    counts = {"bug": 0, "control": 0}
    for bug, workloads in places.items():
        kind = "control" if catalogue.cards[bug]["fault"] == "none" else "bug"
        chosen = general | (settings["controls"] if kind == "control" else {})
        counts[kind] += chosen["seeds"] * (1 if chosen["workload"] == "auto" else len(workloads))
    share = counts["control"] / sum(counts.values())
    return {"id": name, "bug_cases": counts["bug"], "control_cases": counts["control"], "control_share": share}


def show(catalogue: Catalogue, impact: pd.DataFrame | None, console: Console) -> None:
    """Print the catalogue as tables."""
    data = listing(catalogue, impact)
    state = {(case["bug"], case["workload"]): case["state"] for case in data["cases"]}
    names = [w["id"] for w in data["workloads"]]
    bugs = Table(title="Bugs and controls, and what they do on each workload", title_justify="left")
    bugs.add_column("bug", overflow="fold")
    bugs.add_column("fault, if named otherwise", overflow="fold")
    # one column for all workloads: with one for each, names would have to be broken on a terminal of usual width
    bugs.add_column(" ".join(map(str, range(1, len(names) + 1))), no_wrap=True)
    family = None
    for bug in sorted(data["bugs"], key=lambda b: (b["control"], b["family"], b["id"])):
        if (bug["control"], bug["family"]) != family:
            family = (bug["control"], bug["family"])
            bugs.add_section()
            bugs.add_row("[bold]controls: nothing is wrong[/]" if bug["control"] else f"[bold]{bug['family']}[/]")
        marks = [_mark(state[bug["id"], name]) if (bug["id"], name) in state else " " for name in names]
        fault = "" if bug["control"] or bug["fault"] == bug["id"] else bug["fault"]
        bugs.add_row(bug["id"], fault, " ".join(marks))
    detectors = Table(title="Detectors", title_justify="left")
    for column in ("detector", "access", "knobs"):
        detectors.add_column(column, overflow="fold")
    for detector in data["detectors"]:
        knobs = ", ".join(f"{k}={v}" for k, v in detector["knobs"].items())
        access = " + ".join([*detector["access"], *(["learns"] if detector["learns"] else [])])
        detectors.add_row(detector["id"], access, knobs)
    console.print(bugs)
    console.print(", ".join(f"{number} {name}" for number, name in enumerate(names, 1)), highlight=False)
    console.print("● does harm   ○ applies, does none (for a control: as it should)   · applies, not measured\n")
    console.print(detectors)
    for workload in data["workloads"]:
        words = [f"{kind}={name}" for kind in catalogue.variations for name in workload[kind]]
        if words:
            console.print(f"{workload['id']} also with {', '.join(words)}", highlight=False, soft_wrap=True)
    shown = sum(bool(f["bugs"]) for f in data["faults"])
    controls = sum(b["control"] for b in data["bugs"])
    console.print(
        f"{len(data['bugs'])} cards ({controls} controls) for {shown} of {len(data['faults'])} faults on "
        f"{len(names)} workloads: {len(data['cases'])} cases a seed."
    )
    for entry in data["suites"]:
        cases = f"{entry['bug_cases']} cases of bugs and {entry['control_cases']} of controls"
        console.print(f"suite={entry['id']}: {cases} ({entry['control_share']:.0%}).", highlight=False)


def _mark(state: str | None) -> str:
    if state is None:
        return "·"
    return "●" if is_harmful(state) else "○"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bugbench.catalogue", description="List the catalogue.")
    help_text = (
        "a bug, control, fault, family, workload or detector to tell of; all of them, as tables, if none is named"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=help_text)
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument("--search-path", nargs="+", default=search_path_of([]), metavar="FOLDER")
    options = parser.parse_args(arguments)
    if options.names and options.format == "json":
        parser.error("--format json lists everything: give it no NAME")
    try:
        catalogue = load(options.search_path)
        impact = reference_impact(project_folder("results"))
        for name in options.names:
            show_entry(name, catalogue, impact, Console())
    except (ValueError, LookupError) as error:
        sys.exit(f"bugbench: {error}")
    if options.names:
        return
    if options.format == "json":
        print(json.dumps(listing(catalogue, impact), indent=1))
    else:
        show(catalogue, impact, Console())


if __name__ == "__main__":
    main(sys.argv[1:])
