"""Cases as they are prepared, and keys of runs: of all that a trace depends on, and of nothing else."""

from dataclasses import replace

from bugbench.runner import Run, prepare
from tiny_workload import DATASET, PROGRAM, SETTINGS, card


def test_key_is_of_all_a_trace_depends_on(workload, tmp_path):
    run = Run(workload, workload.source, {"seed": 0, "lr": 0.5})
    key = run.key("numbers-0123")
    assert key == Run(workload, workload.source, {"lr": 0.5, "seed": 0}).key("numbers-0123")
    dataset = tmp_path / "numbers.py"
    dataset.write_text(DATASET.replace("10 *", "20 *"))
    others = {
        "source": replace(run, source=run.source + "\n").key("numbers-0123"),
        "config": replace(run, config={"seed": 0, "lr": 0.25}).key("numbers-0123"),
        "seed": replace(run, config={"seed": 1, "lr": 0.5}).key("numbers-0123"),
        "data": run.key("numbers-4567"),
        "hidden test": replace(run, workload=replace(workload, dataset=dataset)).key("numbers-0123"),
        "report": replace(run, workload=replace(workload, settings={**SETTINGS, "report": {}})).key("numbers-0123"),
    }
    assert len({key, *others.values()}) == 1 + len(others)
    assert "tiny" not in key


def test_key_is_not_of_the_bugs_or_the_workloads_name(workload):
    one, two = (prepare(card(id), workload, 0) for id in ("slow", "sluggish"))
    assert one.card.id != two.card.id
    assert one.run.key("d") == two.run.key("d")
    renamed = replace(workload, name="other", settings={**SETTINGS, "name": "other"})
    assert prepare(card(), renamed, 0).run.key("d") == one.run.key("d")


def test_prepared_case(workload):
    edits = [{"find": "optimizer.step()", "delete": True}]
    case = prepare(card(config={"lr": "/ 2"}, setting={"epochs": "+ 1"}, edits=edits), workload, 5)
    assert case.run.config == {"lr": 0.25, "epochs": 4, "mode": "train", "marker": "", "seed": 5}
    assert case.twin.config == {"lr": 0.5, "epochs": 4, "mode": "train", "marker": "", "seed": 5}
    assert case.twin.source == PROGRAM
    assert case.run.source == PROGRAM.replace("        optimizer.step()\n", "")
    assert case.config_changes == {"lr": (0.5, 0.25)}
    assert case.folder == "tiny/slow/seed-5"
    assert "-        optimizer.step()" in case.diff.splitlines()


def test_program_key_leaves_the_seed_out(workload):
    keys = [prepare(card(), workload, seed).program_key for seed in range(2)]
    assert keys[0] == keys[1]
    other = prepare(card(config={"lr": "* 2"}), workload, 0)
    assert other.program_key != keys[0]


def test_card_that_shifts_the_seed_shifts_it_from_the_twins(workload):
    case = prepare(card("other_seed", config={"seed": "+ 1000"}), workload, 3)
    assert (case.run.config["seed"], case.twin.config["seed"]) == (1003, 3)
    assert case.run.source == case.twin.source
