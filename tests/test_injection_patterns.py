"""What the pattern of an edit matches in a program, and what it does not."""

import ast

import pytest
from bugbench.injection import Edit, NoMatch, inject
from edited_program import change, edited


@pytest.mark.parametrize(
    "call",
    [
        "SGD(lr=config.lr)",
        "SGD(parameters, lr=config.lr)",
        "SGD(lr=config.lr, momentum=0.9)",
        "SGD(parameters, x, lr=config.lr, momentum=0.9, nesterov=True)",
        "SGD(\n    parameters,\n    lr=config.lr,\n)",
        "SGD(\n    parameters, lr=config.lr, momentum=0.9\n)",
        "SGD( parameters,lr = config.lr )",
    ],
)
def test_arguments_around_may_be_absent(call):
    source = f"o = {call}\n"
    wanted = ast.unparse(ast.parse(source.replace("config.lr", "config.lr * 10").replace(" = config", "=config")))
    result = change(source, "SGD($$$A, lr=config.lr, $$$B)", "replace", "SGD($$$A, lr=config.lr * 10, $$$B)")
    assert ast.unparse(ast.parse(result)) == wanted


@pytest.mark.parametrize(
    ("source", "find"),
    [
        ("x = f(\n    a,\n    b,  # remark\n)\n", "f($A, $B)"),
        ("x = f(a, b)\n", "f(\n    $A,\n    $B,\n)\n"),
        ("x = f(a, b)\n", "$X = f($$$)"),
        ("f(a)\n", "f(a)  # remark"),
        ("x, y = a, b\n", "$X, $Y = $Z"),
        ("x += f(a)\n", "$X += $Y"),
        ("with a as b:\n    pass\n", "with $X: $$$"),
        ("with a:\n    pass\n", "with a:\n    pass"),
        ("with a:\n    pass\n", "with $X:"),
        ("async def f():\n    pass\n", "def f(): $$$"),
        ("def f(a) -> int:\n    return a\n", "def f($$$) -> $T:"),
        ("if a:\n    b\nelif c:\n    d\nelse:\n    e\n", "if a: $$$"),
        ("while True:\n    f()\n", "while $X:"),
        ("x[:, 1]\n", "x[$$$]"),
        ("x = {'a': 1, 'b': 2}\n", "{'a': $X, $$$REST}"),
        ("@d\ndef f():\n    pass\n", "@d\ndef $F($$$): $$$"),
        ("return_ = [a for a in b]\n", "[$X for $X in $Y]"),
        ("f(a == a, a)\n", "f($X == $X, $X)"),
        ("class A(B):\n    x = 1\n", "class $A($$$): $$$"),
    ],
)
def test_finds(source, find):
    action = ("before", "pass")
    assert change(source, find, *action).count("pass") > source.count("pass")


@pytest.mark.parametrize(
    ("source", "find"),
    [
        ("f(a == b)\n", "f($X == $X)"),
        ("a.backward()\nx()\nb.step()\n", "$A.backward()\n$B.step()"),
        ("a.backward()\nb.step()\n", "$A.backward()\n$A.step()"),
        ("x = a.backward()\nb.step()\n", "$A.backward()\n$B.step()"),
        ("f(a, b, c)\n", "f($A, $B)"),
        ("f('a')\n", 'f("a")'),
        ("torch.optim.SGD(a)\n", "SGD($$$)"),
        ("def f(a) -> int:\n    return a\n", "def f($$$): $$$"),
        ("for a in b:\n    pass\nelse:\n    a.step()\n", "for $A in $B:\n    pass"),
        ("for a in b:\n    f()\n    g()\n", "for $A in $B:\n    f()"),
        ("if a:\n    f()\n    g()\nelse:\n    h()\n", "if a:\n    f()\nelse:\n    h()"),
        ("x[1:2:3]\n", "x[1:2]"),
        ("a < b < c\n", "a < b"),
        ("from a import b, c\n", "from a import b"),
        ("assert x, y\n", "assert x"),
        ("raise x from y\n", "raise x"),
        ("with a, b:\n    c\n", "with a: $$$"),
    ],
)
def test_does_not_find(source, find):
    with pytest.raises(NoMatch):
        change(source, find, "before", "pass")


def test_every_match_is_edited_but_of_nested_ones_the_outermost():
    assert change("x = f(f(1)) + f(2)\n", "f($X)", "replace", "g($X)") == "x = g(f(1)) + g(2)\n"


def test_nested_headers_are_all_edited():
    source = "for a in x:\n    for b in y:\n        f(a, b)\n"
    assert change(source, "for $A in $B:", "replace", "for $A in list($B):") == (
        "for a in list(x):\n    for b in list(y):\n        f(a, b)\n"
    )


def test_every_run_of_statements_is_edited_and_comments_between_do_not_matter():
    source = "a.backward()  # first\n# then\nb.step()\nif x:\n    c.backward()\n    d.step()\n"
    assert change(source, "$A.backward()\n$B.step()", "replace", "$B.step()\n$A.backward()") == (
        "b.step()\na.backward()\nif x:\n    d.step()\n    c.backward()\n"
    )


def test_statements_of_a_run_have_their_own_arguments():
    source = "t = read(a, b)\n# remark\nx = t.drop([c, d])\n"
    find = "$T = read($$$FILE)\n$X = $T.drop([$$$MORE, d])"
    assert change(source, find, "replace", "$T = read($$$FILE)\n$X = $T.drop([$$$MORE])") == (
        "t = read(a, b)\nx = t.drop([c])\n"
    )
    with pytest.raises(NoMatch):
        change(source.replace("t.drop", "u.drop"), find, "delete")


def test_edits_work_on_the_result_of_the_one_before():
    first = {"find": "f($X)", "replace": "g($X)"}
    second = {"find": "g($X)", "replace": "h($X, $X)"}
    assert edited("y = f(1)\n", first, second).source == "y = h(1, 1)\n"
    with pytest.raises(NoMatch, match=r"edit 1 \(`g\(\$X\)`\)"):
        edited("y = f(1)\n", second, first)


def test_the_first_variant_that_matches_is_used():
    variants = [
        [Edit("g($X)", "replace", "h($X)")],
        [Edit("f($X)", "replace", "k($X)")],
        [Edit("f($X)", "delete")],
    ]
    assert inject("f(1)\n", variants, roles={}, card="c", program="p").source == "k(1)\n"
    with pytest.raises(NoMatch) as caught:
        inject("z(1)\n", variants, roles={}, card="c", program="p")
    assert str(caught.value) == (
        "c does not apply to p: variant 1, edit 1 (`g($X)`): nothing like it in the program; "
        "variant 2, edit 1 (`f($X)`): nothing like it in the program; "
        "variant 3, edit 1 (`f($X)`): nothing like it in the program"
    )
