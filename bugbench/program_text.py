"""What a program's text tells of a model and its layers do not: functions in place of layers, dropout rates, the loss.

For ports of rules that were written for Keras, where all of this is an argument of a layer or of ``compile``.
"""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from bugbench.keras_view import ACTIVATIONS as MODULE_ACTIVATIONS
from bugbench.keras_view import WEIGHTED
from bugbench.layer_graph import KINDS, Source
from bugbench.program_values import Values, assigned, last_part

ACTIVATIONS = {"relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "tanh", "sigmoid"}
ACTIVATIONS |= {"hardtanh", "hardswish", "softplus", "softsign"}
MODULES = {"F", "torch", "functional", "nn.functional", "torch.nn.functional"}
PASSING = ("norm", "drop", "pool", "flatten", "view", "reshape", "squeeze", "contiguous", "float")  # leave it linear
DROPOUT = ("dropout", "dropout1d", "dropout2d", "dropout3d")
AS_GIVEN = {  # PyTorch's losses, in lower case without "_", less those that apply a softmax or sigmoid of their own
    *("nllloss", "binarycrossentropy", "bceloss", "kldiv", "kldivloss", "ctcloss", "poissonnllloss", "gaussiannllloss"),
    *("mseloss", "l1loss", "smoothl1loss", "huberloss", "multimarginloss", "multilabelmarginloss"),
    *("hingeembeddingloss", "cosineembeddingloss", "marginrankingloss", "tripletmarginloss"),
    "tripletmarginwithdistanceloss",
}
KEEPING = {"log", "clamp", "clamp_min", "contiguous", "float"}  # what may stand between a softmax and the loss


def activated(source: str, kinds: Mapping[str, str] | None = None) -> dict[str, bool]:
    """Return the layers whose output ``forward`` makes an activation of, as ``F.relu(self.norm(self.conv(x)))`` does.

    Keys are paths in a class of the text, such as "conv": calls are followed inwards to the first layer with weights,
    names to what was assigned last. The value says whether all classes that call a layer of this path do so. "" is a
    key if a function is given what no layer of the class made, as in ``x = F.relu(x)``: who knows which layer's.

    Args:
        source: the program; only methods called ``forward`` are read, since elsewhere it may be a metric's.
        kinds: class names of the program's layers, by name; among them may be activations, called as ``self.act(x)``.
    """
    kinds = kinds or {}
    counts: dict[str, tuple[int, int]] = {}  # of classes that activate a path, and that call it
    for function in (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef) and n.name == "forward"):
        found, paths = set[str](), {_path(call) for call, _ in _calls(function)}
        for call, name in _calls(function):
            module = any(kinds[layer] in MODULE_ACTIVATIONS for layer in reached(_path(call), kinds))
            if module or (name in ACTIVATIONS and not _path(call)):
                seen = set[int]()
                given = {path for value in _given(call) for path in _makers(value, function, kinds, seen)}
                found |= given or set([] if module else [""])  # that a module is called, the order of the calls says
        for path in (found | paths) - {""}:
            activating, calling = counts.get(path, (0, 0))
            counts[path] = activating + (path in found), calling + 1
        counts |= {"": (1, 1)} if "" in found else {}
    return {path: activating == calling for path, (activating, calling) in counts.items() if activating}


def reached(path: str, kinds: Mapping[str, str]) -> list[str]:
    """Return the layers whose names end with a path; of containers with that path the last layer with weights."""
    exact = [name for name in kinds if path and f".{name}".endswith(f".{path}")]
    inside: dict[str, str] = {}
    for name in [name for name in kinds if path and kinds[name].startswith(WEIGHTED)]:
        before, found, after = f".{name}".partition(f".{path}.")
        inside |= {before: name} if found and after else {}
    return exact + list(inside.values())


def _path(call: ast.Call) -> str:
    """Return "a.b" of a call of ``self.a.b``; empty for another function."""
    owner, _, path = ast.unparse(call.func).partition(".")
    return path if owner == "self" and path.replace(".", "_").isidentifier() else ""


def _given(call: ast.Call) -> list[ast.expr]:
    """Return what a call works on: the value whose method it is, else its first argument."""
    method = isinstance(call.func, ast.Attribute) and not _path(call) and ast.unparse(call.func.value) not in MODULES
    return [call.func.value] if method and isinstance(call.func, ast.Attribute) else call.args[:1]


def _makers(node: ast.AST, function: ast.FunctionDef, kinds: Mapping[str, str], seen: set[int]) -> set[str]:
    """Return the paths of the layers with weights that made a value, but for nodes ``seen`` before; may be empty."""
    if id(node) in seen:
        return set()
    seen.add(id(node))
    if isinstance(node, ast.Name):
        values, added = assigned(node.id, function, node.lineno)
        return {path for value in values + added for path in _makers(value, function, kinds, seen)}
    if not isinstance(node, ast.Call):
        parts = (part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr))
        return {path for part in parts for path in _makers(part, function, kinds, seen)}
    path, name = _path(node), last_part(node).lower()
    own = [kinds[layer] for layer in reached(path, kinds)]
    if path and (not kinds or any(kind.startswith(WEIGHTED) for kind in own)):
        return {path}
    passes = own if path else any(part in name for part in PASSING)
    return {p for value in _given(node) for p in _makers(value, function, kinds, seen)} if passes else set()


def dropout_rates(source: str, config: Mapping[str, Any]) -> list[float]:
    """Return the rates of dropout in the text, as far as they are numbers, names of these, or arithmetic on them."""
    values, rates = Values(Source(source, config)), set[float]()
    for call in values.calls:
        name = last_part(call)
        if name.lower() in DROPOUT and not _path(call):  # a layer that is called was built elsewhere
            given = [k.value for k in call.keywords if k.arg == "p"] or call.args[name[0].islower() :][:1]
            rates |= {rate for value in given for rate in values.numbers(value)}
    return sorted(rates)


def loss_without_softmax(source: str, config: Mapping[str, Any]) -> str:
    """Return the name of a loss that applies no softmax and gets the output of none; empty if there is none.

    Softmax is what has it in its name, and comes last in a network or makes the argument of the loss; between them
    there may be a logarithm, a bound, a change of shape.
    """
    program = Source(source, config)
    endings = ([layer for layer in layers if layer.kind != "reshape"][-1:] for layers in program.networks())
    if any(layer.function == "softmax" for ending in endings for layer in ending):
        return ""
    values = Values(program)
    origins = {id(call): values.origins(call.func) for call in (*values.calls, *values.idle)}
    used = {id(made) for behind in origins.values() for made in behind}
    own = {function.name for function in values.functions}
    for call in values.calls:
        if id(call) in used:  # a loss that is an object: asked where it is called
            continue
        names = [last_part(origin) for origin in origins[id(call)]]
        losses = [name for name in names if name not in own and name.lower().replace("_", "") in AS_GIVEN]
        given = [k.value for k in call.keywords if k.arg == "input"] or call.args[:1]
        if losses and not any(_is_softmax(value, values, set()) for value in given):
            return losses[0]
    return ""


def _is_softmax(node: ast.expr, values: Values, seen: set[int]) -> bool:
    """Tell whether a value is the output of a softmax; of several that it may be, one is enough."""
    if id(node) in seen:
        return False
    seen.add(id(node))
    parts = values.behind(node)
    if isinstance(node, ast.Call):
        names = [last_part(node), *(last_part(origin) for origin in values.origins(node.func))]
        if any("softmax" in name.lower() for name in names if name not in values.source.classes):
            return True
        parts += _given(node) if names[0] in KEEPING or KINDS.get(names[0]) == "reshape" else []
    elif isinstance(node, ast.Subscript):
        parts.append(node.value)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts += [node.left, node.right]
    return any(_is_softmax(part, values, seen) for part in parts)


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Yield each call, and the last part of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, last_part(node)
