"""A workload with other data or another model: its program, its traits, its names and its files."""

import ast
import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bugbench.card import SettingError
from bugbench.catalogue import Catalogue, CatalogueError, apply, load
from bugbench.catalogue.__main__ import listing
from bugbench.catalogue.hydra_groups import check_arguments
from bugbench.catalogue.variations import read_variation
from bugbench.injection import NoMatch
from bugbench.names import UnknownName
from bugbench.records import Records

CHOICES = [
    *({"data": name} for name in ("mnist", "fashion_mnist", "cifar10")),
    *({"model": "resnet18"}, {"data": "mnist", "model": "resnet18"}, {"data": "cifar10", "model": "resnet18"}),
]


@pytest.mark.parametrize("chosen", CHOICES, ids=lambda chosen: ",".join(chosen.values()))
def test_varied_programs_are_whole(chosen: dict[str, str], catalogue: Catalogue, tmp_path: Path) -> None:
    varied = catalogue.varied(**chosen)
    assert list(varied.workloads) == ["digits_cnn"]
    workload = varied.workload("digits_cnn")
    assert workload.label == f"digits_cnn({','.join(f'{kind}={name}' for kind, name in chosen.items())})"
    source = workload.source
    assert ("8, 8" in source or "8x8" in source) == ("data" not in chosen)
    assert ("resnet18(" in source) == ("model" in chosen)
    assert set(re.findall(r"config\.(\w+)", source)) == {*workload.config, "seed", "data_dir"}
    defined = {n.name for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    roles = workload.settings["roles"].values()
    assert {part for place in roles for part in place.split(".")} <= defined
    (tmp_path / "program.py").write_text(source)
    if chosen in CHOICES[2::3]:  # the cards on two of them, of which each is different in data and model: it takes time
        for card in map(catalogue.card, catalogue.cards):
            with contextlib.suppress(NoMatch, SettingError):
                (tmp_path / f"{card.id}.py").write_text(apply(card, workload)[0].source)
        assert len(list(tmp_path.iterdir())) > 100
    command = [sys.executable, "-m", "ruff", "format", "--diff", "--line-length", "120", str(tmp_path)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_traits_that_do_not_hold_are_gone(catalogue: Catalogue) -> None:
    flip, dropout = catalogue.card("bad_augmentation"), catalogue.card("heavier_dropout")
    for chosen, card, applies in (
        ({"data": "mnist"}, flip, True),
        ({"data": "cifar10"}, flip, False),
        ({"model": "resnet18"}, dropout, False),
    ):
        varied = catalogue.varied(**chosen)
        assert (varied.why_not(card, varied.workload("digits_cnn")) is None) == applies


def test_other_data_are_no_workload_of_their_own(catalogue: Catalogue) -> None:
    assert not [workload for workload in catalogue.workloads.values() if workload.variations]
    assert catalogue.varied(data=None, model=None) is catalogue
    (listed,) = (w for w in listing(catalogue)["workloads"] if w["id"] == "digits_cnn")
    assert (listed["data"], listed["model"]) == (["cifar10", "fashion_mnist", "mnist"], ["resnet18"])
    with pytest.raises(UnknownName, match="data=mnist: it is for digits_cnn, not for char_lm"):
        catalogue.varied(data="mnist").workload("char_lm")
    with pytest.raises(UnknownName, match="unknown data 'mnisst': did you mean mnist"):
        catalogue.varied(data="mnisst")
    with pytest.raises(UnknownName, match="unknown model 'resnet81': did you mean resnet18"):
        check_arguments(["model=resnet81"], catalogue)
    check_arguments(["workload=digits_cnn", "data=mnist", "workload.config.samples=9"], catalogue)
    with pytest.raises(UnknownName, match="unknown setting 'samples'"):
        check_arguments(["workload=digits_cnn", "model=resnet18", "workload.config.samples=9"], catalogue)


def test_command_that_makes_a_case_again(tmp_path: Path) -> None:
    folder = "digits_cnn(data=mnist,model=resnet18,epochs=1)/softmax_dim(dim=1)/seed-3"
    command = (
        "python -m bugbench bug=softmax_dim bug.dim=1 workload=digits_cnn data=mnist model=resnet18 "
        f"workload.config.epochs=1 results={tmp_path}"
    )
    assert Records(tmp_path).how_to_mend(folder, "gone").endswith(f"{command} 'seeds=[3]'")
    line = Records(tmp_path).how_to_mend(folder, "gone", [Path("/mine"), Path("/ours")])
    assert line.endswith(f"{command} 'search_path=[/mine,/ours]' 'seeds=[3]'")


def test_folders_of_ones_own_may_hold_other_data(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "data"
    folder.mkdir(parents=True)
    file = folder / "fewer.yaml"
    file.write_text("data: {name: fewer, workloads: [cancer_mlp]}\nworkload: {config: {epochs: 2}}\n")
    workload = load([tmp_path, tmp_path]).varied(data="fewer").workload("cancer_mlp")  # named twice, it is one folder
    assert (workload.label, workload.config["epochs"]) == ("cancer_mlp(data=fewer)", 2)
    misfit = "{name: fewer, workloads: [cancer_mlp], edits: [{find: no_such_thing, replace: x}]}"
    file.write_text(f"data: {misfit}")
    with pytest.raises(CatalogueError, match="data=fewer does not apply to cancer_mlp: edit 1"):
        load([tmp_path]).varied(data="fewer")
    for text, problem in (
        ("data: {name: fewer, workloads: [cancer_mpl]}", "did you mean cancer_mlp"),
        ("data: {name: fewer, workloads: [cancer_mlp]}\nworkload: {dataset: iris}", "unknown data set 'iris'"),
    ):
        file.write_text(text)
        with pytest.raises(CatalogueError, match=f"fewer.yaml.*{problem}"):
            load([tmp_path])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("data: {name: more, workloads: [cancer_mlp]}", "must be the file's name, 'fewer'"),
        ("data: {name: fewer}", "field 'workloads'"),
        ("data: {name: fewer, workloads: [], edit: []}", "field 'edit'"),
        ("data: {name: fewer, workloads: [], edits: [{find: a}]}", "needs one of replace"),
        ("model: {name: fewer}", "it has the fields 'data' and 'workload'"),
    ],
)
def test_malformed_file_is_named(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "fewer.yaml").write_text(text)
    with pytest.raises(CatalogueError, match=f"fewer.yaml.*{problem}"):
        read_variation("data", tmp_path / "fewer.yaml")
