"""Detectors that learn: from other workloads only, as confined as all, and kept under keys of all they depend on."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent, indent

import pandas as pd
import pytest
from bugbench import integrity
from bugbench.answers import MAX_VALUE
from bugbench.declaration import read_declaration
from bugbench.detector import Label
from bugbench.isolation import LEVELS
from bugbench.judging import Bench, Exhibit, Judge, Model
from bugbench.judging_worker import JudgingWorker
from bugbench.learning import Learning, examples_without
from bugbench.plugins import CatalogueError
from bugbench.recorder import Recorder
from bugbench.records import Record, Records
from bugbench.scoring import verdict_table
from bugbench.store import Store
from bugbench.worker import Worker, WorkerPool

TEMPLATE = """\
import json, os, re, time
from dataclasses import dataclass
from pathlib import Path
from bugbench.detector import *

def say(what):
    text = json.dumps(what)
    return Diagnosis([Suspect("any", evidence=text[i : i + 500]) for i in range(0, len(text), 500)])

@dataclass
class Own(Detector):
    def extract(self, trace):
{extract}

    def fit(self, examples):
{fit}

    def diagnose(self, trace):
{diagnose}
"""
EXTRACT = "return trace.train_steps()['loss'][0]"
FIT = "return [[value, label._asdict()] for value, label in examples]"
DIAGNOSE = "return say(self.model)"
SECRET = "secret_fault"
FAULTY = Label("softmax_dim", "loss", "digits", control=False)
HEALTHY = Label("none", "none", "digits", control=True)


@pytest.fixture(scope="module")
def pool():
    pool = WorkerPool([JudgingWorker()])
    yield pool
    pool.close()


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


@pytest.fixture
def school(tmp_path, pool):
    return School(tmp_path, pool)


# -- which cases are learned from -----------------------------------------------------------------------------------


def test_examples_are_of_other_workloads_and_harmful_or_healthy(school):
    school.case("digits", "softmax", 1.0, twin=2.0)
    school.case("digits", "softmax", 1.5, twin=2.5, seed=1)
    school.case("digits", "mild", 3.0, twin=2.0, harm=False)  # latent: its own run is left out, its twin is not
    school.case("digits", "control_none", 2.0, twin=2.0)  # repeats the healthy program
    school.case("digits", "control_wide", 4.0, twin=5.0)
    school.case("ecg", "softmax", 6.0, twin=7.0)
    school.case("ecg(lr=0.1)", "softmax", 6.5, twin=7.5)
    judge = school.judge()
    healthy = [2.0, 2.5, 4.0, 5.0]
    expected = [(1.0, FAULTY), (1.5, FAULTY), *((loss, HEALTHY) for loss in healthy)]
    for name in ("ecg", "ecg(lr=0.1)", "ecg(data=mnist)"):
        assert sorted(school.learned(judge, name)) == sorted(expected)
    ecg = {"workload": "ecg"}
    others = [(loss, FAULTY._replace(**ecg)) for loss in (6.0, 6.5)]
    others += [(loss, HEALTHY._replace(**ecg)) for loss in (7.0, 7.5)]
    assert sorted(school.learned(judge, "digits")) == others
    assert len(school.learned(judge, "char_lm")) == len(expected) + len(others)


def test_order_of_examples_follows_from_names_of_traces_alone(school):
    records = [school.case("digits", f"bug_{i}", float(i), twin=100.0, seed=i) for i in range(1, 9)]
    impact = measured(school.results, records)
    found = examples_without("ecg", "ecg", records, impact)
    assert found == examples_without("ecg", "ecg", records[::-1], impact)
    assert [example.key for example in found] == sorted(example.key for example in found)
    assert len(found) == 9


def test_a_run_of_the_workload_itself_is_never_an_example(school):
    """Not even where another workload had the same trace."""
    records = [school.case("ecg", "softmax", 1.0, twin=2.0), school.case("digits", "softmax", 1.0, twin=2.0)]
    assert examples_without("ecg", "ecg", records, measured(school.results, records)) == []


def test_workloads_on_the_same_data_are_left_out_together(school):
    school.case("ecg", "softmax", 1.0, twin=2.0)
    school.case("ecg_on_two_processes", "softmax", 3.0, twin=4.0, dataset="ecg")
    school.case("digits", "softmax", 5.0, twin=6.0)
    for workload in ("ecg", "another_on_it"):  # a first case of a workload is not stored yet
        (taught,) = school.learning().taught([school.judge()], workload, school.table("ecg"))
        assert sorted(value for value, _ in json.loads(taught.model.text)) == [5.0, 6.0]


def test_skipped_cases_are_not_learned_from(school):
    record = replace(school.case("digits", "softmax", 1.0, twin=2.0), skipped="no data")
    assert examples_without("ecg", "ecg", [record], pd.DataFrame(columns=["bug", "workload", "state"])) == []


# -- where there is nothing to learn -------------------------------------------------------------------------------


def test_without_another_workload_there_is_a_reason(school):
    school.case("ecg", "softmax", 1.0, twin=2.0)
    (taught,) = school.learning().taught([school.judge()], "ecg", school.table("ecg"))
    answer = school.bench.judge(school.trace(1.0), taught)
    assert (answer["status"], answer["suspects"], answer["alarm_step"]) == ("not_applicable", [], None)
    assert answer["reason"] == "nothing to learn from: no case of another workload than ecg, on other data, is stored"
    assert answer["isolation"] == LEVELS[0]
    assert not (school.results / "runs" / "diagnoses").exists(), "the next run may find cases"


def test_an_untaught_detector_is_not_applicable(school):
    answer = school.bench.judge(school.trace(1.0), school.judge())
    assert (answer["status"], answer["reason"]) == ("not_applicable", "it learns, and nobody has taught it")


@pytest.mark.parametrize(
    ("extract", "fit", "status", "reason"),
    [
        (EXTRACT, "raise NotApplicable('too few')", "not_applicable", "fit: too few"),
        (EXTRACT, "return 1 / 0", "crashed", "fit: ZeroDivisionError: division by zero"),
        (EXTRACT, "os._exit(3)", "crashed", "fit: the process ended with exit code 3"),
        (EXTRACT, "return {1, 2}", "invalid", "fit: fit returned what is no plain JSON: Object of type set"),
        (EXTRACT, "return float('nan')", "invalid", "fit: fit returned what is no plain JSON: Out of range float"),
        (EXTRACT, f"return 'x' * {MAX_VALUE}", "invalid", f"fit returned what is no plain JSON: {MAX_VALUE + 2} bytes"),
        ("raise NotApplicable('no steps')", FIT, "not_applicable", "extract: no steps"),
        ("return 1 / 0", FIT, "crashed", "extract: ZeroDivisionError"),
        ("import numpy; return numpy.float32(1)", FIT, "invalid", "extract: extract returned what is no plain JSON"),
    ],
)
def test_what_fails_in_learning_is_the_row_of_each_case(school, extract, fit, status, reason):
    school.case("digits", "softmax", 1.0, twin=2.0)
    (taught,) = school.learning().taught([school.judge(extract, fit)], "ecg", school.table("ecg"))
    answer = school.bench.judge(school.trace(3.0), taught)
    assert answer["status"] == status
    assert reason in answer["reason"]


def test_runs_that_cannot_be_learned_from_are_left_out_and_told(school, capsys):
    school.case("digits", "softmax", 1.0, twin=2.0)
    school.case("digits", "softmax", 3.0, twin=2.0, seed=1)
    (school.trace(3.0).trace / "steps.parquet").write_bytes(b"cut")
    body = f"if trace.train_steps()['loss'][0] == 2: raise NotApplicable('two')\n{EXTRACT}"
    assert school.learned(school.judge(body), "ecg") == [(1.0, FAULTY)]
    said = capsys.readouterr().err
    assert "own: 1 of 3 runs could not be learned from" in said
    assert not list((school.results / "runs" / "extracts").glob(f"{school.trace(3.0).key}/*")), "it is trained again"


# -- what is kept ---------------------------------------------------------------------------------------------------


class Counted:
    def __init__(self, monkeypatch):
        self.tasks = []
        perform = JudgingWorker.diagnose

        def counting(worker, detector, knobs, folder, time_limit, task="diagnose"):
            self.tasks.append(task)
            return perform(worker, detector, knobs, folder, time_limit, task)

        monkeypatch.setattr(JudgingWorker, "diagnose", counting)

    def since(self):
        said, self.tasks = self.tasks, []
        return sorted(said)


def test_extracts_models_and_diagnoses_are_kept_until_something_changes(school, monkeypatch):
    counted = Counted(monkeypatch)
    silent = "return HEALTHY"
    school.case("digits", "softmax", 1.0, twin=2.0)

    def judged(again=False, workload="ecg", **bodies):
        judge = school.judge(**{"diagnose": silent, **bodies})
        (taught,) = school.learning(again=again).taught([judge], workload, school.table(workload))
        school.bench.judge(school.trace(3.0), taught, again)
        return counted.since()

    assert judged() == ["diagnose", "extract", "extract", "fit"]
    assert judged() == []
    assert judged(workload="cells") == ["fit"], "the same examples, the same model: the diagnosis stands"
    school.case("digits", "softmax", 5.0, twin=2.0, seed=1)
    assert judged() == ["diagnose", "extract", "fit"], "one case more"
    school.case("ecg", "softmax", 6.0, twin=7.0)
    assert judged() == [], "it is none of its own"
    assert judged(fit="return 1") == ["diagnose", "extract", "extract", "extract", "fit"], "another detector"
    assert judged(fit="return 1", again=True) == ["diagnose", "extract", "extract", "extract", "fit"]
    models = [path.relative_to(school.results / "runs").parts for path in school.results.glob("runs/models/*/*")]
    assert {parts[1] for parts in models} == {"ecg", "cells"}


def test_a_diagnosis_is_of_one_model(school):
    judge, exhibit = school.judge(), school.trace(3.0)
    said = [school.bench.judge(exhibit, replace(judge, model=Model(text))) for text in ("[1]", "[2]", "[1]")]
    assert [s["suspects"][0]["evidence"] for s in said] == ["[1]", "[2]", "[1]"]
    assert len(list((school.results / "runs" / "diagnoses" / exhibit.key).iterdir())) == 2


def test_another_version_of_a_package_fits_another_model(school, monkeypatch):
    judge, examples = school.judge(), [(1.0, FAULTY)]
    school.bench.fit(judge, examples, "ecg")
    monkeypatch.setattr("bugbench.judging.version", lambda name: "99")
    school.bench.fit(judge, examples, "ecg")
    assert len(list((school.results / "runs" / "models" / "ecg").iterdir())) == 2


# -- what is seen ---------------------------------------------------------------------------------------------------

LOOK = """\
files = {str(p.relative_to(folder)): p.read_text("latin-1") for p in sorted(folder.rglob("*")) if p.is_file()}
seen = {"files": files, "cwd": os.listdir("."), "arguments": Path("/proc/self/cmdline").read_text()}
"""


def test_fit_sees_the_examples_and_nothing_else(school):
    fit = f"folder = Path('/trace')\n{LOOK}return seen"
    model = school.bench.fit(school.judge(fit=fit), [(1.0, FAULTY), ({"a": [2]}, HEALTHY)], "secret_workload")
    seen = json.loads(model.text)
    if not seen["files"]:
        pytest.skip("without namespaces the folder has another name")
    assert set(seen["files"]) == {"examples.json"}
    assert json.loads(seen["files"]["examples.json"]) == [[1.0, FAULTY._asdict()], [{"a": [2]}, HEALTHY._asdict()]]
    assert seen["cwd"] == []
    assert "secret_workload" not in model.text


def test_diagnose_sees_the_model_and_extract_sees_none(school):
    look = f"folder = trace.folder\n{LOOK}"
    judge = school.judge(extract=look + "return seen", diagnose=look + "return say([self.model, seen])")
    exhibit = school.trace(1.0)
    curves = {"meta.json", "metrics.parquet", "steps.parquet"}
    assert set(school.bench.extract(exhibit, judge)["value"]["files"]) == curves
    answer = school.bench.judge(exhibit, replace(judge, model=Model('{"a": [1, null]}')))
    text = "".join(suspect["evidence"] for suspect in answer["suspects"])
    model, seen = json.loads(text)
    assert model == {"a": [1, None]}
    assert set(seen["files"]) == {*curves, "model.json"}
    assert exhibit.key not in text


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere detectors share a process")
def test_no_label_stays_in_memory_for_the_next_detector(school):
    """The server is the parent of all diagnoses: what it held, each of them would find in its own memory."""
    word = SECRET[:6] + '" + "' + SECRET[6:]  # so that the detector's own text does not have it
    scan = f"""\
        word = ("{word}").encode()
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            for line in Path("/proc/self/maps").read_text().splitlines():
                span, rights, *_ = line.split()
                first, last = (int(part, 16) for part in span.split("-"))
                if rights.startswith("rw") and last - first < 2**28 and "[v" not in line:
                    memory.seek(first)
                    found = memory.read(last - first)
                    if any(found[m.end() :].startswith(b"_seen") for m in re.finditer(word, found)):
                        return suspect("any")
        return HEALTHY
        """
    judge = school.judge(fit='return "_".join(label.fault for _, label in examples)', diagnose=scan)
    fault = f"{SECRET}_seen"
    model = school.bench.fit(judge, [(1.0, Label(fault, "loss", "digits", control=False))] * 50, "ecg")
    assert model.text == json.dumps("_".join([fault] * 50))
    other = replace(judge, model=Model("0"))
    assert school.bench.judge(school.trace(1.0), other)["suspects"] == []
    told = school.bench.judge(school.trace(1.0), replace(judge, model=model))
    assert told["suspects"], "who is given the model has it in memory, so the scan works"
    assert school.bench.judge(school.trace(1.0), other, again=True)["suspects"] == []


@pytest.mark.parametrize("task", ["extract", "fit"])
def test_a_forged_answer_is_no_value(school, task):
    forge = """\
        text = b'{"status": "ok", "reason": "", "suspects": [], "value": 1e999}'
        os.write(3, len(text).to_bytes(8, "little") + text)
        time.sleep(60)
        """
    judge = school.judge(**{task: forge})
    if task == "fit":
        model = school.bench.fit(judge, [(1.0, FAULTY)], "ecg")
        assert (model.status, model.reason) == ("invalid", "fit: what came back is no diagnosis")
    else:
        assert school.bench.extract(school.trace(1.0), judge)["status"] == "invalid"


def test_a_diagnosis_is_no_answer_to_another_task(school):
    forge = """\
        text = b'{"status": "ok", "reason": "", "suspects": []}'
        os.write(3, len(text).to_bytes(8, "little") + text)
        time.sleep(60)
        """
    answer = school.bench.extract(school.trace(1.0), school.judge(extract=forge))
    assert (answer["status"], answer["reason"]) == ("invalid", "what came back is no answer to extract")


# -- what a file declares -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["extract", "fit"])
def test_one_method_alone_is_no_learning(school, missing):
    path = school.judge().file
    path.write_text(path.read_text().replace(f"def {missing}(", f"def {missing}_(").replace("pass", ""))
    with pytest.raises(CatalogueError, match=r"own\.py: Own learns by two methods: extract\(self, trace\) and fit"):
        read_declaration(path)


def test_who_does_not_learn_is_left_as_it_is(school, tmp_path):
    path = tmp_path / "plain.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom bugbench.detector import *\n\n@dataclass\nclass Plain(Detector):\n"
        "    def diagnose(self, trace):\n        return HEALTHY if self.model is None else 7\n"
    )
    declared = read_declaration(path)
    judge = Judge("plain", path, declared.access, {}, declared.learns)
    assert not judge.learns
    assert school.learning(impact=None).taught([judge], "ecg", school.table("ecg")) == [judge]
    assert school.bench.judge(school.trace(1.0), judge)["status"] == "ok"
