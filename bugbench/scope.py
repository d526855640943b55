"""Where in a program an edit looks: the whole of it, or functions and classes by role or by dotted name."""

from collections.abc import Mapping, Sequence

from ast_grep_py import SgNode
from bugbench.names import unknown

Roles = Mapping[str, str | Sequence[str]]


class UnknownScope(Exception):
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
            raise UnknownScope(unknown("role", within[1:], roles))
        value = roles[within[1:]]
        names = [value] if isinstance(value, str) else list(value)
    defined = _definitions(root)
    found = []
    for name in names:
        ending = [node for path, nodes in defined.items() if path.endswith(f".{name}") for node in nodes]
        nodes = defined.get(name, ending)
        if not nodes:
            raise UnknownScope(unknown("function or class", name, defined, within if name != within else ""))
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
