"""Hooks on a watched model and its optimizer: events in call order, modes, gradients, and close looks at layers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from bugbench.tensor_summary import global_norm, summarize
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
    """The hooks on one model and its optimizer."""

    def __init__(self, run: "Recorder", model: nn.Module, optimizer: torch.optim.Optimizer | None, prefix: str) -> None:
        self.run, self.model, self.optimizer, self.prefix = run, model, optimizer, prefix
        self.output_gradient: torch.Tensor | None = None
        self.parameter_count = sum(p.numel() for p in model.parameters())
        self.layer_kinds = {n: type(m).__name__ for n, m in model.named_modules() if n and not any(m.children())}
        self._modules = list(model.modules())
        self._summaries: dict[tuple[str, str], torch.Tensor] = {}
        self._norms: dict[str, torch.Tensor] = {}
        self._before: dict[str, torch.Tensor] = {}
        self._handles: list[Any] = [model.register_forward_hook(OnlyHere(self._after_forward))]
        for name, module in model.named_modules():
            if name in self.layer_kinds:
                self._handles.append(module.register_forward_hook(OnlyHere(self._activation_hook(name))))
        self._wrap_zero_grad(model)
        if optimizer is not None:
            self._handles.append(optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(optimizer.register_step_post_hook(self._after_step))
            self._wrap_zero_grad(optimizer)

    def complete(self, row: dict[str, Any]) -> None:
        """Add this model's norms to the row, and its layers to the trace."""
        if "grad_norm" not in self._norms:  # no optimizer step came by
            self._summarize_gradients()
        for name, value in self._norms.items():
            row[self.prefix + name] = value
        for (layer, kind), summary in self._summaries.items():
            self.run.writer.add_layer(self.run.step, self.prefix + layer, kind, summary)

    def reset(self) -> None:
        self._summaries.clear()
        self._norms.clear()
        self._before.clear()
        self.output_gradient = None

    def remove(self) -> None:
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
        if isinstance(first, torch.Tensor) and first.requires_grad:
            first.register_hook(self._after_backward)

    def _after_backward(self, gradient: torch.Tensor) -> None:
        self.run.event(self.prefix + "backward")
        if self.run.keeps_batch:
            self.output_gradient = gradient.detach().clone()

    def _activation_hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            first = _first(outputs)
            if self.run.looks_closely and torch.is_grad_enabled() and isinstance(first, torch.Tensor):
                self._summaries[name, "activation"] = summarize(first)

        return hook

    def _before_step(self, *_: Any) -> None:
        self.run.event(self.prefix + "step")
        if self.run.looks_closely:
            self._summarize_gradients()
            self._before = {n: p.detach().clone() for n, p in self.model.named_parameters()}

    def _after_step(self, *_: Any) -> None:
        if not self._before:
            return
        weights = {n: p.detach() for n, p in self.model.named_parameters()}
        names = [n for n in weights if n in self._before]
        updates = torch._foreach_sub([weights[n] for n in names], [self._before[n] for n in names])
        self._norms["weight_norm"] = global_norm([weights[n] for n in names])
        self._norms["update_norm"] = global_norm(list(updates))
        for name, update in zip(names, updates, strict=True):
            self._summaries[name, "weight"] = summarize(weights[name])
            self._summaries[name, "update"] = summarize(update)

    def _summarize_gradients(self) -> None:
        gradients = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
        self._norms["grad_norm"] = global_norm(list(gradients.values()))
        for name, gradient in gradients.items():
            self._summaries[name, "gradient"] = summarize(gradient)


def _first(outputs: Any) -> Any:
    """Return a module's output proper; recurrent layers return their state with it."""
    return outputs[0] if isinstance(outputs, (tuple, list)) and outputs else outputs
