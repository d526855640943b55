"""What the commands say without training: to wrong names and amounts, and of the catalogue."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bugbench.__main__ import check_amounts, seeds_of
from bugbench.names import UnknownName
from command_line import ROOT, bugbench
from omegaconf import DictConfig, OmegaConf


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["bug=sofmax_dim"], "unknown bug 'sofmax_dim': did you mean softmax_dim"),
        (["bug=none", "workload=digit_cnn"], "did you mean digits_cnn"),
        (["bug=none", "detector=[finite_check]"], "did you mean finite_checks"),
        (["suite=quik"], "did you mean quick"),
        (["bug=softmax_dim", "bug.dimm=1"], "did you mean dim"),
        (["sedes=3"], "did you mean seeds"),
        (["bug=none", "workload=cancer_mlp", "workload.config.larning_rate=1"], "unknown setting 'larning_rate'"),
        (["detector.finite_checks.pacience=3"], "unknown knob 'pacience'"),
        (["-m", "bug=none,sofmax_dim"], "did you mean softmax_dim"),
        (["search_path=[/no/such/folder]"], "there is no folder /no/such/folder"),
        (["softmax_dim"], "'softmax_dim' is no setting: did you mean bug=softmax_dim?"),
        (["-m", "bug=none", "quick"], "'quick' is no setting: settings are given as name=value"),
        (["bug=none", f"results={ROOT}/README.md"], f"results: {ROOT}/README.md is a file; give a folder"),
    ],
)
def test_wrong_name_gets_the_nearest_right_one(arguments: Sequence[str], expected: str, tmp_path: Path) -> None:
    output = bugbench(*arguments, cwd=tmp_path, code=1)
    assert expected in output
    assert len(output.strip().splitlines()) <= 3


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("workers", -2, "a whole number of at least 1, or null"),
        ("workers", 0, "a whole number of at least 1, or null"),
        ("workers", 1.5, "a whole number of at least 1, or null"),
        ("limits.judge_seconds", -1, "a number above 0"),
        ("limits.train_memory", "much", "a number above 0"),
    ],
)
def test_wrong_amount_says_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    config = OmegaConf.load(ROOT / "conf" / "config.yaml")
    assert isinstance(config, DictConfig)
    check_amounts(config)
    OmegaConf.update(config, name, value)
    with pytest.raises(UnknownName, match=re.escape(f"{name}={value}: give {allowed}")):
        check_amounts(config)


@pytest.mark.parametrize(("given", "seeds"), [(3, [0, 1, 2]), ([4, 0], [4, 0])])
def test_seeds(given: Any, seeds: list[int]) -> None:
    assert seeds_of(OmegaConf.create({"seeds": given}).seeds) == seeds


@pytest.mark.parametrize("given", [0, -1, [], [0, -1], ["a"], [1, 1], "many", 1.5])
def test_wrong_seeds_say_what_is_allowed(given: Any) -> None:
    with pytest.raises(UnknownName, match="give a number of at least 1, or a list of different seeds such as"):
        seeds_of(OmegaConf.create({"seeds": given}).seeds)


def test_wrong_amount_on_the_command_line(tmp_path: Path) -> None:
    assert "workers=-2: give a whole number" in bugbench("bug=none", "workers=-2", cwd=tmp_path, code=2)


def test_pair_that_does_not_apply_says_why(tmp_path: Path) -> None:
    output = bugbench("bug=unshifted_lm_labels", "workload=digits_cnn", cwd=tmp_path, code=2)
    assert "unshifted_lm_labels does not apply to digits_cnn" in output


def test_malformed_card_names_file_field_and_reason(tmp_path: Path) -> None:
    bugs = tmp_path / "mine" / "bugs"
    bugs.mkdir(parents=True)
    (bugs / "typo.yaml").write_text("titel: A typo\nfault: softmax_dim\nedits: []\nsources: [own]\nabout: text\n")
    output = bugbench("bug=typo", "search_path=[mine]", cwd=tmp_path, code=1)
    assert "typo.yaml" in output
    assert "'title'" in output
    assert "titel" in output


def test_setting_of_another_kind_is_refused(tmp_path: Path) -> None:
    output = bugbench("bug=none", "workload=cancer_mlp", "workload.config.epochs=2.5", cwd=tmp_path, code=2)
    assert "workload.config.epochs: it must be a whole number, such as 60, not 2.5" in output


@pytest.mark.parametrize("option", ["--workers", "--seconds"])
def test_judge_refuses_less_than_nothing(option: str, tmp_path: Path) -> None:
    output = bugbench(option, "-3", module="bugbench.judge", cwd=tmp_path, code=2)
    assert f"argument {option}: -3: give a number above 0" in output


def test_missing_results_say_what_to_do(tmp_path: Path) -> None:
    assert "run `python -m bugbench` first" in bugbench(module="bugbench.report", cwd=tmp_path, code=1)


def test_catalogue_as_tables(tmp_path: Path) -> None:
    output = bugbench(module="bugbench.catalogue", cwd=tmp_path)
    assert "softmax_dim" in output
    assert "digits_cnn" in output


def test_catalogue_tells_of_each_kind_of_name(tmp_path: Path) -> None:
    names = ("softmax_dim", "data", "digits_cnn", "autotrainer", "adam_for_sgd")
    output = bugbench(*names, module="bugbench.catalogue", cwd=tmp_path)
    assert "-    return F.cross_entropy(" in output
    assert "python -m bugbench bug=softmax_dim" in output
    assert re.search(r"digits_cnn\W+degraded\W+0\.\d{3} → 0\.\d{3}", output)
    assert "implicit_softmax_dim" in output, "the fault softmax_dim has other cards, too"
    assert re.search(r"nan_inputs +Missing values", output)
    assert "data=cifar10" in output
    assert "ICSE 2021" in output
    assert "control: nothing is wrong" in output


def test_catalogue_as_json_is_of_everything(tmp_path: Path) -> None:
    output = bugbench("softmax_dim", "--format", "json", module="bugbench.catalogue", cwd=tmp_path, code=2)
    assert "--format json lists everything: give it no NAME" in output


def test_catalogue_names_the_nearest(tmp_path: Path) -> None:
    output = bugbench("sofmax_dim", module="bugbench.catalogue", cwd=tmp_path, code=1)
    assert "unknown name 'sofmax_dim': did you mean softmax_dim" in output
