"""Cases put into a results folder by hand, and the page that is drawn from them."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
from bugbench import catalogue as catalogue_module
from bugbench.integrity import write_sealed
from bugbench.records import Record, Records
from bugbench.report import leaderboard
from bugbench.scoring import verdict, verdict_table

FAMILIES = {fault: entry["family"] for fault, entry in catalogue_module.vocabulary()[0].items()}
ORACLE = {"metric": "accuracy", "direction": "maximize", "bounds": [0.0, 1.0], "floor": 0.02}
EMPTY_ELEMENTS = {"meta", "link", "input", "br", "img"}


def record(bug="softmax_dim", fault="softmax_dim", workload="digits", seed=0, **changes) -> Record:
    fields = {
        **dict(bug=bug, fault=fault, family=FAMILIES.get(fault, "none"), control=fault == "none", workload=workload),
        **dict(seed=seed, onset=0, lines=[3], accepts=[], trace_key=f"{bug}-{seed}", twin_key=f"twin-{seed}"),
        **dict(program_key="p", data="digits-0", oracle_bug=0.9 if fault == "none" else 0.5, oracle_twin=0.9),
        **dict(reported_bug=0.5, reported_twin=0.5, crashed_bug=False, error=None, seconds_bug=1.0, seconds_twin=2.0),
        **dict(oracle=ORACLE),
    }
    fields["reported_bug"] = fields["oracle_bug"]
    fields["reported_twin"] = fields["oracle_twin"]
    return Record(**{**fields, **changes})


def store(results: Path, case: Record, answers: dict, evidence: str = "seen", version: str = "", **details) -> None:
    """Store a case; ``answers``: detector to the fault it names, None for silence."""
    rows = []
    for detector, fault in answers.items():
        suspects = [{"fault": fault, "evidence": evidence, "line": 3}] if fault else []
        access = "truth" if detector == "oracle" else "curves+data"
        rows.append(verdict(case.truth, detector, access, FAMILIES, suspects, alarm_step=4, seconds=0.1, **details))
    Records(results).write(case, verdict_table(row | {"isolation": "namespaces", "version": version} for row in rows))


def write_trace(results: Path, key: str, source: str, losses: list[float]) -> None:
    folder = results / "runs" / "traces" / key / "trace"
    folder.mkdir(parents=True)
    (folder / "program.py").write_text(source)
    (folder / "config.yaml").write_text(f"lr: {0.1 if key.startswith('twin') else 0.5}\nseed: 0\n")
    steps = pd.DataFrame({"split": "train", "step": range(len(losses)), "epoch": 0, "loss": losses, "lr": 0.1})
    steps.to_parquet(folder / "steps.parquet")
    metrics = {"split": ["val"] * 2, "epoch": [0, 1], "step": [1, 2], "name": ["accuracy"] * 2, "value": [0.5, 0.75]}
    pd.DataFrame(metrics).to_parquet(folder / "metrics.parquet")
    write_sealed(folder.parent / "outcome.json", {"outcome": {"steps": len(losses)}, "files": {}})


class Checked(HTMLParser):
    """Keeps the elements, and what each script and style holds; complains of what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.holds: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in EMPTY_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        while self.open and self.open[-1] in ("option", "tr", "td") and self.open[-1] != tag:
            self.open.pop()  # these need no end
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, text):
        self.holds.append((self.open[-1] if self.open else "", text))

    def text(self, tag: str) -> str:
        return "".join(text for owner, text in self.holds if owner == tag)


def built(results: Path, catalogue=None) -> tuple[str, Checked]:
    leaderboard.build(results, Records(results).read(), catalogue)
    text = (results / "leaderboard.html").read_text()
    return text, Checked(text)


def data_of(text: str) -> dict:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)
