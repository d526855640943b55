"""Malformed cards: the message names file, field, reason and the nearest right name. How a card changes a config."""

import re
from pathlib import Path

import pytest
from bugbench.card import CardError, SettingError, change_config, check_settings, make_card, read_card

FAULTS = {"softmax_dim": {}, "missing_zero_grad": {}, "lr_too_high": {}}
GOOD = """\
title: Softmax over the batch
fault: softmax_dim
edits:
  - within: "@loss"
    find: "F.cross_entropy($LOGITS, $TARGETS)"
    replace: "F.nll_loss(F.log_softmax($LOGITS, dim=${bug.dim}), $TARGETS)"
dim: 0
requires: [classification]
accepts: [lr_too_high]
sources: ["TheDeepChecker", 2021]
about: |
  Why people make it.
"""


def read(folder: Path, text: str, name: str = "softmax_dim.yaml"):
    path = folder / name
    path.write_text(text)
    return read_card(path, FAULTS)


def edit(**changes):
    return {"find": "a", "replace": "b", **changes}


def make(id="own", drop=(), **changes):
    fields = {"title": "t", "fault": "softmax_dim", "edits": [edit()], "sources": ["own"], "about": "why", **changes}
    return make_card(id, {k: v for k, v in fields.items() if k not in drop}, FAULTS)


def test_good_card(tmp_path):
    fields = read(tmp_path, GOOD)
    assert fields["edits"][0]["replace"].count("${bug.dim}") == 1, "knobs are still open"
    card = make_card("softmax_dim", fields, FAULTS)
    ((only,),) = card.variants
    assert only.text == "F.nll_loss(F.log_softmax($LOGITS, dim=0), $TARGETS)"
    assert only.within == "@loss"
    assert card.knobs == {"dim": 0}
    assert (card.requires, card.accepts, card.sources) == (
        {"classification"},
        ("lr_too_high",),
        ("TheDeepChecker", "2021"),
    )
    assert card.about == "Why people make it."
    assert (card.label, card.control) == ("softmax_dim", False)


def test_knobs_set_otherwise_show_in_the_label():
    card = make(edits=[edit(replace="x[${bug.dim}]")], dim=1, changed={"dim": 1})
    assert card.variants[0][0].text == "x[1]"
    assert card.label == "own(dim=1)"


def test_knobs_reach_every_field():
    card = make(
        drop=["edits"], config={"lr": "* ${bug.factor}"}, setting={"epochs": "${bug.epochs}"}, factor=10, epochs=3
    )
    assert card.config == {"lr": "* 10"}
    assert card.setting == {"epochs": 3}, "a number stays one"
    assert card.variants == ()


def test_control():
    card = make(fault="none", fools=["call_order"])
    assert card.control
    assert card.fools == ("call_order",)


def test_the_card_none_may_change_nothing():
    assert make("none", fault="none", drop=["edits"]).variants == ()


def test_two_variants():
    card = make(drop=["edits"], variants=[[edit(), edit(find="c")], [edit(find="d")]])
    assert [[one.find for one in edits] for edits in card.variants] == [["a", "c"], ["d"]]


# -- what is wrong with a card ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("title:", "titel:", "field 'title' is missing or empty (is 'titel' a misspelling?)"),
        ("fault: softmax_dim\n", "", "field 'fault' is missing or empty"),
        (
            "fault: softmax_dim",
            "fault: sofmax_dim",
            "field 'fault': unknown fault 'sofmax_dim': did you mean softmax_dim?",
        ),
        ("about: |", "abuot: |", "field 'about' is missing or empty (is 'abuot' a misspelling?)"),
        ('sources: ["TheDeepChecker", 2021]', "sources: []", "field 'sources' is missing or empty"),
        ("accepts: [lr_too_high]", "accepts: [lr_high]", "field 'accepts': unknown fault 'lr_high'"),
        ("accepts: [lr_too_high]", "acepts: [lr_too_high]", "unknown field 'acepts': did you mean accepts?"),
        ("dim: 0", "dimm: 0", "field 'edits': unknown knob 'dim': did you mean dimm?"),
        ("${bug.dim}", "0", "nothing uses the knob ${bug.dim}; unknown field 'dim'"),
        ("${bug.dim}", "${bug.dmi}", "field 'edits': unknown knob 'dmi': did you mean dim?"),
        ("dim: 0", "dim: null", "unknown field 'dim'"),
        ("    find:", "    fnd:", "field 'edits': unknown field 'fnd': did you mean find?"),
        ("requires: [classification]", "requires: classification", "field 'requires' must be a list, not str"),
        ("requires: [classification]", "config: [lr]", "field 'config' must be a dict, not list"),
        ("title: Softmax over the batch", "title: 3", "field 'title' must be a str, not int"),
        ("title: Softmax over the batch", "title: ''", "field 'title' is missing or empty"),
        ("about: |", "about: [", "not valid YAML (quote patterns or use a block scalar)"),
        ('    find: "F', "    find: [F", "not valid YAML"),
        ("dim: 0", "dim: 0\non: 1", "the field's name True is no text: put it in quotes"),
    ],
)
def test_malformed_file_is_named_with_field_reason_and_nearest_name(tmp_path, old, new, reason):
    assert old in GOOD
    with pytest.raises(CardError) as error:
        read(tmp_path, GOOD.replace(old, new))
    assert str(error.value).startswith(f"{tmp_path / 'softmax_dim.yaml'}: ")
    assert reason in str(error.value)


@pytest.mark.parametrize("text", ["", "- title", "just text"])
def test_file_that_is_no_mapping(tmp_path, text):
    with pytest.raises(CardError, match=r"softmax_dim\.yaml: a card is a mapping of fields, not (NoneType|list|str)"):
        read(tmp_path, text)


@pytest.mark.parametrize("name", ["Softmax.yaml", "softmax-dim.yaml", "2nd.yaml", "softmax dim.yaml"])
def test_bad_file_name(tmp_path, name):
    with pytest.raises(CardError, match="the file's name is the bug's id and must be snake_case, not"):
        read(tmp_path, GOOD, name)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"variants": [[edit()]]}, "give either 'edits' or 'variants'"),
        ({"drop": ["edits"]}, "the card changes nothing: it needs 'edits', 'variants' or 'config'"),
        ({"drop": ["edits"], "setting": {"lr": 1}}, "the card changes nothing"),
        ({"drop": ["edits"], "variants": []}, "the card changes nothing"),
        ({"edits": []}, "field 'edits' must be a list with at least one edit"),
        ({"edits": "optimizer.step()"}, "field 'edits' must be a list, not str"),
        ({"drop": ["edits"], "variants": [[edit()], []]}, "field 'variants 2, edits' must be a list with at least one"),
        ({"drop": ["edits"], "variants": [edit()]}, "field 'variants 1, edits' must be a list"),
        ({"drop": ["edits"], "variants": [[edit()], [{"find": "a"}]]}, "field 'variants 2, edits': `a` needs one of"),
        ({"edits": [{"replace": "b"}]}, "field 'edits': an edit needs a `find`"),
        ({"edits": [{"find": "a"}]}, "`a` needs one of replace, delete, before, after; it has none"),
        ({"edits": [edit(delete=True)]}, "`a` needs one of replace, delete, before, after; it has replace, delete"),
        ({"edits": [{"find": "a", "delete": False}]}, "delete is written `delete: true`, not `False`"),
        ({"edits": [edit(replace=1)]}, "`replace` must be text, not 1: put it in quotes"),
        ({"edits": [edit(replac="c")]}, "unknown field 'replac': did you mean replace?"),
        ({"edits": [edit(replace="$X")]}, "$X is not bound"),
        ({"edits": ["optimizer.step()"]}, "an edit is a mapping of within, find"),
        ({"patience": 3}, "nothing uses the knob ${bug.patience}"),
        ({"edits": [edit(replace="${bug.op}")], "op": "a / b"}, "the knob op is 'a / b': it names a folder of results"),
        ({"edits": [edit(replace="${bug.title} ${bug.n}")], "n": 1}, "field 'edits': unknown knob 'title': known: n"),
        ({"edits": [edit(replace="${dim} ${bug.n}")], "n": 1}, "Interpolation key 'dim' not found; its knobs: n"),
        ({"config": {"lr": "* ${bug.factor}"}}, "field 'config': unknown knob 'factor': known: none"),
        ({"knobs": {"dim": 0}}, "unknown field 'knobs'"),
    ],
)
def test_malformed_card_says_why(changes, reason):
    with pytest.raises(CardError) as error:
        make(**changes)
    assert str(error.value).startswith("card own: ")
    assert reason in str(error.value)


# -- changes of a config ------------------------------------------------------------------------------------------

CONFIG = {
    "lr": 0.1,
    "epochs": 5,
    "width": 32,
    "shuffle": True,
    "kind": "adam",
    "offset": -4,
    "dropout": None,
    "seed": 0,
}


def change(**changes):
    result = change_config(CONFIG, changes, "own on digits")
    assert list(result) == list(CONFIG)
    return {name: result[name] for name in changes}


@pytest.mark.parametrize(
    ("setting", "text", "expected"),
    [
        ("lr", "* 100", 10.0),
        ("lr", "*100", 10.0),
        ("lr", " / 10 ", 0.01),
        ("lr", "+ 0.5", 0.6),
        ("lr", "- 1e-2", 0.09),
        ("lr", "* 1.5E+2", 15.0),
        ("lr", "* .5", 0.05),
        ("lr", "* -1", -0.1),
        ("lr", "* 0", 0.0),
        ("epochs", "* 2", 10),
        ("epochs", "/ 2", 2),  # 2.5, rounded to even
        ("epochs", "/ 3", 2),
        ("epochs", "/ 100", 1),  # a positive integer stays at least 1
        ("epochs", "* 0.001", 1),
        ("epochs", "* 0", 0),
        ("epochs", "- 5", 0),
        ("epochs", "- 7", -2),
        ("epochs", "+ 1000", 1005),
        ("offset", "/ 100", 0),
        ("offset", "* 2", -8),
        ("seed", "+ 1000", 1000),
    ],
)
def test_relative_changes(setting, text, expected):
    result = change(**{setting: text})[setting]
    assert result == pytest.approx(expected, rel=1e-12)
    assert type(result) is type(CONFIG[setting])


@pytest.mark.parametrize("value", [0.5, 3, False, "sgd", None, "1e-3 and more", "* much", "- 1 2"])
def test_anything_else_is_absolute(value):
    for setting in ("lr", "shuffle", "kind", "dropout"):
        assert change(**{setting: value}) == {setting: value}


@pytest.mark.parametrize(("setting", "value"), [("shuffle", "True"), ("kind", "'adam'"), ("dropout", "None")])
def test_relative_change_of_what_is_no_number(setting, value):
    with pytest.raises(SettingError) as error:
        change(**{setting: "* 2"})
    assert str(error.value) == f"own on digits: setting {setting!r} is {value}: '* 2' needs a number"


def test_division_by_zero():
    with pytest.raises(SettingError) as error:
        change(lr="/ 0.0")
    assert str(error.value) == "own on digits: setting 'lr' cannot be divided by 0"


def test_unknown_setting_gets_the_nearest():
    with pytest.raises(SettingError) as error:
        change(epoch=3)
    assert str(error.value) == "own on digits: unknown setting 'epoch': did you mean epochs?"


def test_the_config_itself_is_left_alone():
    before = dict(CONFIG)
    change_config(CONFIG, {"lr": 5}, "own")
    assert before == CONFIG


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lr", "abc", "workload.config.lr: it must be a number, such as 0.1, not 'abc'"),
        ("lr", True, "a number, such as 0.1, not True"),
        ("epochs", 2.5, "workload.config.epochs: it must be a whole number, such as 8, not 2.5"),
        ("nesterov", 1, "true or false, such as False, not 1"),
        ("optimizer", 3, "a word, such as sgd, not 3"),
    ],
)
def test_setting_of_another_kind_is_refused(name: str, value: object, words: str) -> None:
    usual = {"lr": 0.1, "epochs": 8, "nesterov": False, "optimizer": "sgd"}
    with pytest.raises(SettingError, match=re.escape(words)):
        check_settings(usual | {name: value}, usual, "workload.config.")


def test_whole_number_will_do_for_a_number() -> None:
    check_settings({"lr": 1, "epochs": 3, "new": "?"}, {"lr": 0.1, "epochs": 8}, "")
