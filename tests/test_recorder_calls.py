"""The calls and the modes that the recorder sees in a step."""

from recorded_loop import USUAL, Loop, orders
from torch import nn

# -- the order of calls -------------------------------------------------------------------------------------------


def test_usual_loop(loop):
    for _ in range(3):
        loop.step()
    loop.evaluate(batches=2)
    loop.step()
    trace = loop.trace()
    assert orders(trace) == [USUAL] * 4
    assert orders(trace, "val") == ["forward", "forward"]


def test_zero_grad_after_the_step(loop):
    for _ in range(2):
        loop.forward()
        loop.backward()
        loop.optimizer.step()
        loop.optimizer.zero_grad()
        loop.log()
    assert orders(loop.trace()) == ["forward backward step zero_grad"] * 2


def test_zero_grad_after_the_batch_is_logged(loop):
    for _ in range(3):
        loop.forward()
        loop.backward()
        loop.optimizer.step()
        loop.log()
        loop.optimizer.zero_grad()
    assert orders(loop.trace()) == ["forward backward step", USUAL, USUAL]


def test_gradient_accumulation(loop):
    for _ in range(2):
        loop.optimizer.zero_grad()
        for micro in range(3):
            loop.forward()
            loop.backward()
            if micro == 2:
                loop.optimizer.step()
            loop.log()
    trace = loop.trace()
    assert orders(trace) == ["zero_grad forward backward", "forward backward", "forward backward step"] * 2
    # The line stands still until the step: gradients (24, 10) add up, norms are 26, 52, 78
    assert list(trace.steps["grad_norm"][:3]) == [26, 52, 78]
    assert list(trace.steps["update_norm"].isna()) == [True, True, False] * 2


def test_missing_zero_grad(loop):
    for _ in range(2):
        loop.forward()
        loop.backward()
        loop.optimizer.step()
        loop.log()
    assert orders(loop.trace()) == ["forward backward step"] * 2


def test_the_models_own_zero_grad_counts(loop):
    loop.model.zero_grad()
    loop.forward()
    loop.backward()
    loop.optimizer.step()
    loop.log()
    assert loop.model.out.weight.grad is not None
    loop.model.zero_grad(set_to_none=True)
    assert loop.model.out.weight.grad is None, "arguments are passed on"
    assert orders(loop.trace()) == [USUAL]


def test_step_before_backward_and_forward_twice(loop):
    loop.optimizer.zero_grad()
    loop.forward()
    loop.optimizer.step()
    loop.backward()
    loop.log()
    loop.forward()
    loop.forward()
    loop.backward()
    loop.log()
    assert orders(loop.trace()) == ["zero_grad forward step backward", "forward backward"]


def test_calls_of_one_batch_do_not_leak_into_the_next_split(loop):
    loop.step()
    loop.optimizer.zero_grad()
    loop.run.log_metrics("train", loss=1.0)
    loop.evaluate()
    assert orders(loop.trace(), "val") == ["forward"]


# -- modes --------------------------------------------------------------------------------------------------------


def modes(trace):
    return list(trace.steps["mode"])


def test_mode_of_each_split(loop):
    loop.step()
    loop.evaluate()
    loop.step()
    loop.model.eval()
    loop.step()
    assert modes(loop.trace()) == ["train", "eval", "train", "eval"]


def test_partly_frozen_model_is_mixed(tmp_path):
    loop = Loop(tmp_path / "trace", nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)))
    loop.model[1].eval()
    loop.step()
    assert modes(loop.trace()) == ["mixed"]


def test_a_batch_forwarded_in_both_modes_is_mixed_and_one_without_a_forward_unknown(loop):
    loop.forward()
    loop.model.eval()
    loop.forward()
    loop.log()
    loop.log()
    assert modes(loop.trace()) == ["mixed", "unknown"]
