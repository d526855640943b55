"""What the documents list is all there is: columns, statuses, traits and roles."""

import re
from pathlib import Path

import pandas as pd
import pytest
from bugbench.records import Record
from bugbench.scoring import STATUSES, VERDICT_TYPES
from bugbench.trace import Trace

ROOT = Path(__file__).resolve().parent.parent
TABLES = sorted((ROOT / "results").glob("*.csv"))


def quoted(document: str) -> set[str]:
    text = re.sub(r"^```.*?^```", "", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`([^`]+)`", text))


def section(name: str) -> str:
    """Return the paragraph on a table in results/README.md, which may be on several."""
    paragraphs = (ROOT / "results" / "README.md").read_text().split("\n\n")
    (found,) = (p for p in paragraphs if p.startswith("**") and f"`{name}`" in p.rpartition("**")[0])
    return found


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_columns_of_a_reference_table_are_explained(table):
    text = section(table.name)
    assert not [column for column in pd.read_csv(table, nrows=0).columns if not _names(text, column)]


def test_columns_of_the_published_tables_are_explained():
    cases, verdicts = section("cases.parquet"), section("verdicts.parquet")
    assert not [name for name in Record.__annotations__ if not _names(cases, name)]
    assert not [name for name in VERDICT_TYPES if not _names(verdicts + cases, name)]


def _names(text: str, column: str) -> bool:
    """Tell whether a text names a column: itself, as an end of an interval, or within "first … last"."""
    stem = re.sub(r"_(low|high)$", "", column)
    if f"`{column}`" in text or (f"`{stem}`" in text and stem != column):
        return True
    return column in ("oracle_twin", "reported_bug") and "`oracle_bug` … `reported_twin`" in text


def test_every_status_is_explained():
    assert set(STATUSES) <= quoted("results/README.md")


def test_traits_and_roles_are_listed(catalogue):
    known = quoted("CONTRIBUTING.md")
    settings = [workload.settings for workload in catalogue.workloads.values()]
    assert {trait for own in settings for trait in own["traits"]} <= known
    used = {role for path in (ROOT / "bugs").glob("*.yaml") for role in re.findall(r'"@(\w+)"', path.read_text())}
    assert used <= known
    everywhere = set.intersection(*(set(own["roles"]) for own in settings))
    assert everywhere == {"data", "split", "loaders", "network", "model", "optimizer", "loss", "train_step"} | {
        "evaluate",
        "main",
        "predict",
    }


def test_columns_of_a_trace_are_listed(exhibit):
    trace, known = Trace(exhibit.trace), quoted("CONTRIBUTING.md")
    for table in (trace.steps, trace.metrics, trace.layers, trace.samples):
        assert {name for name in table.columns if not name.startswith("input_")} <= known
