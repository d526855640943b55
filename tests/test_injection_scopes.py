"""Where in a program an edit looks for its pattern."""

import pytest
from bugbench.injection import NoMatch
from edited_program import PROGRAM, ROLES, change, edited

SCOPES = """\
class A:
    def step(self):
        f(1)

class B:
    @d(f(0))
    def step(self):
        def inner():
            f(2)
        f(3)

def step():
    f(4)

def main():
    f(5)
"""


@pytest.mark.parametrize(
    ("within", "changed"),
    [
        (None, "102345"),
        ("A", "1"),
        ("A.step", "1"),
        ("B.step", "023"),
        ("B.step.inner", "2"),
        ("inner", "2"),
        ("step", "4"),
        ("@r", "15"),
        ("@s", "4"),
    ],
)
def test_within(within, changed):
    roles = {"r": ["A.step", "main"], "s": "step"}
    result = edited(SCOPES, {"within": within, "find": "f($X)", "replace": "g($X)"}, roles=roles).source
    assert "".join(result[i + 2] for i in range(len(result)) if result.startswith("g(", i)) == changed


def test_a_name_that_nothing_has_stands_for_all_that_end_with_it():
    source = "class A:\n    def go(self):\n        f(1)\n\n\nclass B:\n    def go(self):\n        f(2)\n"
    assert change(source, "f($X)", "replace", "g($X)", within="go").count("g(") == 2


@pytest.mark.parametrize(
    ("within", "message"),
    [
        ("@los", "unknown role 'los': did you mean loss?"),
        ("train_epok", "unknown function or class 'train_epok': did you mean train_epoch?"),
        ("@gone", "@gone: unknown function or class 'evaluat': did you mean evaluate"),
        ("@loss", "nothing like it in @loss"),
    ],
)
def test_an_unknown_scope_lists_the_nearest(within, message):
    with pytest.raises(NoMatch, match=r"card does not apply to p: edit 1 \(`sin\(\$X\)`\)") as caught:
        edited(PROGRAM, {"within": within, "find": "sin($X)", "delete": True}, roles={**ROLES, "gone": "evaluat"})
    assert message in str(caught.value)


def test_a_keyword_argument_alone_gets_a_hint():
    with pytest.raises(NoMatch, match=r"matched inside its call: `\$F\(\$\$\$A, lr=config.lr, \$\$\$B\)`"):
        change("SGD(p, lr=config.lr)\n", "lr=config.lr", "replace", "lr=1")
