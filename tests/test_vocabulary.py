"""The vocabulary of faults: well-formed, and its ids frozen."""

import re
from pathlib import Path

import bugbench.scoring
import yaml


def test_vocabulary():
    vocabulary = yaml.safe_load((Path(bugbench.scoring.__file__).parent / "faults.yaml").read_text("utf-8"))
    families = vocabulary["families"]
    faults = [fault for family in families.values() for fault in family["faults"]]
    assert len(faults) == len(set(faults)), "a fault belongs to one family"
    assert not set(faults) & set(families), "a detector's answer must say which of the two it means"
    assert not set(faults) & set(vocabulary["deprecated"])
    assert not {"none", "healthy"} & {*faults, *families}
    for name in [*faults, *families, *vocabulary["deprecated"]]:
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name), name
    for family in families.values():
        assert set(family) == {"title", "faults"}
        assert all(isinstance(title, str) and title for title in [family["title"], *family["faults"].values()])
    for entry in vocabulary["deprecated"].values():
        assert set(entry) == {"date", "reason"}


def test_ids_are_frozen():
    """What was ever released still means the same, or says why it was withdrawn; what is new is written down."""
    vocabulary = yaml.safe_load((Path(bugbench.scoring.__file__).parent / "faults.yaml").read_text("utf-8"))
    lines = Path(__file__).with_name("frozen_faults.txt").read_text("utf-8").splitlines()
    recorded = dict(line.split() for line in lines if not line.startswith("#"))
    assert len(recorded) == sum(not line.startswith("#") for line in lines), "an id stands twice"
    today = {fault: name for name, family in vocabulary["families"].items() for fault in family["faults"]}
    gone = set(recorded) - set(today)
    assert gone == set(vocabulary["deprecated"])
    assert not [fault for fault in today if recorded.get(fault, today[fault]) != today[fault]], (
        "moved to another family"
    )
    assert not set(today) - set(recorded), "a new id belongs at the end of tests/frozen_faults.txt"
