"""Every detector reads what its access grants and nothing beside it."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from bugbench.detector import NotApplicable, NotInstalled, Trace
from recorded_program import CATALOGUE, RAW, detector, shown

GRANTED = {  # access: what it adds to meta.json, metrics.parquet, steps.parquet and error.txt
    "curves": set(),
    "tensors": {"layers.parquet"},
    "data": {"samples.parquet", "batches", "predictions.safetensors"},
    "source": {"program.py", "config.yaml"},
    "rerun": {"program.py", "config.yaml", "data"},
}
ALWAYS = {"meta.json", "metrics.parquet", "steps.parquet", "error.txt"}
JUDGED = sorted(set(CATALOGUE.detectors) - {"oracle"})


def answer(name: str, folder: Path) -> object:
    """Return what a detector says: its suspects, what it takes to learn, or the exception by which it declines."""
    torch.manual_seed(0)
    try:
        learner = CATALOGUE.detectors[name].learns
        return detector(name).extract(Trace(folder)) if learner else detector(name).diagnose(Trace(folder))
    except (NotApplicable, NotInstalled) as reason:
        return f"{type(reason).__name__}: {reason}"


@pytest.mark.parametrize("name", JUDGED)
def test_detector_reads_nothing_beyond_its_access(name, programs, tmp_path, monkeypatch):
    """What an access does not grant is absent; in its place, garbage is neither opened nor changes the answer."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # as in a judging process
    access = {"curves", *CATALOGUE.detectors[name].access}
    granted = ALWAYS.union(*(GRANTED[item] for item in access))
    alone = shown(name, programs.trace(RAW), tmp_path / "alone")
    assert {path.name for path in alone.iterdir()} <= granted
    beside = shutil.copytree(alone, tmp_path / "beside")
    for undeclared in set().union(*GRANTED.values()) - granted:
        if undeclared in ("batches", "data"):
            (beside / undeclared).mkdir()
            (beside / undeclared / "train-0000000.safetensors").write_bytes(b"garbage")
        else:
            (beside / undeclared).write_bytes(b"garbage")
    opened = set()

    def note(event: str, arguments: tuple) -> None:
        if event == "open" and watching and isinstance(arguments[0], str | os.PathLike):
            path = Path(arguments[0])
            if path.is_relative_to(beside) and len(path.parts) > len(beside.parts):
                opened.add(path.relative_to(beside).parts[0])

    watching = False
    sys.addaudithook(note)  # for good: it notes nothing when it is not watching
    expected = answer(name, alone)
    watching = True
    try:
        assert answer(name, beside) == expected
    finally:
        watching = False
    assert opened - {"__pycache__"} <= granted  # where an import of the program looks for bytecode
