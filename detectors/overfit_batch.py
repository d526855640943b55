"""Can the model learn two examples by heart? If not, is it the loop, the optimizer, or the model?"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Suspect, Trace
from bugbench.one_batch import Losses, Until, one_batch


@dataclass
class OverfitBatch(Detector):
    """Can the model learn two examples by heart? If not, is it the loop, the optimizer, or the model?

    Karpathy's recipe: "overfit a single batch of only a few examples (e.g. as little as two)" and reach "the lowest
    achievable loss (e.g. zero)"; CS231n: a tiny subset, without regularization, to a cost of zero. The program runs
    again up to its first training batch; two samples with different targets are taken from it, and copies of the
    untrained model are trained on them alone, without dropout, weight decay and ``augment``. The lowest achievable
    loss is what ``loss_function`` gives for outputs that may be anything, so that smoothed labels are no alarm. All
    but a twentieth of the way from the first loss to it must be done (TheDeepChecker tolerates 5 % of errors on its
    single batch) within 200 steps (its default). If the program's own ``train_epoch`` gets there, all is well; if not,
    one part after the other is replaced, and the part whose replacement helps is to blame:

    * a plain loop in place of the program's: the family ``training_loop``, before it a fault if the loss stood still
      (no step arrives), did not fall at all (gradients add up), or crept down without a rise (they are cut short);
    * Adam in place of the program's optimizer, with its default rate and with ten times of it: ``optimizer``, before
      it the parameters or the rate, likewise;
    * nothing helps: it is the model, the loss or the inputs. An end at ln(e + C - 1) - 1, as low as a softmax lets the
      cross-entropy of the next one come, is a ``redundant_softmax``.

    A model that needs more than 200 steps for two samples is a false alarm. Blind to what two samples cannot show:
    wrong labels, too little capacity, a softmax over the batch, all of evaluation.
    """

    access = {"rerun"}
    steps: int = 200  # TheDeepChecker, run_full_checks: overfit_iters
    tolerance: float = 0.05  # TheDeepChecker: mislabeled_rate_max_thresh

    def diagnose(self, trace: Trace) -> Diagnosis:
        run = one_batch(trace)
        few = run.few(2)
        model, optimizer = run.fresh()
        with torch.no_grad():
            start = float(run.loss_function(model(few[0]), few[1]))
        lowest = run.lowest_loss(few, self.steps)
        until = Until(lowest + self.tolerance * (start - lowest), self.steps)
        if not start > until.goal:
            return HEALTHY  # as low as it can be before training: there is nothing to learn
        own = run.own_loop(few, until)
        if until.reached(own):
            return HEALTHY
        plain = run.fit(model, optimizer, few, until) if optimizer is not None else []
        if until.reached(plain):
            if run.problem:
                raise NotApplicable(f"a plain loop learns two examples; the program's own cannot: {run.problem}")
            return _blame("loop", own, start, plain) if own else HEALTHY
        adam: Losses = []
        for rate in (1e-3, 1e-2):  # Adam's default, and more for a small model
            model, _ = run.fresh()
            weights = [p for p in model.parameters() if p.requires_grad]
            if weights and not until.reached(adam):
                adam = run.fit(model, torch.optim.Adam(weights, lr=rate), few, until)
        if until.reached(adam):
            return _blame("optimizer", plain, start, adam) if plain else HEALTHY
        best = min((x for x in [*own, *plain, *adam] if math.isfinite(x)), default=start)
        seen = f"two examples cannot be learnt: from {start:.3g} the loss comes to {best:.3g}, not to {until.goal:.2g}"
        classes = trace.meta.get("classes") or 0
        if classes > 1 and abs(best - (math.log(math.e + classes - 1) - 1)) < self.tolerance:
            return _ranked("redundant_softmax", seen + ", but to what a softmax before the loss allows")
        return _ranked("model loss preprocessing", seen + ", with Adam and a plain loop neither")


def _blame(part: str, losses: Losses, start: float, instead: Losses) -> Diagnosis:
    """Name the part, and the ways in which it may be wrong, the likelier first by what the loss did."""
    last = losses[-1]
    seen = f"two examples are learnt in {len(instead) - 1} steps with another {part}, but with the program's own "
    if max(losses) - min(losses) < 1e-6 * abs(start):
        faults = {"loop": "zero_grad_after_backward missing_step", "optimizer": "optimizer_wrong_params"}
        return _ranked(f"{faults[part]} {FAMILY[part]}", f"{seen}the loss stays at {last:.3g}")
    if not last < start:
        faults = {"loop": "missing_zero_grad", "optimizer": "lr_too_high"}
        return _ranked(f"{faults[part]} {FAMILY[part]}", f"{seen}it goes from {start:.3g} to {last:.3g}")
    if max((b - a for a, b in pairwise(losses)), default=0) < 0:
        faults = {"loop": "clip_too_small", "optimizer": "lr_too_low"}
        return _ranked(f"{faults[part]} {FAMILY[part]}", f"{seen}it only creeps, from {start:.3g} to {last:.3g}")
    return _ranked(FAMILY[part], f"{seen}it goes from {start:.3g} to {last:.3g}, at best {min(losses):.3g}")


FAMILY = {"loop": "training_loop", "optimizer": "optimizer"}


def _ranked(faults: str, evidence: str) -> Diagnosis:
    return Diagnosis(Suspect(fault, 0.6 / (i + 1), evidence) for i, fault in enumerate(faults.split()))
