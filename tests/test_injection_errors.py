"""Edits that are malformed or cannot be made: errors that name their place."""

import pytest
from bugbench.injection import Edit, EditError, InjectionError, NoMatch, inject
from edited_program import PROGRAM, ROLES, change, edited


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
