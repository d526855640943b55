"""What tests that inject faults into the harness share: damage to a file, and what must be whole in spite of it."""

from pathlib import Path

import pytest
from bugbench.records import Records
from bugbench.store import Store
from bugbench.worker import Worker, WorkerPool

FAST = "diabetes_mlp"  # trains in half a second
DETECTORS = ["oracle", "finite_checks", "learning_curves", "always_faulty"]
LONG = 500  # seconds that nothing here comes near


def slow(*values: object) -> object:
    """Return parameters of a test that is run with ``-m slow`` alone: the quick ones stand for them."""
    return pytest.param(*values, marks=pytest.mark.slow)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)


def assert_nothing_half_written(results: Path) -> None:
    """Every case can be read and every trace is whole."""
    assert Records(results).read().damaged == []
    pool = WorkerPool([Worker("train")])  # starts nothing
    store = Store(results, pool)
    data = [path.name for path in (results / "runs" / "data").glob("[!.]*")]
    for folder in (results / "runs" / "traces").glob("[!.]*"):
        store.verify(folder.name, data[0])
