"""The baseline that guesses."""

import hashlib
from dataclasses import dataclass

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect

# cases of the suite "full" that do harm, by fault (results/impact.csv): a number and the faults that have so many
CASES = """
20 missing_step missing_zero_grad step_before_backward
17 detached_features
16 zero_init
14 activation_on_logits train_only_normalization
12 dtype_mismatch excess_dropout metric_wrong_dim
11 sqrt_grad_at_zero
10 frozen_layers lr_too_high lr_too_low optimizer_partial_params truncated_data zero_grad_after_backward
9 large_init normalization_wrong_dim regulariser_dominates reinit_each_epoch too_few_epochs
8 device_mismatch flipped_sign lr_decays_early misaligned_labels momentum_too_high optimizer_wrong_params
8 scheduler_per_batch
7 batch_size_one clipped_loss double_normalization excess_weight_decay functional_dropout model_too_small
7 mse_for_classes nll_on_logits same_batch saturating_activation softmax_dim target_not_augmented unregistered_layers
7 unshuffled_loader wrong_target
6 adam_eps dead_relu early_stop_wrong_direction input_noise label_smoothing_wrong lr_slightly_high redundant_softmax
6 scheduler_per_epoch validation_is_train
5 class_imbalance clip_too_small concat_wrong_dim eval_on_subset fp16_overflow hardcoded_batch_size label_noise
5 label_off_by_one loss_reduction_sum missing_nonlinearity train_in_validation train_mode_in_eval unshuffled_split
5 view_for_permute zero_inputs
4 bad_augmentation label_leakage shape_mismatch tiny_validation
3 bf16_weights class_map_mismatch constant_labels ema_buffers_missing label_out_of_range log_of_zero
3 missing_normalization stale_cache
2 accuracy_on_imbalance batchnorm_in_eval best_not_restored corrupt_one_class ddp_bypassed divide_by_zero_std
2 dropped_class duplicates_across_split easy_validation gan_missing_zero_grad gan_swapped_labels group_leakage
2 inf_inputs inverted_mask logit_threshold nan_inputs reseed_each_epoch reseed_each_step residual_missing
2 swapped_class_weights uint8_overflow wrong_statistics
1 accumulation_not_scaled augmentation_in_eval augmentation_too_strong ddp_clip_one_rank ddp_no_sampler double_shift
1 eval_mode_in_training exp_overflow gan_not_detached hidden_state_carried label_broadcast mean_of_batch_means
1 miscalibrated missing_attention_scale missing_causal_mask missing_positions overfit_capacity padding_attended
1 padding_in_loss partial_load resume_scheduler_reset resume_without_optimizer shared_module swapped_axes
1 teacher_forced_eval temporal_leakage token_out_of_range tokenizer_mismatch unscaled_targets unshifted_lm_labels
"""


@dataclass
class Prior(Detector):
    """Draws "healthy" or a fault as often as the suite holds them.

    Whoever knows no more than the class prior scores like this. The draw depends on what the run recorded and on
    nothing else, so the same trace is always judged alike.
    """

    origin = "baseline"
    healthy: float = 0.5  # the suites give controls so many seeds that they are about half of the cases (conf/suite)
    seed: int = 0  # another seed, another draw

    def diagnose(self, trace: Trace) -> Diagnosis:
        content = [trace.steps[["step", "loss"]].to_numpy(np.float64), trace.metrics["value"].to_numpy(np.float64)]
        digest = hashlib.sha256(str(self.seed).encode() + b"".join(np.ascontiguousarray(a).tobytes() for a in content))
        generator = np.random.default_rng(int.from_bytes(digest.digest()[:8], "big"))
        if generator.random() < self.healthy:
            return HEALTHY
        cases = cases_by_fault()
        shares = np.array(list(cases.values())) / sum(cases.values())
        return suspect(list(cases)[generator.choice(len(cases), p=shares)], evidence="a guess")


def cases_by_fault() -> dict[str, int]:
    rows = [line.split() for line in CASES.split("\n") if line]
    return {fault: int(count) for count, *faults in rows for fault in faults}
