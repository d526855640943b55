"""Structural patterns: what the `find` of a bug card means, and where in a program it matches.

A pattern is Python with metavariables, matched by ast-grep (https://ast-grep.github.io): `$X` stands for one node,
`$$$XS` for any number of arguments or statements, `$_` and `$$$` for the same without a name. Three forms go beyond
ast-grep: a `$$$XS` between commas may stand for nothing; `for $X in $Y:` without a body matches the header alone; and
several lines match consecutive statements, where a line `$$$XS` stands for any statements in between.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ast_grep_py import SgNode, SgRoot
from bugbench.binding import BLOCKS, BRACKETS, Bound, bind, bind_between, span

METAVARIABLE = re.compile(r"\$\$\$(?P<many>[A-Z_][A-Z0-9_]*)?|\$(?P<one>[A-Z_][A-Z0-9_]*)")


class EditError(ValueError):
    """An edit of a card is not well formed, whatever the program."""


@dataclass(frozen=True)
class Match:
    """One place where a pattern matches; positions are characters of the source."""

    start: int
    end: int
    first: SgNode  # the statement it stands in; of a sequence, the first and the last
    last: SgNode
    bound: dict[str, Bound] = field(default_factory=dict)
    node: SgNode | None = None  # None for a sequence of statements
    body: SgNode | None = None  # of a matched header


class Pattern:
    """A compiled `find`. Raises EditError where it is not one expression or a run of statements."""

    def __init__(self, find: str) -> None:
        self.text = find.strip()
        self.names = metavariables(self.text)
        if not self.text or METAVARIABLE.fullmatch(self.text):
            raise EditError(f"`{find}` matches anything: name a call, an expression or a statement")
        self.header = self.text.endswith(":")
        code = _without_trailing_commas(self.text + " $$$" if self.header else self.text)
        if _faulty(code):
            raise EditError(f"`{find}` is not a Python expression or statement{_hint(self.text)}")
        statements = [child for child in _tree(code).named_children() if child.kind() != "comment"]
        if len(statements) == 1 and statements[0].kind() != "ERROR":
            code = code[slice(*span(statements[0]))]
        # Each step is the ast-grep patterns of a statement, any of which will do, or the name of a gap.
        self._steps: list[list[str] | str] = [list(_alternatives(code))]
        if len(statements) > 1:
            self._steps = [_step(code[slice(*span(statement))]) for statement in statements]
            if self.header or isinstance(self._steps[0], str) or isinstance(self._steps[-1], str):
                raise EditError(f"`{find}`: a run of statements begins and ends with a whole statement")

    def matches(self, scope: SgNode, source: str) -> list[Match]:
        """All matches inside `scope`, a node of the tree of `source`, in order; of nested ones the outermost."""
        found = self._runs(scope, source) if len(self._steps) > 1 else self._single(scope, source)
        kept: list[Match] = []
        for match in sorted(found, key=lambda match: (match.start, -match.end)):
            if not kept or match.start >= kept[-1].end:
                kept.append(match)
        return kept

    def _single(self, scope: SgNode, source: str) -> Iterator[Match]:
        for node in _find(self._steps[0], scope):
            start, end = span(node)
            body = None
            if self.header:
                definition = node.field("definition") or node
                colon = next(child for child in definition.children() if child.kind() == ":")
                end, body = span(colon)[1], definition.field("body") or definition.field("consequence")
            statement = statement_of(node)
            yield Match(start, end, statement, statement, bind(node, self.names, source), node, body)

    def _runs(self, scope: SgNode, source: str) -> Iterator[Match]:
        for node in _find(self._steps[0], scope):
            first = statement_of(node)
            if span(first) != span(node):
                continue
            bound, last = bind(node, metavariables(self._steps[0][0]), source), first
            for number, step in enumerate(self._steps[1:], start=1):
                if isinstance(step, str):
                    continue
                gap = self._steps[number - 1] if isinstance(self._steps[number - 1], str) else None
                follower = self._follower(last, step, gap is not None, bound, source)
                if follower is None:
                    break
                if gap:
                    bound[str(gap)] = bind_between(last, follower, source)
                last = follower
            else:
                yield Match(span(first)[0], span(last)[1], first, last, bound)

    def _follower(
        self, last: SgNode, step: Sequence[str], skip: bool, bound: dict[str, Bound], source: str
    ) -> SgNode | None:
        """The next statement after `last` (with `skip`, any later one) that `step` matches with equal bindings."""
        for statement in last.next_all():
            if not statement.is_named() or statement.kind() == "comment":
                continue
            for node in _find(step, statement):
                new = bind(node, metavariables(step[0]), source)
                same = all(_squeeze(bound[name].text) == _squeeze(new[name].text) for name in bound.keys() & new.keys())
                if span(node) == span(statement) and same:
                    bound.update(new)
                    return statement
            if not skip:
                return None
        return None


def metavariables(text: str) -> dict[str, bool]:
    """The named metavariables of a pattern or replacement; True for `$$$XS`. Raises EditError for a bad name."""
    names = {}
    for word in re.findall(r"\$+\w*", text):
        variable = METAVARIABLE.fullmatch(word)
        if not variable:
            raise EditError(f"`{word}` in `{text}` is no metavariable: $X is one node, $$$XS several, in capitals")
        name = variable["many"] or variable["one"] or ""
        if name.strip("_") and not name.startswith("_"):  # ast-grep binds no name that begins with _
            names[name] = variable["one"] is None
    return names


def statement_of(node: SgNode) -> SgNode:
    """The statement a node stands in: a function with its decorators, or a decorator if it stands in that."""
    parent = node.parent()
    while parent is not None and parent.kind() not in BLOCKS and node.kind() != "decorator":
        node, parent = parent, parent.parent()
    return node


def without(text: str, word: str) -> str:
    """`text` without the first `word` and the comma or the line that goes with it."""
    word = re.escape(word) + r"(?!\w)"
    for form in (rf"(?m)^[ \t]*{word}[ \t]*(\n|\Z)", rf",\s*{word}", rf"{word}\s*,\s*", word):
        text, count = re.subn(form, "", text, count=1)
        if count:
            break
    return text


def _tree(code: str) -> SgNode:
    # µ is a letter to Python, and the one by which ast-grep itself reads a metavariable; the length stays the same.
    return SgRoot(code.replace("$", "µ"), "python").root()


def _faulty(code: str) -> bool:
    # ast-grep searches happily for half a statement. A decorator alone, and $$$ in a dict, are fine all the same.
    readings = (code, code.replace("$$$", "**$$$"), code + "\ndef f(): pass" if code.startswith("@") else code)
    return all(any(_broken(node) for node in _walk(_tree(reading))) for reading in readings)


def _broken(node: SgNode) -> bool:
    return node.kind() == "ERROR" or (node.kind() != "module" and len(set(span(node))) == 1)


def _walk(node: SgNode) -> Iterator[SgNode]:
    yield node
    for child in node.children():
        yield from _walk(child)


def _hint(text: str) -> str:
    if re.match(r"(elif|else|except|finally|case)\b", text):
        return "; a clause is matched inside its whole if, try or match statement"
    return ""


def _without_trailing_commas(code: str) -> str:
    for node in reversed(list(_walk(_tree(code)))):
        children = node.children()
        if node.kind() in BRACKETS - {"tuple"} and len(children) > 2 and children[-2].kind() == ",":
            code = code[: span(children[-2])[0]] + code[span(children[-2])[1] :]
    return code


def _step(code: str) -> list[str] | str:
    variable = METAVARIABLE.fullmatch(code)
    return variable["many"] or "" if variable else list(_alternatives(code))


def _alternatives(code: str) -> Iterator[str]:
    """The pattern, then the same without the `$$$XS` that may be empty: ast-grep wants the comma before them."""
    marks = iter(range(len(code)))
    numbered = re.sub(r"\$\$\$\w*", lambda found: f"{found[0]}µ{next(marks)}µ", code)
    spots = re.findall(r"\$\$\$\w*µ\d+µ", numbered)
    listed = [spot for spot in spots if re.search(rf",\s*{re.escape(spot)}|{re.escape(spot)}\s*,", numbered)]
    for count in range(len(listed) + 1):
        for dropped in itertools.combinations(listed, count):
            shorter = numbered
            for spot in dropped:
                shorter = without(shorter, spot)
            yield re.sub(r"µ\d+µ", "", shorter)


def _find(patterns: Sequence[str], scope: SgNode) -> list[SgNode]:
    found: dict[tuple[int, int], SgNode] = {}
    for pattern in patterns:
        tree = _tree(pattern)
        found = {span(node): node for node in scope.find_all(pattern=pattern) if _exact(tree, node)} | found
    return list(found.values())


def _exact(pattern: SgNode, node: SgNode) -> bool:
    """Whether `node` ends where `pattern` does: to ast-grep, `if $X: f()` also matches an `if` with an `else`."""
    if pattern.kind() == "ERROR" or METAVARIABLE.fullmatch(pattern.text().replace("µ", "$")):
        return True
    ours, theirs = _parts(pattern), _parts(node)
    if len(ours) == 1 and pattern.kind() != node.kind():
        return _exact(ours[0], node)
    several = [bool(re.fullmatch("µµµ[A-Z0-9_]*", part.text())) for part in ours]
    if any(several):
        return all(map(_exact, ours[: several.index(True)], theirs))
    return not ours or (len(ours) == len(theirs) and all(map(_exact, ours, theirs)))


def _parts(node: SgNode) -> list[SgNode]:
    parts = [child for child in node.children() if child.kind() not in {"comment", "async", ";"}]
    if node.kind() in BRACKETS - {"tuple"} and len(parts) > 2 and parts[-2].kind() == ",":
        del parts[-2]
    return parts


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", "", text)
