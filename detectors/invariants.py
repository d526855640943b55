"""Which relations that hold in every healthy run of other programs does this run violate?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bugbench.detector import Detector, Diagnosis, Label, NotApplicable, Suspect, Trace
from bugbench.relations import relations, traits

FAULTS = {  # what a violated relation points to, the most telling relation first; a family where it is a symptom only
    "a batch with step has zero_grad": "missing_zero_grad",
    "a batch with backward has zero_grad": "missing_zero_grad",
    "no zero_grad between backward and step": "zero_grad_after_backward",
    "zero_grad comes before backward": "zero_grad_after_backward",
    "backward comes before step": "step_before_backward",
    "a batch with backward has step": "missing_step",
    "a batch with forward has step": "missing_step",
    "a batch with step has backward": "training_loop",
    "a batch with forward has backward": "training_loop",
    "no step in evaluation": "training_loop",
    "no backward in evaluation": "training_loop",
    "training is in mode train": "eval_mode_in_training batchnorm_in_eval",
    "evaluation is in mode eval": "train_mode_in_eval",
    "inputs are finite": "nan_inputs inf_inputs",
    "no sample is both trained and evaluated on": "train_in_validation validation_is_train duplicates_across_split",
    "a sample keeps its label": "misaligned_labels label_noise",
    "epochs have the same samples": "same_batch truncated_data",
    "no sample comes twice in an epoch": "duplicate_rows same_batch",
    "no epoch repeats another's order": "unshuffled_loader reseed_each_epoch",
    "all splits have the same classes": "unshuffled_split dropped_class",
    "every parameter gets a gradient": "frozen_layers detached_features",
    "weights change in every step": "optimizer_wrong_params missing_step",
    "every parameter changes": "frozen_layers optimizer_partial_params dead_relu",
    "the learning rate stays within an epoch": "scheduler_per_batch",
    "the learning rate is above 0": "lr_decays_early",
    "the learning rate never rises": "optimizer",
    "the reported val loss is the mean of the batches": "mean_of_batch_means evaluation",
    "evaluations on val have equally many samples": "evaluation",
    "the reported train loss is the mean of the batches": "evaluation",
    "epochs have equally many batches": "data",
    "batches within an epoch are of one size": "data",
    "each activation is finite": "numerics",
    "each gradient is finite": "numerics",
    "each weight is finite": "numerics",
    "each update is finite": "numerics",
    "losses are finite": "numerics",
    "the loss falls": "optimizer",
}
UNKNOWN = {"evaluations on ": "evaluation", "the reported ": "evaluation"}  # by how a relation not in the table begins
CALLS = "training_loop"  # and of one that begins otherwise: it is between calls


@dataclass
class Invariants(Detector):
    """Relations that hold in all healthy runs of other workloads, and not in this one (after TrainCheck). It learns.

    TrainCheck (Jiang et al., OSDI 2025) infers from traces of healthy programs which relations always hold, under which
    precondition, and reports where another program violates them. This is a light miner of the same kind, of the
    relations of :mod:`bugbench.relations`. Of TrainCheck's kinds (contain, cover, lead, consistency, thresholds) are
    order and company of zero_grad, forward, backward and step, modes, finite numbers and parameters that change;
    distinct arguments are left out. This project's own, which mirror faults, are how learning rate and batch sizes go
    on, whether the loss falls, samples (in two splits, with two labels, twice in an epoch, in one order in two), finite
    inputs, classes that a split lacks, calls in evaluation or between two others, and reported losses against
    recomputed ones: ``own_kinds=false`` drops these.

    An invariant is what held in every healthy run in which it could be told, of at least two workloads; or else in all
    with some trait (task, kind of layer, one model or several), and is asked for where that trait is. What a violation
    means is not learned, but in the table ``FAULTS``.

    Healthy runs are twins and controls: what a control does otherwise is no invariant. A sound program without a habit
    of all others is a false alarm (of TrainCheck's selective mode healthy runs violated 16 of 475 invariants).
    """

    access = {"tensors", "data"}
    origin = "published"
    workloads: int = 2  # that a relation must have been seen in: with one, its habits would be laws
    most: int = 5  # suspects
    own_kinds: bool = True  # also relations of kinds that TrainCheck does not have

    def extract(self, trace: Trace) -> dict[str, Any]:
        found = relations(trace, self.own_kinds)
        if not found:
            raise NotApplicable("no step was recorded whose calls are known")
        return {"traits": traits(trace), "holds": {name: relation.holds for name, relation in found.items()}}

    def fit(self, examples: Sequence[tuple[Any, Label]]) -> dict[str, Any]:
        healthy = [(run, label.workload) for run, label in examples if label.control]
        if len({workload for _, workload in healthy}) < self.workloads:
            raise NotApplicable(f"healthy runs of {self.workloads} other workloads are needed")
        invariants: dict[str, Any] = {}
        for name in sorted({name for run, _ in healthy for name in run["holds"]}):
            told = [
                (run["holds"][name], set(run["traits"]), workload) for run, workload in healthy if name in run["holds"]
            ]
            conditions = sorted({trait for _, traits, _ in told for trait in traits})
            if self._always([(holds, workload) for holds, _, workload in told]):
                invariants[name] = {"if": None, "runs": len(told)}
            elif chosen := [c for c in conditions if self._always([(h, w) for h, traits, w in told if c in traits])]:
                invariants[name] = {"if": chosen, "runs": len(told)}
        return invariants

    def diagnose(self, trace: Trace) -> Diagnosis:
        found, own = relations(trace, self.own_kinds), traits(trace)
        if not found:
            raise NotApplicable("no step was recorded whose calls are known")
        suspects: dict[str, Suspect] = {}
        violated = [name for name, relation in found.items() if name in self.model and not relation.holds]
        for name in sorted(violated, key=lambda name: [*FAULTS, name].index(name)):
            conditions, runs = self.model[name]["if"], self.model[name]["runs"]
            if conditions is not None and not (conditions := [c for c in conditions if c in own]):
                continue
            under = f" with {conditions[0]}" if conditions else ""
            evidence = f"in {runs} healthy runs of other programs{under}: {name}. Not here: {found[name].seen}"
            other = next((fault for start, fault in UNKNOWN.items() if name.startswith(start)), CALLS)
            for rank, fault in enumerate(FAULTS.get(name, other).split()):
                suspects.setdefault(fault, Suspect(fault, 0.8 / (1 + rank), evidence))
        return Diagnosis(list(suspects.values())[: self.most])

    def _always(self, told: Sequence[tuple[bool, str]]) -> bool:
        return all(holds for holds, _ in told) and len({workload for _, workload in told}) >= self.workloads
