"""The tables of rules and faults: an answer follows its table, and every table speaks the vocabulary."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from bugbench.catalogue import Catalogue
from bugbench.detectors import neuralint, sagemaker_rules, thedeepchecker
from bugbench.rule_table import Finding, answer


def test_answer_follows_the_table_and_names_a_fault_once() -> None:
    table = {"nan": ("numerics",), "slow": ("lr_too_low", "missing_step"), "flat": ("missing_step", "model")}
    said = answer(table, [Finding("flat", "b"), Finding("slow", "a", "head", 7), Finding("slow", "later")]).suspects
    assert [s.fault for s in said] == ["lr_too_low", "missing_step", "model"]
    assert [s.confidence for s in said] == sorted((s.confidence for s in said), reverse=True)
    assert (said[1].evidence, said[1].layer, said[1].line) == ("slow: a", "head", 7)
    assert answer(table, []).suspects == ()


def test_answer_refuses_a_rule_that_has_no_row() -> None:
    with pytest.raises(KeyError, match="fast"):
        answer({"slow": ("lr_too_low",)}, [Finding("fast", "")])


@pytest.mark.parametrize("module", [neuralint, sagemaker_rules, thedeepchecker])
def test_tables_speak_the_vocabulary(module: Any, catalogue: Catalogue) -> None:
    families = yaml.safe_load((Path(answer.__code__.co_filename).parent / "faults.yaml").read_text())["families"]
    known = {*families, *(fault for family in families.values() for fault in family["faults"])}
    assert {fault for faults in module.RULES.values() for fault in faults} <= known
