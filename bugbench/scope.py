"""Where in a program an edit looks: the whole of it, or functions and classes by role or by dotted name."""

import difflib
from collections.abc import Iterable, Mapping

from ast_grep_py import SgNode

Roles = Mapping[str, str | list[str]]


class UnknownScope(LookupError):
    """A program without such a role, function or class; the message names the nearest it has."""


def scopes(root: SgNode, within: str | None, roles: Roles) -> list[SgNode]:
    """The nodes that `within` means, decorators included.

    `@role` is looked up in `roles`; a name is dotted for methods and nested functions (`Trainer.step`). Where nothing
    has exactly that name, it stands for all whose dotted name ends with it (`step` for every `….step`).
    """
    if within is None:
        return [root]
    names = [within]
    if within.startswith("@"):
        if within[1:] not in roles:
            raise UnknownScope(f"the program has no role {within}{_nearest(within[1:], roles)}")
        value = roles[within[1:]]
        names = [value] if isinstance(value, str) else list(value)
    defined = _definitions(root)
    found = []
    for name in names:
        ending = [node for path, nodes in defined.items() if path.endswith(f".{name}") for node in nodes]
        nodes = defined.get(name, ending)
        if not nodes:
            asked = f" (role {within})" if name != within else ""
            raise UnknownScope(f"the program has no function or class {name}{asked}{_nearest(name, defined)}")
        found += nodes
    return found


def _definitions(root: SgNode) -> dict[str, list[SgNode]]:
    """Functions and classes of a program by dotted name."""
    found: dict[str, list[SgNode]] = {}
    kinds = ("function_definition", "class_definition")
    for node in root.find_all(any=[{"kind": kind} for kind in kinds]):
        path = [node, *(outer for outer in node.ancestors() if outer.kind() in kinds)]
        names = [name.text() for outer in reversed(path) if (name := outer.field("name"))]
        parent = node.parent()
        decorated = parent is not None and parent.kind() == "decorated_definition"
        found.setdefault(".".join(names), []).append(parent if decorated and parent else node)
    return found


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"; nearest: {', '.join(near)}" if near else f"; it has {', '.join(names) or 'none'}"
