"""The layout of an edited program: commas, comments, blank lines, brackets and parentheses."""

import pytest
from edited_program import change, is_formatted, removed_and_added


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
