"""What a program's text tells of a model and its layers do not: functions in place of layers, dropout rates, the loss.

For ports of rules that were written for Keras, where all of this is an argument of a layer or of ``compile``.
"""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

ACTIVATIONS = {"relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "tanh", "sigmoid"}
ACTIVATIONS |= {"hardtanh", "hardswish", "softplus", "softsign"}
MODULES = {"F", "torch", "functional", "nn.functional", "torch.nn.functional"}
OF_PROBABILITIES = {"nll_loss", "NLLLoss", "binary_cross_entropy", "BCELoss"}  # losses that apply no softmax or sigmoid
PROBABILITIES = {"softmax", "log_softmax", "sigmoid", "logsigmoid"}
PROBABILITIES |= {"Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid"}


def activated(source: str) -> set[str]:
    """Return the names of layers whose output goes into a function such as ``F.relu(self.hidden(x))``.

    "" is among them if such a function is given something else, as in ``x = F.relu(x)``: then who knows which layer's.
    Only methods called ``forward`` are read: elsewhere it may be a metric's.
    """
    found = set()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for call, name in (pair for f in functions if f.name == "forward" for pair in _calls(f)):
        owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else "F"
        if name in ACTIVATIONS and owner != "self":  # self.tanh is a layer
            method = isinstance(call.func, ast.Attribute) and owner not in MODULES
            layer = getattr(call.func, "value", None) if method else next(iter(call.args), None)
            path = ast.unparse(layer.func) if isinstance(layer, ast.Call) else ""
            found.add(path.removeprefix("self.") if path.startswith("self.") else "")
    return found


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
