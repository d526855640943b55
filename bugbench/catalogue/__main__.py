"""List the catalogue: ``python -m bugbench.catalogue [--format table|json] [--search-path FOLDER …]``."""

import argparse
import json
import sys
from typing import Any

from bugbench.catalogue import Catalogue, load, search_path_of
from bugbench.scoring import tier
from rich.console import Console
from rich.table import Table


def listing(catalogue: Catalogue) -> dict[str, list[dict[str, Any]]]:
    """Return bugs, faults, workloads, detectors and cases (which bug applies to which workload)."""
    cards = [catalogue.card(name) for name in catalogue.cards]
    families = {f: entry["family"] for f, entry in catalogue.faults.items()} | {"none": "none"}
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
            {"id": name, "access": sorted(d.access), "tier": tier(d.access), "knobs": dict(d.knobs)}
            for name, d in catalogue.detectors.items()
        ],
        "cases": [{"bug": c.id, "workload": w.name} for c in cards for w in catalogue.applicable(c)],
    }


def show(catalogue: Catalogue, console: Console) -> None:
    """Print the catalogue as tables."""
    data = listing(catalogue)
    applies = {(case["bug"], case["workload"]) for case in data["cases"]}
    names = [w["id"] for w in data["workloads"]]
    bugs = Table(title="Bugs and controls (● applies)", title_justify="left")
    for column in ("bug", "fault", "family", *names):
        bugs.add_column(column, justify="center" if column in names else "left", overflow="fold")
    for bug in sorted(data["bugs"], key=lambda b: (b["control"], b["family"], b["id"])):
        marks = ["●" if (bug["id"], name) in applies else "" for name in names]
        fault = "[dim]control[/]" if bug["control"] else bug["fault"]
        bugs.add_row(bug["id"], fault, "" if bug["control"] else bug["family"], *marks)
    detectors = Table(title="Detectors", title_justify="left")
    for column in ("detector", "access", "knobs"):
        detectors.add_column(column, overflow="fold")
    for detector in data["detectors"]:
        knobs = ", ".join(f"{k}={v}" for k, v in detector["knobs"].items())
        detectors.add_row(detector["id"], " + ".join(detector["access"]), knobs)
    console.print(bugs)
    console.print(detectors)
    for workload in data["workloads"]:
        words = [f"{kind}={name}" for kind in catalogue.variations for name in workload[kind]]
        if words:
            console.print(f"{workload['id']} also with {', '.join(words)}", highlight=False, soft_wrap=True)
    shown = sum(bool(f["bugs"]) for f in data["faults"])
    console.print(
        f"{len(data['bugs'])} cards ({sum(b['control'] for b in data['bugs'])} controls) for {shown} of "
        f"{len(data['faults'])} faults, {len(names)} workloads, {len(data['cases'])} cases a seed."
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bugbench.catalogue", description="List the catalogue.")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument("--search-path", nargs="+", default=search_path_of([]), metavar="FOLDER")
    options = parser.parse_args(arguments)
    try:
        catalogue = load(options.search_path)
    except (ValueError, LookupError) as error:
        sys.exit(f"bugbench: {error}")
    if options.format == "json":
        print(json.dumps(listing(catalogue), indent=1))
    else:
        show(catalogue, Console())


if __name__ == "__main__":
    main(sys.argv[1:])
