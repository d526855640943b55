"""NeuraLint's rules, asked of the layers, the loss and the loops of a program; ``neuralint`` has their table.

Each function is one rule or a few of the same kind; the codes are those of ``grooveParser.py``, and what a rule asks is
what its graph in ``DNN-metamodel.gps`` matches, also where its text says less or more. The graph's paths of ``next``
are the layers in the order of their calls, as in the Python library of NeuraLint; a rule on two layers names the one at
which the graph sets its flag.
"""

import ast
from collections.abc import Iterator, Mapping

from bugbench.layer_graph import DIMENSIONS, NONLINEAR, Layer, Source, called
from bugbench.rule_table import Finding

LEARNING = ("dense", "conv")
BETWEEN = {"activation", "dropout", "batchnorm"}  # of which f025 wants one between convolution and pooling
OVER_POSITIONS = ("mean", "amax")  # average pooling that flattens as well
PERMUTED = ("permute", "transpose")
# What does as Keras's Permute, Concatenate and UpSampling, which the parsers leave out of the graph.
LEFT_OUT = (*PERMUTED, "cat", "concat", "stack", "interpolate", "upsample")
# What a loss takes: outputs before or after the last activation, and which one that is.
LOSSES = {
    **dict.fromkeys(("cross_entropy", "crossentropyloss"), ("before", "softmax")),
    **dict.fromkeys(("binary_cross_entropy_with_logits", "bcewithlogitsloss"), ("before", "sigmoid")),
    **dict.fromkeys(("nll_loss", "nllloss"), ("after", "softmax")),
    **dict.fromkeys(("binary_cross_entropy", "bceloss"), ("after", "sigmoid")),
    **dict.fromkeys(("mse_loss", "mseloss", "l1_loss", "l1loss", "huber_loss", "huberloss"), ("before", "")),
    **dict.fromkeys(("smooth_l1_loss", "smoothl1loss"), ("before", "")),
}
CONSTANT = ("constant_", "zeros_", "ones_", "fill_", "zero_")
RANDOM = ("normal_", "uniform_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "orthogonal_")
INITIALIZERS = (*CONSTANT[:3], *RANDOM, "kaiming_uniform_", "kaiming_normal_", "reset_parameters")


def network_rules(layers: list[Layer], deep: int) -> Iterator[Finding]:
    """Ask one network of dense and convolutional layers; ``deep``: so many layers that convolve or pool."""
    nodes = _nodes(layers)
    for i, layer in enumerate(nodes):
        three = [x.kind for x in nodes[i + 1 : i + 4]]
        hidden = layer.kind in LEARNING and any(x.kind in LEARNING for x in nodes[i + 1 :])
        if hidden and "activation" not in three:
            yield _found("f009 missing activation", f"no activation follows {layer.function}", layer)
        if layer.bias and "batchnorm" in three:
            yield _found("f005 useless bias", f"{layer.function} has a bias and batch norm after it", layer)
        if layer.kind == "dropout":
            for code, kind in (
                ("f006 dropout before batch norm", "batchnorm"),
                ("f018 dropout before pooling", "maxpool"),
            ):
                if three[:1] == [kind] or three[:2] == ["activation", kind]:
                    yield _found(code, f"{kind} comes after {layer.function}", layer)
    yield from _double_activation(nodes)
    yield from _missing_flatten(layers)
    yield from _sizes([x for x in nodes if x.kind == "dense"], "outputs", 1, "f019 widening dense layers")
    yield from _sizes([x for x in nodes if x.kind == "conv"], "outputs", -1, "f023 fewer filters")
    for axes in DIMENSIONS:  # the window of a conv1d and that of a conv2d are not compared
        yield from _sizes([x for x in nodes if x.function == f"conv{axes}"], "kernel", -1, "f016 smaller window")
    yield from _pooling(nodes, deep)


def _nodes(layers: list[Layer]) -> list[Layer]:
    """Return the layers that are nodes of the graph: Flatten and Reshape are, norms but for batch norm are not.

    ``view``, ``squeeze`` and ``unsqueeze`` do what these two do.
    """
    return [x for x in layers if x.kind != "other" and x.function not in LEFT_OUT]


def _double_activation(nodes: list[Layer]) -> Iterator[Finding]:
    """f003: after a layer that learns two activations, and none that learns before them."""
    learner: Layer | None = None
    active: list[str] = []
    for layer in nodes:
        if layer.kind in LEARNING:
            learner, active = layer, []
        elif layer.kind == "activation" and learner is not None:
            active.append(layer.function)
            if len(active) == 2:
                yield _found("f003 double activation", f"{active[1]} after {active[0]}", learner)


def _missing_flatten(layers: list[Layer]) -> Iterator[Finding]:
    """f011: a dense layer among the three after one that convolves or pools, and nothing that flattens between them.

    Axes in another order count as that, though the graph leaves them out: PyTorch's dense layer takes the last axis,
    and who has put the channels there forgot nothing.
    """
    for i, layer in enumerate(layers):
        if layer.kind not in ("conv", "maxpool", "avgpool") or layer.function in OVER_POSITIONS:
            continue
        dense = next((j for j in range(i + 1, len(layers)) if layers[j].kind == "dense"), None)
        between = layers[i + 1 : dense]
        nodes = _nodes(between)
        flat = any(x.kind == "reshape" for x in nodes) or any(x.function in OVER_POSITIONS + PERMUTED for x in between)
        if dense is not None and not flat and len(nodes) < 3:
            yield _found("f011 missing flatten", f"dense follows {layer.function}", layer)


def _sizes(layers: list[Layer], size: str, sign: int, code: str) -> Iterator[Finding]:
    """f016, f019, f023: of a layer and one after it, the latter has a larger (sign 1) or smaller (-1) size.

    Windows have a size along each axis: one of them is enough.
    """
    for i, first in enumerate(layers):
        for later in layers[i + 1 :]:
            a, b = getattr(first, size), getattr(later, size)
            pairs = list(zip(a, b, strict=False)) if isinstance(a, tuple) else [(a, b)]
            for one, other in pairs:
                if None not in (one, other) and sign * (other - one) > 0:
                    yield _found(code, f"{size} of {one:g}, later {other:g}", first)


def _pooling(nodes: list[Layer], deep: int) -> Iterator[Finding]:
    """f002, f025, f027: convolutions that no pooling follows; in deep networks, no max-pooling, or it follows each."""
    is_deep = sum(x.kind in ("conv", "maxpool", "avgpool") for x in nodes) >= deep
    lacking: list[Layer] = []
    ineffective: list[Layer] = []
    for i, layer in enumerate(nodes):
        if layer.kind != "conv":
            continue
        rest = [x.kind for x in nodes[i + 1 :]]
        if "maxpool" not in rest:
            (ineffective if "avgpool" in rest else lacking).append(layer)
        block = rest[: rest.index("conv")] if "conv" in rest else rest
        # A last pooling is no matter, nor one before a dense or flatten layer; a reshape may be either.
        pools = [j for j, kind in enumerate(block) if kind == "maxpool" and BETWEEN & set(block[:j])]
        inside = any(rest[j + 1 : j + 2] not in ([], ["dense"], ["reshape"]) for j in pools)
        if is_deep and inside and all(x.kind != "conv" for x in nodes[max(i - 2, 0) : i]):
            yield _found("f025 too much pooling", "one convolution between two poolings", layer)
    for layer in lacking:
        yield _found("f002 lack of pooling", "no pooling after this convolution", layer)
    for layer in ineffective if is_deep and not lacking else ():  # the graph of f027 wants f002 not to have fired
        yield _found("f027 ineffective pooling", "no max-pooling after this convolution", layer)


def loss_rules(source: Source, layers: list[Layer]) -> Iterator[Finding]:
    """f008, f012, f015, f017, f020: whether the loss takes what the network and the loss function give it.

    PyTorch's losses of probabilities want labels as wide as the outputs, but for classes: widths stand for both.
    """
    made = _made_losses(source.tree)
    for function in (n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef)):
        for call in (n for n in ast.walk(function) if isinstance(n, ast.Call) and n.args):
            name = _loss_called(call, made)
            if name not in LOSSES:
                continue
            moment, wanted = LOSSES[name]
            applied = _activations_in(call.args[0], function)
            ending = [x for x in layers if x.kind != "reshape"][-1:]
            applied = [x.function for x in ending if x.kind == "activation"] + applied
            width = next((x.outputs for x in reversed(layers) if x.kind in LEARNING), None)
            last, line = (applied or [""])[-1], call.lineno
            text = f"{name} of {last or 'raw outputs'}"
            if moment == "before" and last:
                kind = "softmax" if last == wanted == "softmax" else "activation"
                yield Finding(f"f015 {kind} before the loss", text, line=line)
            if moment == "before" and wanted == "sigmoid" and width not in (None, 1):
                yield Finding("f015 width of the loss", f"{text} of width {width:g}", line=line)
            if moment == "before" and wanted == "softmax" and width == 1:
                yield Finding("f015 width of the loss", f"{text} of width 1", line=line)
            if moment == "after" and last != wanted == "softmax" and width != 1:
                yield Finding("f008 missing softmax", text, line=line)
            if moment == "after" and last != wanted == "sigmoid" and width in (None, 1):
                yield Finding("f012 missing sigmoid", text, line=line)
            if moment == "after" and last and last != wanted:
                yield Finding("f020 wrong activation for the loss", text, line=line)
            elif moment == "after" and last and width is not None and (width == 1) == (wanted == "softmax"):
                yield Finding("f020 width of the loss", f"{text} of width {width:g}", line=line)
            if last == "softmax" and width == 1:
                yield Finding("f017 softmax of one output", text, line=line)


def _made_losses(tree: ast.AST) -> dict[str, str]:
    """Return which loss is meant by a name, as of ``self.criterion = nn.NLLLoss()``; none if it is several."""
    made: dict[str, set[str]] = {}
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.Assign)):
        for target in node.targets:
            made.setdefault(ast.unparse(target), set()).add(called(node.value) if _builds(node.value) else "")
    return {name: losses.pop() for name, losses in made.items() if len(losses) == 1}


def _builds(node: ast.AST) -> bool:
    """Tell whether an expression makes an object, as ``nn.NLLLoss()`` does, by its capital letter."""
    function = node.func if isinstance(node, ast.Call) else node
    named = isinstance(node, ast.Call) and isinstance(function, (ast.Name, ast.Attribute))
    return named and ast.unparse(function).rpartition(".")[2][:1].isupper()


def _loss_called(call: ast.Call, made: Mapping[str, str]) -> str:
    """Return the name of what is called with outputs: a function, or what a name or ``nn.NLLLoss()`` stands for."""
    if _builds(call):
        return ""  # its arguments are weights and the like
    return called(call.func) if _builds(call.func) else made.get(ast.unparse(call.func)) or called(call)


def _activations_in(node: ast.AST, function: ast.FunctionDef) -> list[str]:
    """Return the activations that an expression applies, looking up its names in the assignments before it."""
    found = [NONLINEAR[called(n)] for n in ast.walk(node) if isinstance(n, ast.Call) and called(n) in NONLINEAR]
    if found:
        return found[:1]  # the outermost
    for name in [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]:
        for n in ast.walk(function):
            own = isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name) and n.targets[0].id == name
            if own and n.lineno < node.lineno:  # type: ignore[attr-defined]
                made = n.value  # type: ignore[attr-defined]
                found = [
                    NONLINEAR[called(c)] for c in ast.walk(made) if isinstance(c, ast.Call) and called(c) in NONLINEAR
                ]
                if found:
                    return found[:1]
    return []


def program_rules(source: Source, layers: list[Layer]) -> Iterator[Finding]:
    """f004, f007, f022, f024: initializers and the main loop."""
    norms = {x.name.rpartition(".")[2] for x in layers if x.kind not in LEARNING}
    for call in (n for n in ast.walk(source.tree) if isinstance(n, ast.Call) and called(n) in (*CONSTANT, *RANDOM)):
        by_function = "init." in ast.unparse(call.func)
        target = ast.unparse(call.args[0] if by_function and call.args else call.func).removesuffix(f".{called(call)}")
        owner, _, part = target.removesuffix(".data").rpartition(".")
        value = source.number(call.args[-1], {}) if call.args and called(call) in ("constant_", "fill_") else None
        if part == "bias" and called(call) not in ("zeros_", "zero_") and value != 0:
            yield Finding("f024 bias not zero", f"{target} by {called(call)}", line=call.lineno)
        learnt = part == "weight" and owner.rpartition(".")[2] not in norms
        if called(call) in CONSTANT and (learnt or (by_function and part not in ("bias", "weight"))):
            yield Finding("f004 constant initialization", f"{target} by {called(call)}", line=call.lineno)
    loops = [(n, _reached(n, source)) for n in ast.walk(source.tree) if isinstance(n, (ast.For, ast.While))]
    main = [(loop, calls) for loop, calls in loops if _trains(calls)]
    if not main:
        yield Finding("f022 no main loop", "no loop that calls backward and the optimizer's step")
    networks = {name.lower() for name in source.classes}
    for loop, calls in main:
        if any(called(c) in networks for c in calls):
            continue  # it builds its model anew, as a job that goes on from a checkpoint does, and may initialize it
        again = [c for c in calls if _initializes(c)]
        for call in again[:1]:
            yield Finding(
                "f007 initialized again", f"{called(call)} in the loop of line {loop.lineno}", line=call.lineno
            )


def _initializes(call: ast.Call) -> bool:
    """Tell whether a call draws parameters anew; ``normal_`` of another tensor is noise."""
    if called(call) == "apply":
        return "init" in ast.unparse(call)
    owner = ast.unparse(call.func.value).removesuffix(".data") if isinstance(call.func, ast.Attribute) else "init"
    ours = called(call) == "reset_parameters" or owner.endswith(("init", ".weight", ".bias"))
    return ours and called(call) in INITIALIZERS


def _reached(node: ast.AST, source: Source, seen: tuple[str, ...] = ()) -> list[ast.Call]:
    """Return the calls below a node and in the program's functions that these call."""
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
    for call in list(calls):
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if name in source.functions and name not in seen:
            calls += _reached(source.functions[name], source, (*seen, name))
    return calls


def _trains(calls: list[ast.Call]) -> bool:
    steps = [c for c in calls if called(c) == "step" and "sched" not in ast.unparse(c.func).lower()]
    return bool(steps) and any(called(c) == "backward" for c in calls)


def _found(rule: str, text: str, layer: Layer) -> Finding:
    return Finding(rule, text, layer.name or None, layer.line)
