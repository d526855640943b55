"""Detectors that learn are as confined as all; where one fails or has nothing to learn from, there is a reason."""

import json
import sys
from dataclasses import replace

import pytest
from bugbench.answers import MAX_VALUE
from bugbench.detector import Label
from bugbench.isolation import LEVELS
from bugbench.judging import Model
from school import EXTRACT, FAULTY, FIT, HEALTHY

SECRET = "secret_fault"


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
