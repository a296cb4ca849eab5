"""The training loop: resuming repeats bit for bit, the best state is kept, and budgets become steps."""

import io
import math

import numpy as np
import pytest
import torch
from rich.console import Console

from inrflow.runtime.tensor_files import load_tensors
from inrflow.training import loop as steps_module
from inrflow.training.loop import OptimiserSettings, Stage, learning_rate, run_stage, step_random, timed_steps
from inrflow.training.recorder import Interrupted, Recorder


def recorder(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return Recorder(folder, Console(file=io.StringIO()))


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.SiLU(), torch.nn.Linear(6, 5), torch.nn.SiLU(),
                               torch.nn.Linear(5, 1))


def regression(module, step, steps, random):
    """Points of one step: they depend on the numbers of the step alone."""
    x = torch.as_tensor(random.uniform(-1, 1, (16, 2)), dtype=torch.float32)
    return (module(x)[:, 0] - torch.sin(3 * x[:, 0]) * x[:, 1]).square().mean()


def validation(module):
    with torch.no_grad():
        return float(regression(module, 0, 1, np.random.default_rng(99)))


def stage(optimiser="adamw", module=None, loss=regression, **options):
    options.setdefault("validate", validation)
    return Stage("fit", module or network(), loss, optimiser=OptimiserSettings(optimiser, rate=1e-2), seed=3, **options)


def run(one, steps, folder):
    with recorder(folder) as recording:
        return run_stage(one, steps, recording)


def stopping_at(recording, at):
    def loss(module, step, steps, random):
        if step + 1 == at:
            recording.stopping = True
        return regression(module, step, steps, random)

    return loss


def same_state(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


# ---- resuming ----


@pytest.mark.parametrize("optimiser", ["soap", "adamw"])
@pytest.mark.parametrize("stops", [(1,), (10,), (7, 23), (39, 40)])
def test_an_interrupted_and_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, optimiser, stops):
    whole = stage(optimiser)
    expected = run(whole, 40, tmp_path / "whole")
    folder = tmp_path / "parts"
    for at in stops:
        with recorder(folder) as recording:
            part = stage(optimiser, network(seed=at), stopping_at(recording, at)) if at != stops[0] else \
                stage(optimiser, loss=stopping_at(recording, at))
            with pytest.raises(Interrupted):
                run_stage(part, 40, recording)
    resumed = stage(optimiser, network(seed=77))  # whatever it starts from, the checkpoint counts
    assert run(resumed, 40, folder) == expected
    assert same_state(resumed.module, whole.module)
    last = [
        load_tensors(path / "checkpoints" / "fit.safetensors")[0]["module"] for path in (tmp_path / "whole", folder)
    ]
    assert all(torch.equal(last[0][key], last[1][key]) for key in last[0])  # the last state too, not only the best


def test_a_signal_while_the_last_state_is_judged_interrupts_after_saving_it(tmp_path):
    with recorder(tmp_path) as recording:
        errors = iter([1.0, 2.0, 3.0])

        def worse(module):
            recording.stopping = (error := next(errors)) == 3.0  # where patience ends
            return error

        with pytest.raises(Interrupted):
            run_stage(stage(validate=worse, validations=10, patience=0.15), 40, recording)
    assert load_tensors(tmp_path / "checkpoints" / "fit.safetensors")[0]["step"] == 40  # a resumed run takes none


def test_a_finished_stage_is_not_run_again(tmp_path):
    done = stage()
    expected = run(done, 20, tmp_path)

    def never(module, step, steps, random):
        raise AssertionError("no step is left")

    again = stage(module=network(seed=5), loss=never)
    assert run(again, 20, tmp_path) == expected and same_state(again.module, done.module)


def test_checkpoints_are_written_as_time_passes(tmp_path, monkeypatch):
    monkeypatch.setattr(steps_module, "CHECKPOINT_SECONDS", -1.0)

    def failing(module, step, steps, random):
        if step == 12:
            raise RuntimeError("power cut")
        return regression(module, step, steps, random)

    with pytest.raises(RuntimeError, match="power cut"):
        run(stage(loss=failing), 30, tmp_path)
    assert load_tensors(tmp_path / "checkpoints" / "fit.safetensors")[0]["step"] == 12
    whole, resumed = stage(), stage(module=network(seed=5))
    run(whole, 30, tmp_path / "whole")
    run(resumed, 30, tmp_path)
    assert same_state(resumed.module, whole.module)


def test_the_random_numbers_of_a_step_are_a_function_of_seed_stage_and_step():
    def draw(*key):
        return step_random(*key).random(3).tolist()

    assert draw(1, "fit", 5) == draw(1, "fit", 5)
    others = [draw(2, "fit", 5), draw(1, "fit", 6), draw(1, "tif", 5), draw(5, "fit", 1)]
    assert draw(1, "fit", 5) not in others


# ---- what is kept ----


class Counter(torch.nn.Module):
    """One parameter that a unit gradient moves by a known amount; a validation error for each call."""

    def __init__(self, errors):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.errors, self.seen = list(errors), []

    def validate(self, module):
        self.seen.append(float(self.weight.detach()))
        return self.errors[len(self.seen) - 1]


def counted(tmp_path, errors, steps, **options):
    """Validation before the first step and after each; the weight kept, and what it was at each validation."""
    module = Counter(errors)
    one = stage(module=module, loss=lambda m, step, steps, random: -m.weight.sum(), validate=module.validate,
                validations=steps, **options)
    best = run(one, steps, tmp_path)
    return best, float(module.weight.detach()), module.seen


def test_the_state_of_the_smallest_validation_error_is_kept(tmp_path):
    best, weight, seen = counted(tmp_path, [5.0, 4.0, 1.0, 2.0, 3.0], 4)
    assert best == 1.0 and weight == seen[2] and len(set(seen)) == 5


def test_the_state_before_training_is_kept_where_training_makes_it_worse(tmp_path):
    best, weight, seen = counted(tmp_path, [1.0, 4.0, 2.0, 3.0], 3)
    assert best == 1.0 and weight == seen[0] == 0.0


def test_with_a_tolerance_the_latest_state_that_is_about_as_good_is_kept(tmp_path):
    best, weight, seen = counted(tmp_path, [5.0, 1.0, 1.05, 1.2, 1.09, 1.3], 5, tolerance=1.1)
    assert best == 1.09 and weight == seen[4]


@pytest.mark.parametrize("errors", [[math.nan, 3.0, 1.0, 2.0], [5.0, math.nan, 1.0, math.nan],
                                    [math.inf, math.nan, 1.0, math.inf]])
def test_errors_that_are_not_numbers_are_never_the_best(tmp_path, errors):
    best, weight, seen = counted(tmp_path, errors, 3)
    assert best == 1.0 and weight == seen[2]


def test_where_no_error_is_finite_the_start_is_kept(tmp_path):
    best, weight, seen = counted(tmp_path, [math.nan, math.nan, math.inf], 2)
    assert best == math.inf and weight == seen[0]


def test_without_validation_the_last_state_is_kept(tmp_path):
    one = stage(validate=None)
    assert run(one, 20, tmp_path) == math.inf
    last = load_tensors(tmp_path / "checkpoints" / "fit.safetensors")[0]["module"]
    assert all(torch.equal(value, last[key]) for key, value in one.module.state_dict().items())
    assert not same_state(one.module, network())


def test_training_stops_early_when_patience_is_over(tmp_path):
    best, weight, seen = counted(tmp_path, [5.0, 1.0, *[2.0] * 18], 20, patience=0.25)
    assert best == 1.0 and weight == seen[1] and len(seen) == 1 + 7  # the best after 1, then 0.25 * 20 = 5 and one more
    again = Counter([])
    one = stage(module=again, validate=again.validate, validations=20, patience=0.25)
    assert run(one, 20, tmp_path) == 1.0 and float(again.weight.detach()) == weight  # and does not go on afterwards


@pytest.mark.parametrize("optimiser", ["soap", "adamw"])
def test_training_lowers_the_error(tmp_path, optimiser):
    one = stage(optimiser)
    before = validation(one.module)
    after = run(one, 150, tmp_path)
    assert after < 0.5 * before and after == validation(one.module)


def test_a_step_whose_gradient_is_not_finite_is_left_out(tmp_path):
    def broken(module, step, steps, random):
        loss = regression(module, step, steps, random)
        return loss * (math.nan if step == 4 else 1.0)

    one = stage("soap", loss=broken)
    assert math.isfinite(run(one, 20, tmp_path))
    assert all(torch.isfinite(value).all() for value in one.module.state_dict().values())


def test_only_parameters_that_ask_for_gradients_move(tmp_path):
    one = stage(validate=None)
    one.module[:4].requires_grad_(False)
    run(one, 10, tmp_path)
    start = network()
    assert torch.equal(one.module[0].weight, start[0].weight)
    assert not torch.equal(one.module[4].weight, start[4].weight)


# ---- metrics, budgets, rates ----


def test_metrics_tell_of_every_validation(tmp_path):
    import json

    run(stage(validations=4), 20, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 5, 10, 15, 20]
    assert all(row["stage"] == "fit" and row["validation"] > 0 and row["seconds"] >= 0 for row in rows)
    assert "loss" not in rows[0] and all(row["loss"] > 0 for row in rows[1:])


def test_a_time_budget_becomes_a_positive_number_of_steps_and_leaves_no_trace():
    one = stage("soap")
    few, many = timed_steps(one, 0.05), timed_steps(one, 50.0)
    assert 20 <= few < many and timed_steps(one, 1e9) == 100_000
    assert timed_steps(one, 1e-9) == 20 and timed_steps(one, 0.0) == 0 and timed_steps(one, -1.0) == 0
    assert same_state(one.module, network()) and all(p.grad is None for p in one.module.parameters())


def test_steps_are_timed_at_about_their_duration():
    import time

    def slow(module, step, steps, random):
        time.sleep(0.02)
        return regression(module, step, steps, random)

    assert 20 <= timed_steps(stage(loss=slow), 2.0) <= 100


def test_the_rate_warms_up_and_falls_to_a_hundredth():
    rates = [learning_rate(step, 200) for step in range(200)]
    assert rates[0] == pytest.approx(1 / 20, rel=1e-3) and rates[-1] == pytest.approx(0.01, abs=1e-3)
    peak = int(np.argmax(rates))
    assert peak == 19 and rates[peak] > 0.95 and (np.diff(rates[:peak]) > 0).all() and (np.diff(rates[peak:]) < 0).all()
    assert learning_rate(0, 0) > 0


def test_steps_are_counted_by_the_given_timer():
    ticks = iter(range(0, 1000, 2))  # every look at the timer is two seconds later than the last
    assert timed_steps(stage(), 100.0, timer=lambda: float(next(ticks))) == 50
