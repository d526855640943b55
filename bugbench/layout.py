"""Text of an edited program: it must read as if a person had written it, in the layout `ruff format` gives."""

import ast
import re
from collections.abc import Mapping
from functools import lru_cache

from ast_grep_py import SgNode, SgRoot
from bugbench.binding import BRACKETS, Bound, indent_at, span
from bugbench.pattern import METAVARIABLE, without

LINE_LENGTH = 120  # of this repository; a longer line made by an edit is broken at its last bracket
_DEFINITION = re.compile(r"@|(async )?def |class ")
_IMPORT = re.compile(r"(import|from) ")


def fill(template: str, bound: Mapping[str, Bound], indent: int, bracketed: frozenset[str] = frozenset()) -> str:
    """The replacement with its metavariables filled in, for a place on a line indented by `indent`.

    The first line is not indented, the others are. Names in `bracketed` are put in parentheses.
    """
    for name, value in bound.items():
        if value.many and not value.text:
            template = without(template, f"$$${name}")
        elif value.body:  # `for $X in $Y: $$$BODY` may be written on one line; the program's body has its own
            template = re.sub(rf"(?m)^( *)(.*:) *(\$\$\${name})$", r"\1\2\n\1    \3", template)
        elif value.spread:
            template = _spread_around(template, name, value.many)
    lines = []
    for number, line in enumerate(shift(template.rstrip(), indent).split("\n")):
        margin = indent if number == 0 else len(line) - len(line.lstrip())
        lines.append(_fill_line(line, bound, margin, bracketed))
    return "\n".join(lines)


def _fill_line(line: str, bound: Mapping[str, Bound], margin: int, bracketed: frozenset[str]) -> str:
    def text_of(found: re.Match[str]) -> str:
        name = found["many"] or found["one"]
        value = bound[name]
        if value.parts:
            return ", ".join(shift(part, margin - value.indent) for part in value.parts)
        text = shift(value.text, margin - value.indent)
        return f"({text})" if name in bracketed else text

    alone = re.fullmatch(r"(\s*)\$\$\$(\w+)(,?)\s*", line)
    if alone and bound[alone[2]].parts:
        value = bound[alone[2]]
        if value.spread:
            return alone[1] + shift(value.text, margin - value.indent) + alone[3] + value.tail
        return alone[1] + f",\n{alone[1]}".join(value.parts) + alone[3]
    return METAVARIABLE.sub(text_of, line)


def shift(text: str, by: int) -> str:
    """`text` with its lines after the first moved right by `by` columns, but for those that begin in a string."""
    if by == 0 or "\n" not in text:
        return text
    strings = SgRoot(text.replace("$", "µ"), "python").root().find_all(kind="string")
    inside = {row for node in strings for row in range(node.range().start.line + 1, node.range().end.line + 1)}
    lines = text.split("\n")
    for row, line in enumerate(lines[1:], start=1):
        if row not in inside and line.strip():
            stripped = line.lstrip(" ")
            lines[row] = " " * max(len(line) - len(stripped) + by, 0) + stripped
    return "\n".join(lines)


def _spread_around(template: str, name: str, many: bool) -> str:
    """The template with the lists around a metavariable broken, as what it stands for takes several lines."""
    word = ("µµµ" if many else "µ") + name
    for node in SgRoot(template.replace("$", "µ"), "python").root().find_all(kind="identifier"):
        brackets = [outer for outer in node.ancestors() if outer.kind() in BRACKETS and node.text() == word]
        for place, bracket in reversed(list(enumerate(brackets))):
            start = span(bracket)[0]
            if template[start + 1] != "\n":
                join = ", " if len(bracket.named_children()) == 1 and (place or not many) else None
                return _spread_around(_spread(template, bracket, indent_at(template, start), join), name, many)
    return template


def _spread(text: str, bracket: SgNode, indent: int, join: str | None = None) -> str:
    margin = "\n" + " " * (indent + 4)
    elements = [text[slice(*span(child))] for child in bracket.named_children()]
    inner = join.join(elements) if join else f",{margin}".join(elements) + ","
    start, end = span(bracket)
    return text[: start + 1] + margin + inner + "\n" + " " * indent + text[end - 1 :]


def wrap_line(source: str, number: int) -> str:
    """`source` with its line `number` (1-based) broken at the last bracket if it is too long."""
    lines = source.split("\n")
    line = lines[number - 1]
    if len(line) <= LINE_LENGTH:
        return source
    brackets = [
        node
        for node in SgRoot(line, "python").root().find_all(any=[{"kind": kind} for kind in BRACKETS])
        if node.named_children()
    ]
    if not brackets:
        return source
    last = max(brackets, key=lambda node: (span(node)[1], -span(node)[0]))
    for join in (", ", None):  # all elements on one line if they fit, else one to a line
        broken = _spread(line, last, indent_at(line, 0), join)
        if join is None or max(map(len, broken.split("\n"))) <= LINE_LENGTH:
            wrapped = "\n".join([*lines[: number - 1], broken, *lines[number:]])
            return wrapped if meaning(wrapped) == meaning(source) else source
    return source


@lru_cache(maxsize=256)  # of a healthy program it is asked for each card
def meaning(source: str) -> str | None:
    """The program without its layout; None where it is no program."""
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:
        return None


def begins_line(source: str, start: int) -> bool:
    """Whether nothing but white space stands before `start` on its line."""
    return not source[source.rfind("\n", 0, start) + 1 : start].strip()


def _ends_line(source: str, end: int) -> bool:
    return re.match(r"[ \t]*;?[ \t]*(#[^\n]*)?(\n|\Z)", source[end:]) is not None


def line_end(source: str, position: int) -> int:
    """Position of the line break after `position`."""
    return len(source) if (found := source.find("\n", position)) < 0 else found


def cut_statement(source: str, start: int, end: int) -> str:
    """`source` without the statement at `start:end`, its remark and the blank lines that are now too many."""
    if not (begins_line(source, start) and _ends_line(source, end)):
        after = re.match(r"[ \t]*;[ \t]*(?=\S)", source[end:])
        if after:
            return source[:start] + source[end + after.end() :]
        return re.sub(r"[ \t]*;?[ \t]*\Z", "", source[:start]) + source[end:]
    indent = indent_at(source, start)
    above = source[: source.rfind("\n", 0, start) + 1]
    below = source[line_end(source, end) + 1 :]
    head, tail = above.rstrip(), re.sub(r"\A(?:[ \t]*\n)+", "", below)
    blank_above = above[len(head) :].count("\n") - 1
    blank_below = below[: len(below) - len(tail)].count("\n")
    if not head or not tail.strip():
        return head + "\n" if head else tail
    if indent_at(head, len(head)) < indent:  # it opened its block
        blank = 0
    elif indent_at(tail, 0) < indent:  # it closed its block
        blank = blank_below
    else:
        blank = max(blank_above, blank_below)
    return head + "\n" * (1 + blank) + tail


def cut_element(source: str, start: int, end: int) -> str:
    """`source` without the element of a list of arguments at `start:end` and the comma that goes with it."""
    if begins_line(source, start) and (rest := re.match(r",?[ \t]*(#[^\n]*)?\n", source[end:])):
        return source[: source.rfind("\n", 0, start) + 1] + source[end + rest.end() :]
    comma = re.match(r"\s*,\s*(?=[^\s)\]}])", source[end:])
    if comma:
        return source[:start] + source[end + comma.end() :]
    return re.sub(r"\s*,\s*\Z", "", source[:start]) + source[end:]


def put_before(source: str, start: int, text: str, definition: bool) -> str:
    """`source` with the statements `text` before the one at `start`; `definition`: that one is a def or class."""
    if not begins_line(source, start):
        return f"{source[:start]}{text}; {source[start:]}"
    line = source.rfind("\n", 0, start) + 1
    blank = 1 if start > line else 2
    new = _DEFINITION.match(text) is not None
    above = _missing_above(source[:line], start - line, blank) if new else ""
    below = "\n" * blank if new or definition else ""
    return f"{source[:line]}{above}{source[line:start]}{text}\n{below}{source[line:]}"


def put_after(source: str, start: int, end: int, text: str, definition: bool) -> str:
    """`source` with the statements `text` after the one at `start:end`."""
    if not (begins_line(source, start) and _ends_line(source, end)):
        return f"{source[:end]}; {text}{source[end:]}"
    line, stop = source.rfind("\n", 0, start) + 1, line_end(source, end)
    blank = 1 if start > line else 2
    new = _DEFINITION.match(text) is not None
    above = "\n" * blank if new or definition else ""
    if _IMPORT.match(source[start:end]) and not _IMPORT.match(text):
        above = above or "\n"
    rest = source[stop + 1 :]
    present = len(re.match(r"(?:[ \t]*\n)*", rest)[0].split("\n")) - 1  # type: ignore[index]
    below = "\n" * max(blank - present, 0) if new and rest.strip() and _indent_after(rest) >= start - line else ""
    return f"{source[:stop]}\n{above}{source[line:start]}{text}{below}{source[stop:] or chr(10)}"


def put_first(source: str, header: int, start: int, text: str) -> str:
    """`source` with the statements `text` first in the block that begins at `start`, under the header's end."""
    if not begins_line(source, start):
        return f"{source[:start]}{text}; {source[start:]}"
    stop = line_end(source, header) + 1
    return f"{source[:stop]}{' ' * indent_at(source, start)}{text}\n{source[stop:]}"


def _missing_above(above: str, indent: int, blank: int) -> str:
    head = above.rstrip()
    if not head or indent_at(head, len(head)) < indent:
        return ""
    return "\n" * max(blank - (above[len(head) :].count("\n") - 1), 0)


def _indent_after(rest: str) -> int:
    line = rest.lstrip("\n")
    return len(line) - len(line.lstrip())
