"""What the names in a program's text stand for: assignments before them, arguments of calls, defaults, settings.

Nothing is run. Of several calls of a function all count, as do both sides of an ``a if b else c``; of assignments, the
last one before. What calls without gradients pass on is left out, since nothing is trained there.
"""

import ast
from itertools import product, takewhile

from bugbench.layer_graph import Source

WITHOUT_GRADIENTS = ("no_grad", "inference_mode")


class Values:
    """What the names of a program stand for.

    Attributes:
        source: the program.
        functions: its functions and methods.
        calls, idle: the calls in it, with and without gradients.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        nodes = list(ast.walk(source.tree))
        self.functions = [n for n in nodes if isinstance(n, ast.FunctionDef)]
        # the walk goes from the outside inwards, so that the innermost function stays
        self._around = {id(n): f for f in self.functions for n in ast.walk(f) if n is not f}
        classes = (n for n in nodes if isinstance(n, ast.ClassDef))
        self._class_of = {id(f): c for c in classes for f in c.body if isinstance(f, ast.FunctionDef)}
        calls = [n for n in nodes if isinstance(n, ast.Call)]
        idle = {id(n) for part in nodes if _without_gradients(part) for n in ast.walk(part)}
        self.calls = [call for call in calls if id(call) not in idle]
        self.idle = [call for call in calls if id(call) in idle]
        outside = [n for n in source.tree.body if not isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        self._outside = ast.Module(outside, [])

    def numbers(self, node: ast.expr, seen: frozenset[int] = frozenset()) -> list[float]:
        """Return what an expression may amount to; a name that the text gives no value is taken for a setting."""
        if isinstance(node, ast.IfExp):
            return sorted({number for part in self.behind(node) for number in self.numbers(part, seen)})
        known: dict[str, list[float | None]] = {}
        for text, name in {ast.unparse(name): name for name in _names(node)}.items():
            values = self._meant(name)
            again = id(name) in seen
            found = {x for value in values if not again for x in self.numbers(value, seen | {id(name)})}
            setting = self.source.config.get(text.rpartition(".")[2])
            if not values and isinstance(setting, (int, float)):
                found = {float(setting)}
            known[text] = [*sorted(found)] or [None]
        combined = (dict(zip(known, numbers, strict=True)) for numbers in product(*known.values()))
        results = {self.source.number(node, sizes) for sizes in combined}
        return sorted(number for number in results if number is not None)

    def origins(self, node: ast.expr, seen: set[int] | None = None) -> list[ast.expr]:
        """Return the expressions behind names and functions of the program, but for nodes ``seen`` before."""
        seen = set() if seen is None else seen
        if id(node) in seen:
            return []
        seen.add(id(node))
        behind = self.behind(node)
        return [origin for part in behind for origin in self.origins(part, seen)] if behind else [node]

    def behind(self, node: ast.expr) -> list[ast.expr]:
        """Return what a name, a choice or the call of a function of the program stands for, as far as the text says."""
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._meant(node)
        if isinstance(node, ast.IfExp):
            return [node.body, node.orelse]
        return self._returned(node) if isinstance(node, ast.Call) else []

    def _meant(self, name: ast.Name | ast.Attribute) -> list[ast.expr]:
        """Return what a name stands for: nothing if the text does not say, itself if something was added to it."""
        text, function, line = ast.unparse(name), self._around.get(id(name)), float(name.lineno)
        while function:
            values, added = assigned(text, function, line)
            given = values or (self._given(text, function) if isinstance(name, ast.Name) else [])
            owner = self._class_of.get(id(function))
            if not given and owner and text.startswith("self."):
                given, added = assigned(text, owner)
            if given or added:
                return [name] if added else given
            function, line = self._around.get(id(function)), float("inf")
        values, added = assigned(text, self._outside)
        return [name] if added else values

    def _given(self, name: str, function: ast.FunctionDef) -> list[ast.expr]:
        """Return what a function is given for a parameter, or its default where it is given nothing."""
        arguments = function.args
        places = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        defaults: dict[str, ast.expr | None] = dict(zip(reversed(places), reversed(arguments.defaults), strict=False))
        defaults |= {a.arg: value for a, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)}
        owner = self._class_of.get(id(function))
        called_as = owner.name if owner and function.name == "__init__" else function.name
        places = places[1:] if places[:1] == ["self"] else places
        found: list[ast.expr | None] = []
        for call in [call for call in self.calls if last_part(call) == called_as]:
            plain = list(takewhile(lambda a: not isinstance(a, ast.Starred), call.args))
            named = {k.arg or "**": k.value for k in call.keywords}
            unpacked = "**" in named or len(plain) < len(call.args)
            passed = dict(zip(places, plain, strict=False)) | named
            found.append(passed.get(name, None if unpacked else defaults.get(name)))
        return [value for value in (found or [defaults.get(name)]) if value is not None]

    def _returned(self, call: ast.Call) -> list[ast.expr]:
        """Return what a function of the program returns, called by its name or as a method of its own class."""
        own = isinstance(call.func, ast.Name) or ast.unparse(call.func).startswith("self.")
        meant = [f for f in self.functions if own and f.name == last_part(call)]
        returns = (n for f in meant for n in ast.walk(f) if isinstance(n, ast.Return))
        return [n.value for n in returns if n.value is not None]


def assigned(name: str, scope: ast.AST, before: float = float("inf")) -> tuple[list[ast.expr], list[ast.expr]]:
    """Return what was last assigned to a name above a line, and what was added to it since, as by ``x += y``."""
    above = [n for n in ast.walk(scope) if isinstance(n, ast.stmt) and (n.end_lineno or 0) < before]
    made = [n for n in above if isinstance(n, ast.Assign) and any(ast.unparse(t) == name for t in n.targets)]
    last = max(made, key=lambda n: n.lineno, default=None)
    added = [n for n in above if isinstance(n, ast.AugAssign) and ast.unparse(n.target) == name]
    since = last.lineno if last else 0
    return [last.value] if last else [], [n.value for n in added if n.lineno > since]


def last_part(node: ast.expr) -> str:
    """Return the last part of a name, or of what is called; empty for what has none, as ``nn.Softmax(1)(x)``."""
    named = node.func if isinstance(node, ast.Call) else node
    return getattr(named, "attr", "") or getattr(named, "id", "")


def _names(node: ast.AST) -> list[ast.Name | ast.Attribute]:
    """Return the names in an expression that is nothing but arithmetic."""
    if isinstance(node, (ast.Name, ast.Attribute)):
        return [node]
    parts = ast.iter_child_nodes(node) if isinstance(node, (ast.BinOp, ast.UnaryOp)) else ()
    return [name for part in parts for name in _names(part)]


def _without_gradients(node: ast.AST) -> bool:
    said: list[ast.expr] = []
    if isinstance(node, ast.FunctionDef):
        said = node.decorator_list
    elif isinstance(node, ast.With):
        said = [item.context_expr for item in node.items]
    return any(word in ast.unparse(part) for part in said for word in WITHOUT_GRADIENTS)
