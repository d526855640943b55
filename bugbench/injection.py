"""A bug is an edit to the source of a healthy program: text in, text out.

An edit is a structural pattern (see `pattern`), the scope in which it is sought, and one action on every match:

replace   the matched code; `""` takes an argument or list element out, with its comma
delete    the statement in which the match stands; a block left empty gets `pass`
before    puts statements in front of the statement in which the match stands
after     puts them behind it; behind a header (`for $X in $Y:`), first in its block

A function counts with its decorators, but `replace` touches only what the pattern shows.
"""

import ast
import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ast_grep_py import SgNode, SgRoot
from bugbench import layout
from bugbench.binding import BRACKETS, LOOSE, indent_at, span
from bugbench.names import unknown
from bugbench.pattern import EditError, Match, Pattern, metavariables
from bugbench.scope import Roles, UnknownScope, scopes

__all__ = ["Edit", "EditError", "Edited", "InjectionError", "NoMatch", "changed_lines", "diff", "inject"]

Action = Literal["replace", "delete", "before", "after"]
ACTIONS: tuple[Action, ...] = get_args(Action)
FIELDS = ("within", "find", *ACTIONS)


class InjectionError(Exception):
    """An edited program that is no program, or the same program; names card, edit and program."""


class NoMatch(InjectionError):
    """The bug does not apply: an edit found nothing; names card, edit, scope and program."""


@dataclass(frozen=True)
class Edit:
    """One edit of a card. Raises EditError where pattern and text do not make sense, whatever the program."""

    find: str
    action: Action
    text: str = ""
    within: str | None = None  # "@role", or a function or class, dotted; None for the whole program

    def __post_init__(self) -> None:
        bound = set(self.pattern.names)
        for name, many in metavariables(self.text).items():
            if name not in bound:
                known = ", ".join(f"${'$$' * many}{name}" for name, many in self.pattern.names.items()) or "no name"
                raise EditError(f"{self.action}: ${'$$' * many}{name} is not bound: `{self.find}` binds {known}")
            if many != self.pattern.names[name]:
                raise EditError(f"{self.action}: {name} is $ in one place and $$$ in another of `{self.find}`")
        if self.action in ("before", "after") and not self.text.strip():
            raise EditError(f"{self.action}: no statement to insert")
        if self.pattern.header and self.action == "delete":
            raise EditError(f"delete: `{self.find}` is only a header; write `{self.find.strip()} $$$BODY`")
        if self.pattern.header and self.action == "replace" and not self.text.rstrip().endswith(":"):
            raise EditError(f"replace: `{self.find}` is a header, so its replacement ends with a colon")

    @functools.cached_property
    def pattern(self) -> Pattern:
        return Pattern(self.find)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Edit":
        """The edit a card writes as `{within?, find, one of replace, delete, before, after}`."""
        if not isinstance(mapping, Mapping):
            raise EditError(f"an edit is a mapping of {', '.join(FIELDS)}, not {mapping!r}")
        for key in mapping:
            if key not in FIELDS:
                raise EditError(f"{unknown('field', str(key), FIELDS)} (an edit has {', '.join(FIELDS)})")
        if "find" not in mapping:
            raise EditError(f"an edit needs a `find`; this one has only {', '.join(mapping) or 'nothing'}")
        given = [action for action in ACTIONS if action in mapping]
        if len(given) != 1:
            raise EditError(
                f"`{mapping['find']}` needs one of {', '.join(ACTIONS)}; it has {', '.join(given) or 'none'}"
            )
        action = given[0]
        if action == "delete" and mapping["delete"] is not True:
            raise EditError(f"delete is written `delete: true`, not `{mapping['delete']!r}`")
        for key in ("find", "within", action):
            value = mapping.get(key)
            if not isinstance(value, str) and (key, value) not in (("within", None), ("delete", True)):
                raise EditError(f"`{key}` must be text, not {value!r}: put it in quotes")
        text = "" if action == "delete" else mapping[action].strip("\n")
        return cls(mapping["find"], action, text, mapping.get("within"))


@dataclass(frozen=True)
class Edited:
    """An edited program and the lines to blame, see `changed_lines`."""

    source: str
    lines: tuple[int, ...]


def inject(source: str, variants: Sequence[Sequence[Edit]], *, roles: Roles, card: str, program: str) -> Edited:
    """The program with the edits of the first variant made, all of whose edits match.

    `roles` maps a role to a name or names in this program. Raises NoMatch where no variant fits and InjectionError
    where there is no edit to make, or where the edited program does not parse or is the same program.
    """
    if _syntax_error(source):
        raise InjectionError(f"{card}: {program} does not parse before any edit: {_syntax_error(source)}")
    if not any(variants):
        raise InjectionError(f"{card}: no edit to make in {program}")
    failures = []
    for number, edits in enumerate(variants, start=1):
        try:
            text = _edit_all(source, edits, roles, card, program)
        except _Missing as missing:
            failures.append(f"variant {number}, {missing}" if len(variants) > 1 else str(missing))
            continue
        for line in reversed(changed_lines(source, text)):
            text = layout.wrap_line(text, line)
        if layout.meaning(text) == layout.meaning(source):
            finds = ", ".join(f"edit {place} (`{edit.find}`)" for place, edit in enumerate(edits, start=1))
            raise InjectionError(f"{card}: {finds} leaves {program} unchanged")
        return Edited(text, changed_lines(source, text))
    raise NoMatch(f"{card} does not apply to {program}: {'; '.join(failures)}")


def diff(before: str, after: str, program: str, context: int = 3) -> str:
    """Unified diff of two versions of `program`."""
    old, new = before.splitlines(), after.splitlines()
    lines = difflib.unified_diff(old, new, program, program, n=context, lineterm="")
    return "".join(f"{line}\n" for line in lines)


def changed_lines(before: str, after: str) -> tuple[int, ...]:
    """1-based lines of `after` that are to blame for the difference.

    Lines that are new, changed or moved, but no blank ones. Where lines are only missing, the line now at their place;
    if a block ended there, the line before it.
    """
    old, new = before.splitlines(), after.splitlines()
    changes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    added = {line for kind, *_, start, stop in changes if kind != "equal" for line in new[start:stop]}
    lines: set[int] = set()
    for kind, first, last, start, stop in changes:
        missing = [line for line in old[first:last] if line.strip()]
        if kind == "delete" and missing and new and not added.issuperset(missing):
            below = next((row for row in range(start, len(new)) if new[row].strip()), None)
            above = next((row for row in reversed(range(start)) if new[row].strip()), 0)
            ended = below is None or indent_at(new[below], 0) < indent_at(missing[0], 0)
            lines.add(1 + (above if ended or below is None else below))
        elif kind in ("replace", "insert"):
            lines.update(row + 1 for row in range(start, stop) if new[row].strip())
    return tuple(sorted(lines))


class _Missing(Exception):
    """An edit found nothing; the message says which edit, and where it looked."""


def _edit_all(source: str, edits: Iterable[Edit], roles: Roles, card: str, program: str) -> str:
    for number, edit in enumerate(edits, start=1):
        label = f"edit {number} (`{edit.find}`)"
        try:
            source = _edit(source, edit, roles)
        except (_Missing, UnknownScope) as missing:
            raise _Missing(f"{label}: {missing}") from None
        except _Impossible as reason:
            raise InjectionError(f"{card}: {label} cannot be made in {program}: {reason}") from None
        if problem := _syntax_error(source):
            raise InjectionError(f"{card}: {label} leaves {program} unparsable: {problem}")
    return source


class _Impossible(Exception):
    """The match is no place for the action."""


def _edit(source: str, edit: Edit, roles: Roles) -> str:
    root = SgRoot(source, "python").root()
    nodes = scopes(root, edit.within, roles)
    found = {(match.start, match.end): match for node in nodes for match in edit.pattern.matches(node, source)}
    if not found:
        raise _Missing(f"nothing like it in {edit.within or 'the program'}{_keyword_hint(edit, nodes)}")
    matches = [found[place] for place in sorted(found)]
    if edit.action == "replace":
        for match in reversed(matches):
            source = _replace(source, match, edit)
        return source
    statements = {(span(match.first)[0], span(match.last)[1]): match for match in reversed(matches)}
    if edit.action == "delete":
        return _delete(source, statements)
    if edit.action == "before":
        for (start, _), match in sorted(statements.items(), reverse=True, key=lambda item: item[0]):
            text = layout.fill(edit.text, match.bound, indent_at(source, start))
            source = layout.put_before(source, start, text, _is_definition(match.first))
        return source
    # Of two statements that end together, the outer one comes first: what is put behind the inner one goes between.
    places = [_place_after(match) for match in statements.values()]
    for match, node in sorted(places, key=lambda place: (-span(place[1])[1], span(place[1])[0])):
        source = _put_after(source, match, node, edit)
    return source


def _keyword_hint(edit: Edit, nodes: Iterable[SgNode]) -> str:
    name = edit.find.split("=")[0].strip()
    keywords = (call for node in nodes for call in node.find_all(kind="keyword_argument"))
    if "=" in edit.find and any(call.child(0).text() == name for call in keywords):  # type: ignore[union-attr]
        return f"; a keyword argument is matched inside its call: `$F($$$A, {edit.find.strip()}, $$$B)`"
    return ""


def _is_definition(node: SgNode) -> bool:
    return node.kind() in ("decorated_definition", "function_definition", "class_definition")


def _replace(source: str, match: Match, edit: Edit) -> str:
    if not edit.text.strip():
        parent = match.node.parent() if match.node else None
        if parent is None or parent.kind() not in BRACKETS:
            raise _Impossible("an empty replacement takes out an argument or list element; use delete for a statement")
        return layout.cut_element(source, match.start, match.end)

    def build(bracketed: frozenset[str]) -> str:
        text = layout.fill(edit.text, match.bound, indent_at(source, match.start), bracketed)
        text = f"({text})" if "" in bracketed else text
        return source[: match.start] + text + source[match.end :]

    # Parentheses keep the meaning of `$X / 2` when $X is `a + b`; those that change nothing are left out again.
    wanted = {name for name, value in match.bound.items() if value.loose}
    if _expression(edit.text) in LOOSE and layout.meaning(build(frozenset({*wanted, ""}))):
        wanted.add("")
    intended = layout.meaning(build(frozenset(wanted))) if wanted else None
    for name in sorted(wanted):  # all of them where parentheses are not even allowed
        if intended is None or layout.meaning(build(frozenset(wanted - {name}))) == intended:
            wanted.remove(name)
    return build(frozenset(wanted))


def _expression(text: str) -> str | None:
    """Kind of the expression that a replacement is; None for statements."""
    statements = SgRoot(text.replace("$", "µ"), "python").root().children()
    expression = statements[0].child(0) if len(statements) == 1 else None
    return expression.kind() if expression is not None else None


def _delete(source: str, statements: Mapping[tuple[int, int], Match]) -> str:
    spans = sorted(statements)
    outer = [own for own in spans if not any(a <= own[0] and own[1] <= b and (a, b) != own for a, b in spans)]
    for start, end in reversed(outer):
        first = statements[start, end].first
        block = first.parent()
        others = [node for node in (block.named_children() if block else []) if node.kind() != "comment"]
        emptied = all(any(a <= span(node)[0] and span(node)[1] <= b for a, b in outer) for node in others)
        if block and block.kind() == "block" and emptied and span(others[0]) == span(first):
            rest = source[end : layout.line_end(source, end)]
            stop = end + len(rest) if rest.strip().startswith("#") else end
            source = source[:start] + "pass" + source[stop:]
        else:
            source = layout.cut_statement(source, start, end)
    return source


def _place_after(match: Match) -> tuple[Match, SgNode]:
    """The node behind which to insert: the statement, or of a header the docstring or the header's colon."""
    if match.body is None:
        return match, match.last
    first = next(node for node in match.body.named_children() if node.kind() != "comment")
    content = first.child(0)
    if _is_definition(match.last) and content is not None and content.kind() == "string":
        return match, first
    return match, next(node for node in match.body.prev_all() if node.kind() == ":")


def _put_after(source: str, match: Match, node: SgNode, edit: Edit) -> str:
    start, end = span(match.first)[0] if match.body is None else span(node)[0], span(node)[1]
    if node.kind() == ":" and match.body is not None:
        start = span(match.body)[0]
    text = layout.fill(edit.text, match.bound, indent_at(source, start))
    if node.kind() == ":":
        return layout.put_first(source, end, start, text)
    return layout.put_after(source, start, end, text, _is_definition(node))


@functools.lru_cache(maxsize=256)
def _syntax_error(source: str) -> str:
    try:
        ast.parse(source)
    except SyntaxError as error:
        return f"{error.msg}, line {error.lineno}: {(error.text or '').strip()}"
    return ""
