"""The layers of a PyTorch program, in the order in which ``forward`` calls them, read off its source.

Nothing is run. Classes derived from a module, what ``__init__`` assigns to ``self``, ``nn.Sequential``, functions such
as ``F.relu`` and methods such as ``x.view`` are understood; of a branch, both sides count. Sizes are known where they
are numbers, settings of the program, or arithmetic on these.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bugbench.plugins import parse

Sizes = Mapping[str, float | None]

NONLINEAR = {
    **dict.fromkeys(("relu", "relu_", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu"), "relu"),
    **dict.fromkeys(("silu", "mish", "hardswish", "softplus", "leakyrelu"), "relu"),
    "glu": "glu",  # halves the width
    **dict.fromkeys(("sigmoid", "hardsigmoid", "logsigmoid"), "sigmoid"),
    **dict.fromkeys(("tanh", "hardtanh", "softsign"), "tanh"),
    **dict.fromkeys(("softmax", "log_softmax", "logsoftmax", "softmin"), "softmax"),
}
DIMENSIONS = ("1d", "2d", "3d")
KINDS = {
    "linear": "dense",
    **{f"conv{d}": "conv" for d in DIMENSIONS},
    **{f"{a}max{_}pool{d}": "maxpool" for d in DIMENSIONS for a in ("", "adaptive", "adaptive_") for _ in ("", "_")},
    **{f"{a}avg{_}pool{d}": "avgpool" for d in DIMENSIONS for a in ("", "adaptive", "adaptive_") for _ in ("", "_")},
    **{f"batchnorm{d}": "batchnorm" for d in DIMENSIONS},
    **{f"{a}dropout{d}": "dropout" for d in ("", *DIMENSIONS) for a in ("", "alpha", "alpha_", "feature_alpha_")},
    **dict.fromkeys(
        ("embedding", "gru", "lstm", "rnn", "multiheadattention", "scaled_dot_product_attention"), "sequence"
    ),
    **dict.fromkeys(("transformerencoder", "transformerencoderlayer", "transformer"), "sequence"),
    **dict.fromkeys(("flatten", "view", "reshape", "unflatten", "squeeze", "unsqueeze", "permute"), "reshape"),
    **dict.fromkeys(("transpose", "cat", "concat", "stack", "interpolate", "upsample"), "reshape"),
    **dict.fromkeys(("mean", "amax"), "avgpool"),  # over positions: global pooling
    **dict.fromkeys(NONLINEAR, "activation"),
}
POSITIONS: dict[str, tuple[str, ...]] = {
    "dense": ("in_features", "out_features", "bias"),
    "conv": ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias"),
}


@dataclass(frozen=True)
class Layer:
    """A layer as it is called.

    Attributes:
        kind: dense, conv, maxpool, avgpool, batchnorm, dropout, reshape, activation, sequence, or other.
        function: its name in lower case, e.g. "conv2d"; of an activation the group, e.g. "relu" or "softmax".
        line: where it is built, or called if it is a function.
        name: what it is assigned to, e.g. "features.0"; empty for a function.
        outputs: its width or filters, if that is known.
        kernel: of a convolution, the size of the window along each axis, as far as it is known.
        bias: whether it adds one.
    """

    kind: str
    function: str
    line: int
    name: str = ""
    outputs: float | None = None
    kernel: tuple[float | None, ...] = ()
    bias: bool = False


def called(node: ast.AST) -> str:
    """Return the last part of a called function's name in lower case; empty if this is no call of a name."""
    function = node.func if isinstance(node, ast.Call) else node
    return (getattr(function, "attr", "") or getattr(function, "id", "")).lower()


class Source:
    """A program's tree with its classes and functions; ``config`` are its settings."""

    def __init__(self, text: str, config: Mapping[str, Any]) -> None:
        self.tree, self.config = parse(text), config
        self.functions = {n.name: n for n in self.tree.body if isinstance(n, ast.FunctionDef)}
        modules = (n for n in self.tree.body if isinstance(n, ast.ClassDef) and n.bases)
        self.classes = {n.name: n for n in modules if any("Module" in ast.unparse(b) for b in n.bases)}

    def networks(self) -> list[list[Layer]]:
        """Return the layers of each network: of each module class that no other one uses, and of each Sequential."""
        inside = {called(n) for c in self.classes.values() for n in ast.walk(c) if isinstance(n, ast.Call)}
        tops = [c for name, c in self.classes.items() if name.lower() not in inside]
        found = [self._of_class(c, self._arguments(c)) for c in tops]
        for function in self.functions.values():
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and called(node) == "sequential":
                    found.append(self._built(node, {}, ""))
                    break
        return [layers for layers in found if any(x.kind in ("dense", "conv", "sequence") for x in layers)]

    def number(self, node: ast.AST | None, sizes: Sizes) -> float | None:
        """Return what an expression amounts to, if that can be told; of a tuple, its first entry."""
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return float(node.value)
        if isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) in sizes:
            return sizes[ast.unparse(node)]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "config":
            value = self.config.get(node.attr)
            return float(value) if isinstance(value, (int, float)) else None
        if isinstance(node, (ast.Tuple, ast.List)) and node.elts:
            return self.number(node.elts[0], sizes)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self.number(node.operand, sizes)
            return None if value is None else -value
        if isinstance(node, ast.BinOp):
            left, right = self.number(node.left, sizes), self.number(node.right, sizes)
            if left is None or right is None:
                return None
            if isinstance(node.op, ast.Div):
                return left / right if right else None
            if isinstance(node.op, ast.FloorDiv):
                return left // right if right else None
            results = {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right}
            return results.get(type(node.op))  # type: ignore[call-overload]
        return None

    def _arguments(self, owner: ast.ClassDef) -> dict[str, float | None]:
        """Return the sizes with which the program builds a class, from the first call that does."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and called(node) == owner.name.lower():
                return self._bound(owner, node, {})
        return {}

    def _bound(self, owner: ast.ClassDef, call: ast.Call, sizes: Sizes) -> dict[str, float | None]:
        init = _method(owner, "__init__")
        names = [a.arg for a in init.args.args[1:]] if init else []
        given = dict(zip(names, call.args, strict=False)) | {k.arg: k.value for k in call.keywords if k.arg}
        return {name: self.number(value, sizes) for name, value in given.items()}

    def _of_class(self, owner: ast.ClassDef, sizes: Sizes, prefix: str = "", depth: int = 0) -> list[Layer]:
        init, forward = _method(owner, "__init__"), _method(owner, "forward")
        if depth > 8 or forward is None:
            return []
        parts: dict[str, list[Layer]] = {}
        for node in ast.walk(init) if init else ():
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                name = node.targets[0].attr
                parts[name] = self._built(node.value, sizes, prefix + name, depth)
        return [layer for statement in forward.body for layer in self._calls(statement, parts)]

    def _calls(self, node: ast.AST, parts: Mapping[str, list[Layer]]) -> list[Layer]:
        """Return the layers that a part of ``forward`` calls; of a call, those in its arguments come first."""
        layers: list[Layer] = []
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Attribute):
            layers += parts.get(node.iter.attr, [])
        for child in ast.iter_child_nodes(node):
            layers += self._calls(child, parts)
        if isinstance(node, ast.Call):
            own, _, name = ast.unparse(node.func).partition("self.")
            if not own and name in parts:
                layers += parts[name]
            elif called(node) in KINDS:
                layers.append(replace(self.layer(node, {}), bias=False, outputs=None, kernel=()))
        return layers

    def _built(self, node: ast.AST, sizes: Sizes, name: str, depth: int = 0) -> list[Layer]:
        """Return the layers that an expression builds."""
        if isinstance(node, (ast.List, ast.Tuple)):
            built = [self._built(part, sizes, f"{name}.{i}", depth) for i, part in enumerate(node.elts)]
            return [layer for part in built for layer in part]
        if isinstance(node, (ast.ListComp, ast.GeneratorExp)):
            return self._built(node.elt, sizes, f"{name}.0", depth)
        if isinstance(node, ast.Starred):
            return self._built(node.value, sizes, name, depth)
        if isinstance(node, ast.IfExp):
            return self._built(node.body, sizes, name, depth)
        if not isinstance(node, ast.Call) or called(node) == "identity":
            return []
        own = next((c for n, c in self.classes.items() if n.lower() == called(node)), None)
        if own is not None:
            return self._of_class(own, self._bound(own, node, sizes), f"{name}.", depth + 1)
        if called(node) not in ("sequential", "modulelist"):
            return [self.layer(node, sizes, name)]
        listed = (ast.List, ast.ListComp, ast.Starred)
        names = [name if isinstance(part, listed) else f"{name}.{i}" for i, part in enumerate(node.args)]
        built = [self._built(part, sizes, own.lstrip("."), depth) for part, own in zip(node.args, names, strict=True)]
        return [layer for part in built for layer in part]

    def layer(self, node: ast.Call, sizes: Sizes, name: str = "") -> Layer:
        """Return the layer that a call builds, or that it is if it is a function's."""
        function = called(node)
        kind = KINDS.get(function, "other")
        positions = POSITIONS.get(kind, ())
        given = dict(zip(positions, node.args, strict=False)) | {k.arg: k.value for k in node.keywords if k.arg}
        outputs = self.number(given.get(positions[1]), sizes) if positions else None
        kernel = self._kernel(given.get("kernel_size"), int(function[-2]), sizes) if kind == "conv" else ()
        asked = given.get("bias")
        bias = bool(positions) and not (isinstance(asked, ast.Constant) and not asked.value)
        return Layer(kind, NONLINEAR.get(function, function), node.lineno, name, outputs, kernel, bias)

    def _kernel(self, node: ast.AST | None, axes: int, sizes: Sizes) -> tuple[float | None, ...]:
        """Return the size of a window along each axis; one number stands for all of them."""
        parts: Sequence[ast.AST | None] = node.elts if isinstance(node, (ast.Tuple, ast.List)) else [node] * axes
        return tuple(self.number(part, sizes) for part in parts)


def _method(owner: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((n for n in owner.body if isinstance(n, ast.FunctionDef) and n.name == name), None)
