"""The lines that differ between two programs."""

import pytest
from bugbench.injection import changed_lines, diff


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
