"""What a detector sees: the files of its access, no word of the case, and the truth if it is the oracle."""

import json
import sys

import pytest
from bugbench.declaration import read_declaration
from bugbench.judging import Exhibit, Judge
from bugbench.plugins import CatalogueError, project_folder
from bugbench.worker import KEPT_ENVIRONMENT

THREADS = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
FIXED = {*THREADS, "MPLBACKEND", "HOME", "USER", "TMPDIR"}
PYTHON = {"PYTHONPATH", "PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "LC_CTYPE"}
LOOK = """\
files = [path for path in sorted(trace.folder.rglob("*")) if path.is_file()]
return say({
    "files": [str(path.relative_to(trace.folder)) for path in files],
    "text": [path.read_bytes().decode("latin-1") for path in files],
    "folders": [str(trace.folder.resolve()), os.getcwd(), os.listdir("."), sys.path],
    "environment": dict(os.environ),
    "arguments": sys.orig_argv,
    "command": Path("/proc/self/cmdline").read_text() + Path("/proc/self/environ").read_text(),
})
"""


@pytest.mark.parametrize(
    ("access", "more"),
    [
        ({"curves"}, set()),
        ({"tensors"}, {"layers.parquet"}),
        ({"source"}, {"program.py", "config.yaml"}),
        ({"rerun"}, {"program.py", "config.yaml", "data/table.csv"}),
    ],
)
def test_a_detector_sees_the_files_of_its_access(court, exhibit, access, more):
    files = set(court.said(exhibit, LOOK, access)["files"])
    assert files == {"meta.json", "error.txt", "steps.parquet", "metrics.parquet", *more}


def test_a_detector_sees_no_word_of_the_case(court, exhibit, judging_pool, monkeypatch):
    for name in ("BUGBENCH_PATH", "HYDRA_FULL_ERROR", "PWD", "OLDPWD", "PYTHONSTARTUP", "HOME", "USER"):
        monkeypatch.setenv(name, "secret_bug")
    monkeypatch.setattr(sys, "argv", ["bugbench", "bug=secret_bug"])
    monkeypatch.chdir(exhibit.trace)
    judging_pool.close()
    seen = court.said(exhibit, LOOK, {"curves", "tensors", "data", "source", "rerun"})
    assert set(seen["environment"]) <= {*KEPT_ENVIRONMENT, *FIXED, *PYTHON}
    assert seen["arguments"][1:] == ["-m", "bugbench.serving", "judge"]
    assert seen["folders"][2] == [], "the working directory is empty"
    assert "truth.json" not in seen["files"]
    assert any(name.startswith("batches/") for name in seen["files"])
    words = json.dumps(seen)
    for word in ("secret_bug", "secret_workload", "seed-7", exhibit.key):
        assert word not in words


def test_the_folder_is_gone_with_the_next_exhibit(court, exhibit, judging_pool):
    """Detectors with the same access share it, one after another."""
    fresh = Exhibit("fresh", exhibit.trace, exhibit.data, {})
    court.bench.judge(fresh, court.detector("return HEALTHY", {"data"}))
    with judging_pool.borrow() as worker:
        desk = worker.home / "desk"
    (first,) = desk.iterdir()
    court.bench.judge(fresh, court.detector("return HEALTHY # again", {"data"}))
    assert list(desk.iterdir()) == [first]
    court.bench.judge(Exhibit("other", exhibit.trace, exhibit.data, {}), court.detector("return HEALTHY", {"data"}))
    assert first.name not in [path.name for path in desk.iterdir()]


def test_what_a_detector_does_to_its_folder_does_not_reach_the_trace(court, exhibit):
    access = {"curves", "tensors", "data", "source", "rerun"}
    before = {path: path.read_bytes() for path in exhibit.trace.parent.rglob("*") if path.is_file()}
    body = """\
        for path in trace.folder.rglob("*"):
            try:
                path.unlink() if path.is_file() else path.rmdir()
            except OSError:
                pass
        return HEALTHY
        """
    assert court.bench.judge(exhibit, court.detector(body, access))["status"] == "ok"
    assert {path: path.read_bytes() for path in before} == before
    assert "program.py" in court.said(exhibit, LOOK, access)["files"], "nor what the next detector gets"


# -- the truth ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["own", "oracle"])
@pytest.mark.parametrize("parent", ["detectors", "mine/detectors"])
def test_truth_is_refused_to_any_other_detector(court, exhibit, name, parent):
    judge = court.detector("return HEALTHY", {"truth"}, name)
    path = court.folder / parent / f"{name}.py"
    path.parent.mkdir(parents=True)
    judge.file.rename(path)
    with pytest.raises(CatalogueError, match=r"unknown access 'truth': known: curves, data, rerun, source, tensors"):
        read_declaration(path)
    answer = court.bench.judge(exhibit, Judge(name, path, frozenset({"truth"}), {}))
    assert answer["status"] == "crashed"
    assert "the truth is for the project's own oracle" in answer["reason"]


def test_truth_is_granted_to_the_projects_oracle(court, exhibit):
    path = project_folder("detectors") / "oracle.py"
    judge = Judge("oracle", path, read_declaration(path).access, {})
    (suspect,) = court.bench.judge(exhibit, judge)["suspects"]
    assert (suspect["fault"], suspect["line"]) == ("softmax_dim", 3)
    healthy = Exhibit(exhibit.key, exhibit.trace, exhibit.data, {"fault": "none", "lines": []})
    assert court.bench.judge(healthy, judge)["suspects"] == [], "another truth, another diagnosis"
    assert len(court.stored()) == 2


def test_a_detector_from_outside_may_lie_below_the_checkout(court, exhibit, tmp_path, monkeypatch):
    """`mine/detectors` in the checkout is not the project's package `detectors`."""
    monkeypatch.setattr("bugbench.plugins.project_folder", lambda name: tmp_path / name)
    judge = court.detector("return say(__name__)")
    path = tmp_path / "detectors" / "mine" / "detectors" / "own.py"
    path.parent.mkdir(parents=True)
    judge.file.rename(path)
    answer = court.bench.judge(exhibit, Judge("own", path, frozenset({"curves"}), {}))
    assert "bugbench_plugin" in answer["suspects"][0]["evidence"]


def test_misspelt_origin_gets_the_nearest(court):
    with pytest.raises(CatalogueError, match=r"own\.py: unknown origin 'publishd': did you mean published\?"):
        read_declaration(court.detector("return HEALTHY", knobs='origin = "publishd"').file)


def test_misspelt_access_gets_the_nearest(court):
    judge = court.detector("return HEALTHY", {"tensor"})
    with pytest.raises(CatalogueError, match=r"own\.py: unknown access 'tensor': did you mean tensors\?"):
        read_declaration(judge.file)
