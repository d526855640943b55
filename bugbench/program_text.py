"""What a program's text tells of a model and its layers do not: functions in place of layers, dropout rates, the loss.

For ports of rules that were written for Keras, where all of this is an argument of a layer or of ``compile``.
"""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from bugbench.keras_view import ACTIVATIONS as MODULE_ACTIVATIONS
from bugbench.keras_view import WEIGHTED

ACTIVATIONS = {"relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "tanh", "sigmoid"}
ACTIVATIONS |= {"hardtanh", "hardswish", "softplus", "softsign"}
MODULES = {"F", "torch", "functional", "nn.functional", "torch.nn.functional"}
PASSING = ("norm", "drop", "pool", "flatten", "view", "reshape", "squeeze", "contiguous", "float")  # leave it linear
OF_PROBABILITIES = {"nll_loss", "NLLLoss", "binary_cross_entropy", "BCELoss"}  # losses that apply no softmax or sigmoid
PROBABILITIES = {"softmax", "log_softmax", "sigmoid", "logsigmoid"}
PROBABILITIES |= {"Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid"}


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
        before = [n for n in ast.walk(function) if isinstance(n, ast.stmt) and (n.end_lineno or 0) < node.lineno]
        made = [n for n in before if isinstance(n, ast.Assign) and any(_is(t, node.id) for t in n.targets)]
        last = max(made, key=lambda n: n.lineno, default=None)
        since, values = (last.lineno, [last.value]) if last else (0, [])
        added = [n for n in before if isinstance(n, ast.AugAssign) and _is(n.target, node.id)]
        values += [n.value for n in added if n.lineno > since]
        return {path for value in values for path in _makers(value, function, kinds, seen)}
    if not isinstance(node, ast.Call):
        parts = (part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr))
        return {path for part in parts for path in _makers(part, function, kinds, seen)}
    path, name = _path(node), getattr(node.func, "attr", getattr(node.func, "id", "")).lower()
    own = [kinds[layer] for layer in reached(path, kinds)]
    if path and (not kinds or any(kind.startswith(WEIGHTED) for kind in own)):
        return {path}
    passes = own if path else any(part in name for part in PASSING)
    return {p for value in _given(node) for p in _makers(value, function, kinds, seen)} if passes else set()


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def dropout_rates(source: str, config: Mapping[str, Any]) -> list[float]:
    """Return the rates that are numbers in the text, or names of settings such as ``config.dropout``."""
    rates = []
    for call, name in _calls(ast.parse(source)):
        if name.lower().startswith(("dropout", "alphadropout", "featurealphadropout")):
            given = [k.value for k in call.keywords if k.arg == "p"] or call.args[name[0].islower() :][:1]
            for value in given:
                number = (
                    value.value if isinstance(value, ast.Constant) else config.get(ast.unparse(value).split(".")[-1])
                )
                rates += [float(number)] if isinstance(number, (int, float)) else []
    return rates


def takes_raw_scores_for_probabilities(source: str) -> bool:
    """Tell whether a loss of probabilities is called, and nothing in the program makes any."""
    names = {name for _, name in _calls(ast.parse(source))}
    return bool(names & OF_PROBABILITIES) and not names & PROBABILITIES


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Yield each call, and the last part of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, getattr(node.func, "attr", getattr(node.func, "id", ""))
