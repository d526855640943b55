"""Hooks on a watched model and its optimizer: events in call order, modes, gradients, and close looks at layers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from bugbench.statistics_log import StatisticsLog
from torch import nn

if TYPE_CHECKING:
    from bugbench.recorder import Recorder


class OnlyHere:
    """A callable hung on a model or optimizer that stays behind when that is copied or saved.

    A copy gets what ``instead`` makes (as in ``__reduce__``), by default a callable that does nothing: what a copy
    does is no part of the run, and the recorder is not copied with it.
    """

    def __init__(self, call: Callable[..., Any], instead: tuple[Callable[..., Any], tuple[Any, ...]] | None = None):
        self.call, self.instead = call, instead or (OnlyHere, (OnlyHere.nothing,))

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.call(*arguments, **keywords)

    def __reduce__(self) -> Any:
        return self.instead

    @staticmethod
    def nothing(*_: Any) -> None:
        """Do nothing."""


class Watched:
    """The hooks on one model and its optimizer.

    A module with a hook is called by a slower path, so layers have theirs only while the run looks closely.
    """

    def __init__(self, run: "Recorder", model: nn.Module, optimizer: torch.optim.Optimizer | None, prefix: str) -> None:
        self.run, self.model, self.optimizer, self.prefix = run, model, optimizer, prefix
        self.output_gradient: torch.Tensor | None = None
        self.parameter_count = sum(p.numel() for p in model.parameters())
        leaves = {n: m for n, m in model.named_modules() if n and not any(m.children())}
        self.layer_kinds = {name: type(module).__name__ for name, module in leaves.items()}
        self._handles: list[Any] = []
        if run.access == {"curves"}:
            return
        self._modules = list(model.modules())
        self._statistics = run.writer.layers.setdefault(prefix, StatisticsLog())
        self._parameters: tuple[list[str], list[torch.Tensor], list[torch.Tensor]] = ([], [], [])
        self._gradients_seen = False
        self._layer_handles: list[Any] = []
        self._layer_hooks = [(leaf, OnlyHere(self._activation_hook(name))) for name, leaf in leaves.items()]
        self._handles.append(model.register_forward_hook(OnlyHere(self._after_forward)))
        self._wrap_zero_grad(model)
        if optimizer is not None:
            self._handles.append(optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(optimizer.register_step_post_hook(self._after_step))
            self._wrap_zero_grad(optimizer)
        self.look(run.closely)

    def look(self, closely: bool) -> None:
        """Hang hooks on the layers, or take them off."""
        if closely and not self._layer_handles:
            self._layer_handles = [layer.register_forward_hook(hook) for layer, hook in self._layer_hooks]
        elif not closely:
            for handle in self._layer_handles:
                handle.remove()
            self._layer_handles = []

    def complete(self) -> None:
        """Add to the trace what was seen of the layers in this training step."""
        if not self._gradients_seen:  # no optimizer step came by
            self._summarize_gradients(dict(self.model.named_parameters()))
        self._statistics.commit(self.run.step)

    def reset(self) -> None:
        if self.run.closely:
            self._statistics.discard()
            self._parameters = ([], [], [])
            self._gradients_seen = False
        self.output_gradient = None

    def remove(self) -> None:
        if not self._handles:
            return
        self.look(closely=False)
        for handle in self._handles:
            handle.remove()
        for owner in (self.model, self.optimizer):
            if owner is not None:
                vars(owner).pop("zero_grad", None)

    def _wrap_zero_grad(self, owner: Any) -> None:
        original = owner.zero_grad

        def zero_grad(*arguments: Any, **keywords: Any) -> None:
            self.run.event(self.prefix + "zero_grad")
            original(*arguments, **keywords)

        owner.zero_grad = OnlyHere(zero_grad, (getattr, (owner, "zero_grad")))

    def _after_forward(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        self.run.event(self.prefix + "forward")
        modes = {m.training for m in self._modules}
        self.run.seen_mode("mixed" if len(modes) > 1 else ("train" if modes.pop() else "eval"))
        first = _first(outputs)
        if isinstance(first, torch.Tensor) and first.grad_fn is not None:
            place = first.output_nr  # a hook on the node costs half of one on the tensor
            first.grad_fn.register_prehook(lambda gradients: self._after_backward(gradients[place]))

    def _after_backward(self, gradient: torch.Tensor | None) -> None:
        self.run.event(self.prefix + "backward")
        if self.run.keeps_batch and gradient is not None:
            self.output_gradient = gradient.detach().clone()

    def _activation_hook(self, name: str) -> Callable[..., None]:
        names = [name]

        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            first = _first(outputs)
            if torch.is_grad_enabled() and isinstance(first, torch.Tensor):
                self._statistics.put("activation", names, [first])

        return hook

    def _before_step(self, *_: Any) -> None:
        self.run.event(self.prefix + "step")
        if self.run.closely:
            named = dict(self.model.named_parameters())
            self._summarize_gradients(named)
            self._parameters = (list(named), list(named.values()), [p.detach().clone() for p in named.values()])

    def _after_step(self, *_: Any) -> None:
        names, parameters, before = self._parameters
        if not names:
            return
        weights = [p.detach() for p in parameters]
        self._statistics.put("weight", names, weights)
        self._statistics.put("update", names, torch._foreach_sub(weights, before))

    def _summarize_gradients(self, parameters: dict[str, nn.Parameter]) -> None:
        gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        self._statistics.put("gradient", list(gradients), list(gradients.values()))
        self._gradients_seen = True


def _first(outputs: Any) -> Any:
    """Return a module's output proper; recurrent layers return their state with it."""
    return outputs[0] if isinstance(outputs, (tuple, list)) and outputs else outputs
