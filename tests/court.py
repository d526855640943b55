"""A trace that names its case, and detectors of a few lines that are put before a bench."""

import json
from pathlib import Path
from textwrap import dedent, indent

import torch
from bugbench.judging import Bench, Exhibit, Judge
from bugbench.judging_worker import JudgingWorker
from bugbench.recorder import Recorder
from bugbench.worker import WorkerPool

STEPS = 25
ALARM = "return suspect('softmax_dim', 'seen')"

OPENING = """\
import ctypes, json, os, re, signal, subprocess, sys, time
from dataclasses import dataclass
from pathlib import Path
from bugbench.detector import *

def say(what):
    text = json.dumps(what)
    return Diagnosis([Suspect("any", evidence=text[i : i + 500]) for i in range(0, len(text), 500)])

"""
TEMPLATE = (
    OPENING
    + """\
@dataclass
class Own(Detector):
    access = {access}
    {knobs}

    def diagnose(self, trace):
{body}
"""
)


def record_exhibit(home: Path) -> Exhibit:
    """Return a trace of 25 steps with an evaluation after every ten."""
    trace = home / "trace"
    run = Recorder(trace, task="classification", classes=2)
    batch = dict(inputs=torch.ones(2, 1), targets=torch.tensor([0, 1]), outputs=torch.ones(2, 2), loss=1.0)
    for step in range(STEPS):
        run.log_batch("train", **batch)
        if step % 10 == 9:
            run.log_batch("val", **batch)
            run.log_metrics("val", loss=1.0)
    run.finish(predictions={"outputs": torch.ones(1), "targets": torch.ones(1)}, error="ValueError: late")
    (trace / "program.py").write_text("lr = 0.1\n")
    (trace / "config.yaml").write_text("{lr: 0.1, seed: 7}\n")
    (home / "data").mkdir()
    (home / "data" / "table.csv").write_text("1,2\n")
    return Exhibit("0123abcd", trace, home / "data", {"fault": "softmax_dim", "lines": [3]})


class Court:
    """A bench with a results folder of its own, and detectors made of a few lines."""

    def __init__(self, folder: Path, pool: WorkerPool) -> None:
        self.folder = folder
        self.bench = Bench(folder / "results", pool, judge_seconds=60)

    def detector(self, body, access=("curves",), name="own", knobs="", **values) -> Judge:
        path = self.folder / f"{name}.py"
        body = indent(dedent(body), " " * 8)
        path.write_text(TEMPLATE.format(access=set(access), knobs=knobs or "pass", body=body))
        return Judge(name, path, frozenset(access), values)

    def said(self, exhibit, body, access=("curves",)):
        """Return what a detector of these lines said."""
        answer = self.bench.judge(exhibit, self.detector(body, access))
        assert answer["status"] == "ok", answer
        return json.loads("".join(suspect["evidence"] for suspect in answer["suspects"]))

    def stored(self):
        return sorted(path.name for path in (self.folder / "results").rglob("*.json"))


class Counted:
    """A detector whose calls are counted on their way to the worker."""

    def __init__(self, court, monkeypatch, body="return HEALTHY", access=("curves",)):
        self.court, self.access = court, access
        self.body = body
        self.calls = 0
        diagnose = JudgingWorker.diagnose

        def counting(*arguments):
            self.calls += 1
            return diagnose(*arguments)

        monkeypatch.setattr(JudgingWorker, "diagnose", counting)

    def judge(self, exhibit, again=False, body="", **knobs):
        judge = self.court.detector(body or self.body, self.access, knobs="patience: int = 1", **knobs)
        return self.court.bench.judge(exhibit, judge, again)
