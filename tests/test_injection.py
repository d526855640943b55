"""What an edit does to a program, shown as the text before and after."""

import ast
import pickle
import subprocess
import sys
from textwrap import dedent

import pytest
from bugbench.injection import Edit, EditError, InjectionError, NoMatch, changed_lines, diff, inject

PROGRAM = dedent('''\
    """Digits, é and 漢 😀."""

    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(64, width),  # pixels
                nn.ReLU(),
                nn.Linear(width, 10),
            )

        def forward(self, x):
            return self.layers(x)


    def loss_function(outputs, targets):
        return F.cross_entropy(outputs, targets)


    def train_epoch(model, loader, optimizer):
        model.train()
        for inputs, targets in loader:  # 漢字
            optimizer.zero_grad()
            loss = loss_function(model(inputs), targets)
            loss.backward()
            optimizer.step()


    @torch.no_grad()
    def evaluate(model, loader):
        model.eval()
        for inputs, targets in loader:
            total = loss_function(model(inputs), targets)

        return total


    def main(config):
        optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
        for epoch in range(config.epochs):
            train_epoch(model, loader, optimizer)

        def predict(raw):
            model.eval()
            return model(raw / 255)

        return predict
    ''')
ROLES = {
    "loss": "loss_function",
    "train_step": "train_epoch",
    "predict": "main.predict",
    "both": ["train_epoch", "evaluate"],
}


def edited(source, *edits, roles=ROLES):
    return inject(dedent(source), [[Edit.from_mapping(edit) for edit in edits]], roles=roles, card="card", program="p")


def change(source, find, action, text=True, within=None):
    return edited(source, {"find": find, action: text, "within": within}).source


def is_formatted(source):
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "--check", "-"]
    return subprocess.run(ruff, input=source.encode(), capture_output=True).returncode == 0


def removed_and_added(before, after):
    lines = diff(before, after, "p").splitlines()[2:]
    return [line for line in lines if line[0] in "+-"]


# --- what the actions do, each on the same program


EXAMPLES = {
    "replace an expression": (
        {"within": "@loss", "find": "F.cross_entropy($A, $B)", "replace": "F.nll_loss($A.log_softmax(dim=0), $B)"},
        [
            "-    return F.cross_entropy(outputs, targets)",
            "+    return F.nll_loss(outputs.log_softmax(dim=0), targets)",
        ],
    ),
    "replace a keyword argument inside its call, the last $$$ empty": (
        {"find": "torch.optim.SGD($$$A, lr=config.lr, $$$B)", "replace": "torch.optim.SGD($$$A, lr=100, $$$B)"},
        [
            "-    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)",
            "+    optimizer = torch.optim.SGD(model.parameters(), lr=100)",
        ],
    ),
    "replace keeps a list one element to a line, and its comments": (
        {"find": "nn.Sequential($$$A, nn.ReLU(), $$$B)", "replace": "nn.Sequential($$$A, nn.Sigmoid(), $$$B)"},
        ["-            nn.ReLU(),", "+            nn.Sigmoid(),"],
    ),
    "replace with nothing takes a list element out": (
        {"find": "nn.ReLU()", "replace": ""},
        ["-            nn.ReLU(),"],
    ),
    "replace a header": (
        {"within": "@train_step", "find": "for $X, $Y in $LOADER:", "replace": "for $Y, $X in reversed($LOADER):"},
        [
            "-    for inputs, targets in loader:  # 漢字",
            "+    for targets, inputs in reversed(loader):  # 漢字",
        ],
    ),
    "replace consecutive statements": (
        {"find": "$LOSS.backward()\n$OPT.step()", "replace": "$OPT.step()\n$LOSS.backward()"},
        ["-        optimizer.step()", "+        optimizer.step()"],
    ),
    "replace with other statements in between": (
        {
            "find": "$OPT.zero_grad()\n$$$REST\n$LOSS.backward()",
            "replace": "$$$REST\n$LOSS.backward()\n$OPT.zero_grad()",
        },
        ["-        optimizer.zero_grad()", "+        optimizer.zero_grad()"],
    ),
    "delete a statement": (
        {"find": "$OPT.zero_grad()", "delete": True},
        ["-        optimizer.zero_grad()"],
    ),
    "delete in several scopes": (
        {"within": "@both", "find": "model.$MODE()", "delete": True},
        ["-    model.train()", "-    model.eval()"],
    ),
    "delete in a nested function": (
        {"within": "@predict", "find": "model.eval()", "delete": True},
        ["-        model.eval()"],
    ),
    "delete a decorator": (
        {"within": "evaluate", "find": "@torch.no_grad()", "delete": True},
        ["-@torch.no_grad()"],
    ),
    "delete a whole function with its decorator and the blank lines": (
        {"find": "def evaluate($$$): $$$", "delete": True},
        [
            "-@torch.no_grad()",
            "-def evaluate(model, loader):",
            "-    model.eval()",
            "-    for inputs, targets in loader:",
            "-        total = loss_function(model(inputs), targets)",
            "-",
            "-    return total",
            "-",
            "-",
        ],
    ),
    "delete a run of statements": (
        {"find": "$LOSS.backward()\n$OPT.step()", "delete": True},
        ["-        loss.backward()", "-        optimizer.step()"],
    ),
    "before": (
        {"find": "$OPT.step()", "before": "if $OPT.defaults:\n    clip($OPT)"},
        ["+        if optimizer.defaults:", "+            clip(optimizer)"],
    ),
    "before a decorated function": (
        {"find": "def evaluate($$$): $$$", "before": "SPEED = 1"},
        ["+SPEED = 1", "+", "+"],
    ),
    "before the statement that a match stands in": (
        {"find": "range($X)", "before": "epochs = $X"},
        ["+    epochs = config.epochs"],
    ),
    "after": (
        {"find": "$LOSS = loss_function($$$)", "after": "$LOSS = -$LOSS", "within": "@train_step"},
        ["+        loss = -loss"],
    ),
    "after a block": (
        {"within": "train_epoch", "find": "for $X, $Y in $LOADER: $$$", "after": "optimizer.step()"},
        ["+    optimizer.step()"],
    ),
    "after a header, first in its block": (
        {"within": "train_epoch", "find": "for $X, $Y in $LOADER:", "after": "$X = $X.float()"},
        ["+        inputs = inputs.float()"],
    ),
    "after a function": (
        {"find": "def loss_function($$$): $$$", "after": "WEIGHT = 2"},
        ["+", "+", "+WEIGHT = 2"],
    ),
    "after the imports": (
        {"find": "from torch import nn", "after": "torch.manual_seed(0)"},
        ["+", "+torch.manual_seed(0)"],
    ),
    "an import after an import": (
        {"find": "import torch", "after": "import torchvision"},
        ["+import torchvision"],
    ),
    "a new function after a function": (
        {"find": "def loss_function($$$): $$$", "after": "def twice(x):\n    return 2 * x"},
        ["+", "+", "+def twice(x):", "+    return 2 * x"],
    ),
    "a new function before a function": (
        {"find": "def loss_function($$$): $$$", "before": "def twice(x):\n    return 2 * x"},
        ["+def twice(x):", "+    return 2 * x", "+", "+"],
    ),
    "a new method after a method": (
        {"within": "Net.forward", "find": "def forward($$$): $$$", "after": "def reset(self):\n    pass"},
        ["+", "+    def reset(self):", "+        pass"],
    ),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_edit_changes_the_program_as_shown(example):
    edit, expected = EXAMPLES[example]
    result = edited(PROGRAM, edit)
    assert sorted(removed_and_added(PROGRAM, result.source)) == sorted(expected)
    assert is_formatted(result.source)


@pytest.mark.parametrize("example", EXAMPLES)
def test_lines_to_blame_hold_what_was_added(example):
    edit, expected = EXAMPLES[example]
    result = edited(PROGRAM, edit)
    added = [line[1:] for line in expected if line[0] == "+" and line != "+"]
    if added:
        assert [result.source.splitlines()[number - 1] for number in result.lines] == added
    else:
        assert result.lines


def test_the_program_of_the_examples_is_formatted():
    assert is_formatted(PROGRAM)


@pytest.mark.parametrize(
    "edit",
    [
        {"find": "F.cross_entropy($A, $B)", "replace": "F.cross_entropy($A, $B)"},
        {"find": "$OPT.step()", "replace": "($OPT.step())"},
        {"find": "nn.Sequential($$$A)", "replace": "nn.Sequential($$$A)"},
    ],
)
def test_an_edit_that_leaves_the_program_as_it_is_is_an_error(edit):
    with pytest.raises(InjectionError, match=r"card: edit 1 \(`.*`\) leaves p unchanged"):
        edited(PROGRAM, edit)


@pytest.mark.parametrize("variants", [[], [[]]])
def test_no_edit_at_all_is_an_error(variants):
    with pytest.raises(InjectionError, match="card: no edit to make in p"):
        inject(PROGRAM, variants, roles=ROLES, card="card", program="p")


# --- what a pattern matches


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
    assert change(source, find, *action) != source


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


# --- where it looks


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


# --- layout


@pytest.mark.parametrize(
    ("source", "find", "text", "expected"),
    [
        ("f(a, b)\n", "f($A, $$$B)", "f($$$B)", "f(b)\n"),
        ("f(a)\n", "f($A, $$$B)", "g(x, $$$B)", "g(x)\n"),
        ("f(a)\n", "f($$$B, a)", "g($$$B, x)", "g(x)\n"),
        ("f(a)\n", "f($$$B, a, $$$C)", "g($$$B, $$$C)", "g()\n"),
        ("f(a)\n", "f($$$B, a)", "g(\n    $$$B,\n    x,\n)", "g(\n    x,\n)\n"),
        ("f(b, c, a)\n", "f($$$B, a)", "g(\n    $$$B,\n    x,\n)", "g(\n    b,\n    c,\n    x,\n)\n"),
        ("y = f(\n    a, b\n)\n", "f($$$B)", "g($$$B)", "y = g(a, b)\n"),
        ("y = f(\n    a,\n    b,\n)\n", "f($A, $B)", "g($A, $B)", "y = g(a, b)\n"),
        (
            "y = f(\n    a,  # 1\n    # next\n    b,  # 2\n)\n",
            "f($$$A)",
            "g($$$A)",
            "y = g(\n    a,  # 1\n    # next\n    b,  # 2\n)\n",
        ),
        ("if x:\n    y = f(1)  # why\n", "f(1)", "g(2)", "if x:\n    y = g(2)  # why\n"),
        ("if x:\n    f(1)\n", "f($X)", "if $X:\n    g()\nh()", "if x:\n    if 1:\n        g()\n    h()\n"),
        (
            "if x:\n    f(1)\n",
            "f($X)",
            's = """a\n  b\n"""\ng(s)',
            'if x:\n    s = """a\n  b\n"""\n    g(s)\n',
        ),
    ],
)
def test_replacement_layout(source, find, text, expected):
    assert change(source, find, "replace", text) == expected


@pytest.mark.parametrize(
    ("source", "find", "expected"),
    [
        ("f(a, nn.ReLU(), b)\n", "nn.ReLU()", "f(a, b)\n"),
        ("f(nn.ReLU(), b)\n", "nn.ReLU()", "f(b)\n"),
        ("f(a, nn.ReLU())\n", "nn.ReLU()", "f(a)\n"),
        ("f(nn.ReLU())\n", "nn.ReLU()", "f()\n"),
        ("f(\n    a,\n    nn.ReLU(),  # sharp\n)\n", "nn.ReLU()", "f(\n    a,\n)\n"),
        ("f(\n    a, nn.ReLU(), b, nn.ReLU()\n)\n", "nn.ReLU()", "f(\n    a, b\n)\n"),
    ],
)
def test_an_element_is_taken_out_with_its_comma(source, find, expected):
    assert change(source, find, "replace", "") == expected


BODY = '''\
def f():
    with torch.no_grad():
        # all of it
        text = """
    left
        """

        for a in text:
            g(a)
    return 1
'''


def test_a_body_moves_as_a_block_and_strings_stay():
    assert (
        change(BODY, "with torch.no_grad(): $$$BODY", "replace", "$$$BODY")
        == '''\
def f():
    # all of it
    text = """
    left
        """

    for a in text:
        g(a)
    return 1
'''
    )
    nested = "if x:\n    with y: $$$BODY"
    assert (
        change(BODY, "with torch.no_grad(): $$$BODY", "replace", nested)
        == '''\
def f():
    if x:
        with y:
            # all of it
            text = """
    left
        """

            for a in text:
                g(a)
    return 1
'''
    )


def test_an_else_keeps_its_place_under_the_new_header():
    source = "if x:\n    for a in b:\n        f()\n    else:\n        g()\n"
    assert change(source, "for $A in $B: $$$BODY", "replace", "while $B: $$$BODY") == (
        "if x:\n    while b:\n        f()\n    else:\n        g()\n"
    )


def test_arguments_of_several_lines_have_lines_of_their_own():
    source = "if x:\n    y = f(\n        g(\n            1,\n            2,\n        ),\n        b,\n    )\n"
    assert change(source, "f($A, $B)", "replace", "h($B, $A)") == (
        "if x:\n    y = h(\n        b,\n        g(\n            1,\n            2,\n        ),\n    )\n"
    )
    assert change(source, "f($A, $B)", "replace", "$A") == "if x:\n    y = g(\n        1,\n        2,\n    )\n"
    result = change(source, "f($A, $B)", "replace", "h(k($A))")
    assert result == (
        "if x:\n    y = h(\n        k(\n            g(\n                1,\n                2,\n            )\n"
        "        )\n    )\n"
    )
    assert is_formatted(result)


def test_a_list_within_a_call_is_broken_with_the_call():
    source = "y = compose(\n    [\n        rotate(\n            degrees=10,\n            fill=0,\n        )\n    ]\n)\n"
    assert is_formatted(source)
    result = change(source, "compose([$$$A])", "replace", "compose([flip(), $$$A])")
    assert removed_and_added(source, result) == ["+        flip(),", "-        )", "+        ),"]
    assert is_formatted(result)


@pytest.mark.parametrize(
    ("source", "find", "text", "expected"),
    [
        ("y = f(a + b)\n", "f($X)", "$X / 2", "y = (a + b) / 2\n"),
        ("y = f(a * b)\n", "f($X)", "$X / 2", "y = a * b / 2\n"),
        ("y = f(a + b)\n", "f($X)", "$X.detach()", "y = (a + b).detach()\n"),
        ("y = f(a + b)\n", "f($X)", "g($X, 2)", "y = g(a + b, 2)\n"),
        ("y = 3 * f(a)\n", "f($X)", "$X + 1", "y = 3 * (a + 1)\n"),
        ("y = f(a).mean()\n", "f($X)", "-$X", "y = (-a).mean()\n"),
        ("y = f(a)\n", "f($X)", "$X + 1", "y = a + 1\n"),
        ("y = a / 255 - 1\n", "$A / 255", "$A / 127", "y = a / 127 - 1\n"),
        ("def g():\n    return a, b\n", "return $X", "return f($X)", "def g():\n    return f((a, b))\n"),
        ("def g():\n    return a, b\n", "return $X", "x = $X\nreturn x", "def g():\n    x = a, b\n    return x\n"),
        ("f(a if b else c)\n", "f($X)", "x = not $X", "x = not (a if b else c)\n"),
    ],
)
def test_parentheses_where_the_meaning_needs_them(source, find, text, expected):
    assert change(source, find, "replace", text) == expected


def test_a_line_that_grows_too_long_is_broken_at_its_last_bracket():
    long = "y = first_function(argument_one=1, argument_two=2).second_function(argument_three=3, argument_four=4)\n"
    result = change(long, "$X.second_function($$$A)", "replace", "$X.another_function_name($$$A, and_five_more=5)")
    assert result == (
        "y = first_function(argument_one=1, argument_two=2).another_function_name(\n"
        "    argument_three=3, argument_four=4, and_five_more=5\n"
        ")\n"
    )
    assert is_formatted(result)
    names = ", ".join(f"a_rather_long_name_{number}" for number in range(4))
    result = change(f"if x:\n    f({names})\n", "f($$$A)", "replace", "f($$$A, $$$A)")
    assert len(result.splitlines()) == 2 + 8 + 1
    assert is_formatted(result)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a()\nf()\nb()\n", "a()\nb()\n"),
        ("a()\n\nf()\n\nb()\n", "a()\n\nb()\n"),
        ("a()\n\nf()\nb()\n", "a()\n\nb()\n"),
        ("a()\n\nf()\n", "a()\n"),
        ("f()\n\n\na()\n", "a()\n"),
        ("a()\nf()", "a()\n"),
        ("import a\nf()\n\n\ndef g():\n    pass\n", "import a\n\n\ndef g():\n    pass\n"),
        ("if x:\n    f()\n\n    a()\n", "if x:\n    a()\n"),
        ("if x:\n    a()\n\n    f()\nb()\n", "if x:\n    a()\nb()\n"),
        ("def g():\n    a()\n\n    f()\n\n\nb()\n", "def g():\n    a()\n\n\nb()\n"),
        ("if x:\n    f()\nb()\n", "if x:\n    pass\nb()\n"),
        ("if x:\n    f()  # remark\n    f()\nb()\n", "if x:\n    pass\nb()\n"),
        ("if x:\n    a()\nelse:\n    f()\n", "if x:\n    a()\nelse:\n    pass\n"),
        ("if x: f()\n", "if x: pass\n"),
        ("a(); f(); b()\n", "a(); b()\n"),
        ("f(); b()\n", "b()\n"),
        ("a(); f()\n", "a()\n"),
        ("a(); f()  # remark\n", "a()  # remark\n"),
        ("if x: a(); f()\n", "if x: a()\n"),
        ("a()\nf();\nb()\n", "a()\nb()\n"),
        ("a()\nf()  # remark\nb()\n", "a()\nb()\n"),
        ("a()\ny = [\n    f(),\n    2,\n]\nb()\n", "a()\nb()\n"),
        ("a()\nif f():\n    b()\nc()\n", "a()\nc()\n"),
    ],
)
def test_delete_layout(source, expected):
    assert change(source, "f()", "delete") == expected


@pytest.mark.parametrize(
    ("source", "action", "expected"),
    [
        ("a()\n\nf()  # remark\nb()\n", "before", "a()\n\nx()\nf()  # remark\nb()\n"),
        ("a()\n\nf()  # remark\nb()\n", "after", "a()\n\nf()  # remark\nx()\nb()\n"),
        ("f()", "after", "f()\nx()\n"),
        ("if y:\n    f()\nb()\n", "after", "if y:\n    f()\n    x()\nb()\n"),
        ("a(); f(); b()\n", "before", "a(); x(); f(); b()\n"),
        ("a(); f(); b()\n", "after", "a(); f(); x(); b()\n"),
        ("if y: f()\n", "before", "if y: x(); f()\n"),
        ("if y: f()\n", "after", "if y: f(); x()\n"),
        ("z = f() + f()\n", "before", "x()\nz = f() + f()\n"),
        ("if f():\n    f()\n", "before", "x()\nif f():\n    x()\n    f()\n"),
        ("if f():\n    f()\n", "after", "if f():\n    f()\n    x()\nx()\n"),
        ("def g():\n    return f()\n\n\nb()\n", "before", "def g():\n    x()\n    return f()\n\n\nb()\n"),
    ],
)
def test_insert_layout(source, action, expected):
    assert change(source, "f()", action, "x()") == expected


def test_first_in_a_function_means_after_its_docstring():
    source = 'def f(a):\n    """Doc."""\n    return a\n'
    assert change(source, "def f($A):", "after", "$A = 1") == 'def f(a):\n    """Doc."""\n    a = 1\n    return a\n'
    source = "def f(a):  # why\n    # note\n    return a\n"
    assert change(source, "def f($A):", "after", "$A = 1") == "def f(a):  # why\n    a = 1\n    # note\n    return a\n"
    assert change("while x: f()\n", "while $X:", "after", "g()") == "while x: g(); f()\n"


def test_inserted_strings_keep_their_lines():
    source = "if y:\n    f()\n"
    assert change(source, "f()", "before", 'x = """\n  a\n"""\nz()') == (
        'if y:\n    x = """\n  a\n"""\n    z()\n    f()\n'
    )


# --- errors that name their place


def test_an_edited_program_must_parse():
    with pytest.raises(InjectionError) as caught:
        change("a = 1\nf(a)\n", "f($X)", "replace", "f($X) = $X")
    message = str(caught.value)  # the reason is Python's own and differs between its versions
    assert message.startswith("card: edit 1 (`f($X)`) leaves p unparsable: cannot assign to function call")
    assert message.endswith(", line 2: f(a) = a")
    assert not isinstance(caught.value, NoMatch)


def test_the_program_must_parse_before():
    with pytest.raises(InjectionError, match=r"card: p does not parse before any edit: .*line 1: def"):
        change("def\n", "f()", "delete")


def test_an_empty_replacement_of_a_statement_is_an_error():
    with pytest.raises(InjectionError, match="cannot be made in p: an empty replacement takes out"):
        change("f()\n", "f()", "replace", "")


@pytest.mark.parametrize(
    "find",
    [
        *["f(", "$X.", "1 +", "f(a b)", "x = ", "else:", "elif $A: $$$B", "if $A:\nb", "a b", "f(dim=${bug.dim})"],
        *["f($x)", "$$X", "$", "$X", "$$$X", "", "$$$A\nf()", "f()\nfor $A in $B:"],
    ],
)
def test_a_pattern_that_is_no_python_is_an_error(find):
    with pytest.raises(EditError) as caught:
        Edit(find, "delete")
    assert f"`{find}`" in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"find": "f()", "replce": "g()"}, "unknown field 'replce': did you mean replace?"),
        ({"fnd": "f()", "delete": True}, "unknown field 'fnd': did you mean find?"),
        ({"delete": True}, "needs a `find`; this one has only delete"),
        ({"find": "f()"}, "`f()` needs one of replace, delete, before, after; it has none"),
        ({"find": "f()", "delete": True, "replace": "g()"}, "it has replace, delete"),
        ({"find": "f()", "delete": "yes"}, "delete is written `delete: true`, not `'yes'`"),
        ({"find": "f()", "delete": False}, "delete is written `delete: true`, not `False`"),
        ({"find": "f()", "replace": 3}, "`replace` must be text, not 3: put it in quotes"),
        ({"find": ["f()"], "delete": True}, "`find` must be text"),
        ({"find": "f()", "delete": True, "within": 1}, "`within` must be text"),
        ({"find": "f()", "before": " "}, "before: no statement to insert"),
        ({"find": "f($A, $$$B)", "replace": "g($C)"}, "$C is not bound: `f($A, $$$B)` binds $A, $$$B"),
        ({"find": "f()", "replace": "g($C)"}, "$C is not bound: `f()` binds no name"),
        ({"find": "f($_A)", "after": "g($A)"}, "$A is not bound"),
        ({"find": "f($A)", "replace": "g($$$A)"}, "A is $ in one place and $$$ in another"),
        ({"find": "with $X:", "delete": True}, "is only a header; write `with $X: $$$BODY`"),
        ({"find": "with $X:", "replace": "with y"}, "its replacement ends with a colon"),
        ("f()", "an edit is a mapping of within, find"),
    ],
)
def test_a_malformed_edit_is_an_error(edit, message):
    with pytest.raises(EditError) as caught:
        Edit.from_mapping(edit)
    assert message in str(caught.value)


def test_an_edit_can_be_pickled():
    edit = Edit("f($X)", "replace", "g($X)")
    assert pickle.loads(pickle.dumps(edit)) == edit


# --- differences


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("a\nb\nc\n", "a\nx\nc\n", (2,)),
        ("a\nb\nc\n", "a\nc\n", (2,)),
        ("a\nb\n\nc\n", "a\n\nc\n", (3,)),
        ("a\nb\n", "a\n", (1,)),
        ("if a:\n    b\n    c\n\n\nd\n", "if a:\n    b\n\n\nd\n", (2,)),
        ("if a:\n    b\n    c\n", "if a:\n    c\n    b\n", (2,)),
        ("a\nb\nc\nd\n", "b\nc\na\nd\n", (3,)),
        ("a\n", "", ()),
        ("a\nb\n", "a\nx\n\ny\nb\n", (2, 4)),
        ("a\nb\nc\nd\n", "x\nb\nd\n", (1, 3)),
        ("a\n", "a\n", ()),
    ],
)
def test_changed_lines(before, after, lines):
    assert changed_lines(before, after) == lines


def test_diff():
    assert diff("a\nb\nc\n", "a\nx\nc", "p.py", context=1) == ("--- p.py\n+++ p.py\n@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n")
    assert diff("a\n", "a\n", "p.py") == ""
