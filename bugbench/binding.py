"""What the metavariables of a pattern stand for where it matches."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ast_grep_py import SgNode

BRACKETS = {"argument_list", "parameters", "list", "tuple", "dictionary", "set"}
BLOCKS = {"block", "module"}
# Expressions that may need parentheses where they are put next to another operator.
LOOSE = {
    "await",
    "binary_operator",
    "boolean_operator",
    "comparison_operator",
    "conditional_expression",
    "expression_list",
    "lambda",
    "named_expression",
    "not_operator",
    "pattern_list",
    "unary_operator",
}


@dataclass(frozen=True)
class Bound:
    """What a metavariable stands for in one match."""

    text: str
    indent: int  # of the source line on which the text begins
    many: bool = False  # bound by $$$
    body: bool = False  # statements, not arguments
    loose: bool = False  # an operator expression
    spread: bool = False  # arguments that stand one to a line, or one that takes several lines
    parts: tuple[str, ...] = ()  # the single arguments
    tail: str = ""  # comment behind the last argument


def bind(node: SgNode, names: Mapping[str, bool], source: str) -> dict[str, Bound]:
    """The bindings of a node that a pattern matched; `names` says which of them may be many."""
    bound = {}
    for name, many in names.items():
        single = None if many else node.get_match(name)
        if many:
            bound[name] = _bound_many(node.get_multiple_matches(name), source)
        elif single is not None:
            text, indent = single.text(), indent_at(source, span(single)[0])
            spread = "\n" in text and text[-1] in ")]}"
            bound[name] = Bound(text, indent, loose=single.kind() in LOOSE, spread=spread)
    return bound


def bind_between(last: SgNode, follower: SgNode, source: str) -> Bound:
    """The statements between two others."""
    row, end = last.range().end.line, span(follower)[0]
    nodes = [node for node in last.next_all() if node.is_named() and span(node)[1] <= end]
    return _statements([node for node in nodes if node.kind() != "comment" or node.range().start.line > row], source)


def _bound_many(nodes: Sequence[SgNode], source: str) -> Bound:
    owner = nodes[0].parent() if nodes else None
    if owner and (owner.kind() in BLOCKS or owner.field("body") or owner.field("consequence")):
        return _statements(nodes, source)
    parts = [node for node in nodes if node.kind() not in {",", "comment"}]
    if not owner or not parts:
        return Bound("", 0, many=True)
    start, end = span(parts[0])[0], span(parts[-1])[1]
    remark = re.match(r",?[ \t]*(#[^\n]*)", source[end:])
    return Bound(
        source[start:end],
        indent_at(source, start),
        many=True,
        spread=re.match(r".[ \t]*(#[^\n]*)?\n", owner.text()) is not None
        and (_ends_in_comma(owner) or any("\n" in part.text() for part in parts)),
        parts=tuple(part.text() for part in parts),
        tail=f"  {remark[1]}" if remark else "",
    )


def _ends_in_comma(bracket: SgNode) -> bool:
    elements = [child for child in bracket.children() if child.kind() != "comment"]
    return len(elements) > 2 and elements[-2].kind() == ","


def _statements(nodes: Sequence[SgNode], source: str) -> Bound:
    if not nodes:
        return Bound("", 0, many=True, body=True)
    start, end = span(nodes[0])[0], span(nodes[-1])[1]
    indent = indent_at(source, start)
    if source[source.rfind("\n", 0, start) + 1 : start].strip():  # a body behind its header, on the same line
        indent += 4
    return Bound(source[start:end], indent, many=True, body=True)


def span(node: SgNode) -> tuple[int, int]:
    """Start and end of a node, in characters."""
    return node.range().start.index, node.range().end.index


def indent_at(source: str, position: int) -> int:
    """Width of the indentation of the line that holds `position`."""
    line = source[source.rfind("\n", 0, position) + 1 :]
    return len(line) - len(line.lstrip(" \t"))
