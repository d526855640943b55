"""A results folder with cases to learn from, and detectors of a few lines that learn."""

import json
import shutil
from pathlib import Path
from textwrap import dedent, indent

import pandas as pd
from bugbench import integrity
from bugbench.declaration import read_declaration
from bugbench.detector import Label
from bugbench.judging import Bench, Exhibit, Judge
from bugbench.learning import Learning
from bugbench.recorder import Recorder
from bugbench.records import Record, Records
from bugbench.scoring import verdict_table
from bugbench.store import Store
from bugbench.worker import Worker, WorkerPool
from court import OPENING

TEMPLATE = (
    OPENING
    + """\
@dataclass
class Own(Detector):
    def extract(self, trace):
{extract}

    def fit(self, examples):
{fit}

    def diagnose(self, trace):
{diagnose}
"""
)
EXTRACT = "return trace.train_steps()['loss'][0]"
FIT = "return [[value, label._asdict()] for value, label in examples]"
DIAGNOSE = "return say(self.model)"
FAULTY = Label("softmax_dim", "loss", "digits", control=False)
HEALTHY = Label("none", "none", "digits", control=True)


class School:
    """A results folder with a bench, a detector made of a few lines, and cases whose traces are a single loss."""

    def __init__(self, folder: Path, pool: WorkerPool) -> None:
        self.folder, self.results = folder, folder / "results"
        self.bench = Bench(self.results, pool)
        self.store = Store(self.results, WorkerPool([Worker("train")]))
        (folder / "data" / "empty").mkdir(parents=True)
        (folder / "data" / "table.csv").write_text("1\n")
        self.digest = integrity.content_digest(folder / "data")
        self.data = self.table("table")

    def table(self, dataset: str) -> str:
        """Store training data; return the name of their folder."""
        name = f"{dataset}-{self.digest}"
        shutil.copytree(self.folder / "data", self.store.root / "data" / name, dirs_exist_ok=True)
        return name

    def judge(self, extract=EXTRACT, fit=FIT, diagnose=DIAGNOSE, name="own") -> Judge:
        path = self.folder / f"{name}.py"
        bodies = {"extract": extract, "fit": fit, "diagnose": diagnose}
        path.write_text(TEMPLATE.format(**{name: indent(dedent(body), " " * 8) for name, body in bodies.items()}))
        declared = read_declaration(path)
        assert declared.learns
        return Judge(name, path, declared.access, {}, declared.learns)

    def trace(self, loss: float) -> Exhibit:
        """Return a stored trace of one batch with this loss; its name does not follow its loss."""
        key = integrity.hashlib.sha256(str(loss).encode()).hexdigest()[:24]
        folder = self.store.root / "traces" / key
        if not folder.exists():
            run = Recorder(folder / "trace", access=("curves",))
            run.log_batch("train", inputs=None, targets=None, outputs=None, loss=loss)
            run.finish()
            outcome = dict(key=key, crashed=False, error=None, oracle=0.9, reported=0.9, seconds=1.0, steps=1)
            files = integrity.manifest(folder / "trace")
            integrity.write_sealed(folder / "outcome.json", {"outcome": outcome, "files": files})
        return Exhibit(key, folder / "trace", self.store.root / "data" / self.data, {"fault": "x", "lines": []})

    def case(
        self, workload: str, bug: str, loss: float, twin: float, harm: bool = True, seed: int = 0, dataset: str = ""
    ) -> Record:
        """Store a case; a bug whose name begins with "control" is one, and each workload has data of its own."""
        control = bug.startswith("control")
        fault, family = ("none", "none") if control else ("softmax_dim", "loss")
        oracle = 0.5 if harm and not control else 0.9
        record = Record(
            **dict(bug=bug, fault=fault, family=family, control=control, workload=workload, seed=seed, onset=0),
            **dict(lines=[], accepts=[], trace_key=self.trace(loss).key, twin_key=self.trace(twin).key),
            **dict(
                program_key=f"{workload}{bug}",
                data=self.table(dataset or workload.partition("(")[0]),
                oracle_bug=oracle,
                oracle_twin=0.9,
            ),
            **dict(reported_bug=oracle, reported_twin=0.9, crashed_bug=False, error=None, seconds_bug=1.0),
            seconds_twin=1.0,
            oracle={"metric": "accuracy", "direction": "maximize", "bounds": [0.0, 1.0], "floor": 0.02},
        )
        Records(self.results).write(record, verdict_table([]))
        return record

    def learning(self, impact=None, again=False) -> Learning:
        return Learning(self.results, self.store, self.bench, 1, impact or measured, again)

    def learned(self, judge: Judge, workload: str) -> list[tuple[float, Label]]:
        """Return what a detector was taught for a workload, by a fit that returns its examples."""
        (taught,) = self.learning().taught([judge], workload, self.table(workload.partition("(")[0]))
        assert taught.model.status == "ok", taught.model
        return [(value, Label(**label)) for value, label in json.loads(taught.model.text)]


def measured(results: Path, records) -> pd.DataFrame:
    """Stand in for the measurement of impact: harmful where the hidden test is below 0.9."""
    states = {(r.bug, r.workload): "degraded" if r.oracle_bug < 0.9 else "latent" for r in records}
    return pd.DataFrame([(*pair, state) for pair, state in states.items()], columns=["bug", "workload", "state"])
