"""A team of processes: the same results as of one process, whatever is lost, dropped or raised."""

import json
import os
import time
from functools import partial

import numpy as np
import pytest
import torch
from forked import ended, job

from inrflow.cli import main
from inrflow.numerics.effort import Limit, OutOfTime, effort
from inrflow.numerics.team import Lost, team
from inrflow.runtime.tensor_files import load_tensors


def square(power, value):
    if value == -1:
        raise ValueError("negative")
    effort.add(seconds=value)
    return value ** power


def endless(value):
    while value or os.environ["RANK"] == "1":
        effort.check()
    return value


def dies(value):
    if os.environ["RANK"] == "1":
        os._exit(9)
    return value


def compute(module, x, part):
    loss = module[:2](x[part]).square().sum() / len(x)
    loss.backward()
    return float(loss), float(len(x[part]))


def found(fatal):
    yield "squares", list(team.map(partial(square, 2), range(7)))
    yield "effort", effort.spent
    with effort.limited(Limit(25)):
        some = []
        try:
            for value in team.map(partial(square, 1), [1, 2, 100, 1]):
                some.append(value)
        except OutOfTime:
            some.append("over")
    yield "limited", some
    try:
        list(team.map(partial(square, 2), [3, -1, 3, 3]))
    except ValueError as error:
        yield "raised", str(error)
    next(team.map(endless, [0, 1]))  # the second is dropped
    yield "nested", [[a, *team.map(partial(square, a), [2, 3])] for a in team.map(partial(square, 1), [1, 2, 3, 4, 5])]
    yield "local", list(team.map(lambda value: value + 1, range(5)))  # no other process can be told of it
    yield "after", list(team.map(partial(square, 3), [1, 2, 3]))
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    x, losses = torch.randn(10, 3, dtype=torch.float64), []
    optimiser = torch.optim.Adam(module.parameters())
    for _ in range(5):
        optimiser.zero_grad(set_to_none=True)
        loss, rows = team.gradients("net", compute, module, x)
        losses.append(loss)
        optimiser.step()
    yield "losses", losses
    yield "rows", rows
    yield "gradients", [None if p.grad is None else p.grad.sum().item() for p in module.parameters()]
    if fatal:
        try:
            list(team.map(dies, range(4)))
        except Lost:
            yield "lost", True


def gathered(fatal=False):
    with team.gathered() as leads:
        if leads:
            print(json.dumps(dict(found(fatal))))


@pytest.fixture(scope="module")
def alone():
    codes, outputs, errors = ended(job(1, gathered))
    assert codes == [0], errors
    return json.loads(outputs[0])


def test_processes_find_what_one_finds_and_one_that_dies_is_told(alone):
    codes, outputs, errors = ended(job(3, partial(gathered, True)))
    assert codes == [0, 9, 0] and not any(outputs[1:]), (codes, errors)
    found = json.loads(outputs[0])
    assert found.pop("lost")
    for name in ("losses", "gradients"):
        mine, theirs = (np.array(one.pop(name), dtype=float) for one in (found, alone))
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    assert found == {name: value for name, value in alone.items() if name in found}
    assert found["squares"] == [0, 1, 4, 9, 16, 25, 36] and found["rows"] == 10
    assert found["nested"] == [[a, 2 ** a, 3 ** a] for a in range(1, 6)]
    assert found["local"] == [1, 2, 3, 4, 5]
    assert found["limited"] == [1, 2, "over"]


def test_what_is_left_of_effort_is_told_without_spending_it():
    before = effort.spent
    with effort.limited(Limit(before + 10)), effort.limited(Limit(before + 3)):
        assert abs(effort.left() - 3) < 1e-9 and effort.spent == before
    with pytest.raises(OutOfTime), effort.limited(Limit(before + 1)):
        effort.add(seconds=2)
    assert list(team.map(str, [1, 2])) == ["1", "2"]


def train(folder, *arguments):
    """Two processes of one training of `data.h5`."""
    return job(2, partial(main, ["train", f"data.train={folder}/data.h5", "training.minutes=0.2", *arguments]))


@pytest.fixture(scope="module")
def heat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heat")
    assert main(["generate", "pde=heat", "dimensions=1", "trajectories=8", "frames=8", "grid=16",
                 f"output={folder}/data.h5"]) == 0
    return folder


def test_a_training_in_two_processes_gives_the_model_of_one(heat, request):
    codes, outputs, errors = ended(train(heat, "recipe=law", f"output={heat}/two"))
    assert codes == [0, 0] and not outputs[1] and not errors[1], errors  # the second says nothing
    request.getfixturevalue("unreported")
    settings = [f"data.train={heat}/data.h5", "training.minutes=0.2", "recipe=law"]
    assert main(["train", *settings, f"output={heat}/one"]) == 0
    one, two = (json.loads((heat / size / "candidates.json").read_text()) for size in ("one", "two"))
    for rows in (one, two):
        del rows["decisions"]["flight"]  # milliseconds that forecasts of the model took
        for row in rows["candidates"]:
            del row["seconds"]
    assert one == two
    mine, theirs = (load_tensors(heat / size / "model.safetensors")[0] for size in ("one", "two"))
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("unreported")
def test_a_killed_process_ends_the_training_with_one_line_and_one_process_goes_on(heat):
    settings = ("recipe=neural", "decoder.width=16", "training.steps.decoder=100", "training.steps.rollout=20",
                "training.steps.copies=1", f"output={heat}/killed")
    both = train(heat, *settings)
    metrics, until = heat / "killed" / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and '"loss"' in metrics.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    both[1].kill()
    codes, _, errors = ended(both)
    assert codes == [1, -9] and errors[0].count("another process of this job has ended") == 1, (codes, errors)
    assert "Traceback" not in errors[0] and f"resume={heat}/killed" in errors[0].splitlines()[-1]
    assert (heat / "killed" / "checkpoints" / "decoder.safetensors").exists()
    assert main(["train", f"resume={heat}/killed"]) == 0 and (heat / "killed" / "model.safetensors").exists()


def test_parts_of_a_batch_sum_to_its_gradients():
    from inrflow.dynamics.fields.sum import VectorField
    from inrflow.dynamics.flow import Integrator
    from inrflow.encoding.encode import CodeData
    from inrflow.training.parts.rollouts import RolloutTraining

    torch.manual_seed(0)
    states = CodeData(torch.randn(5, 6, 3).double(), torch.arange(6.0).expand(5, 6).double(), torch.rand(5, 6) > 0.2)
    training, field = RolloutTraining(states, Integrator(), 7), VectorField.of(3, linear=False, width=8, depth=1)

    def slopes(part):
        field.zero_grad()
        loss = training.loss(field, 3, 10, np.random.default_rng(0), part)
        loss.backward()
        return torch.cat([loss.detach()[None], *(p.grad.flatten() for p in field.parameters())])

    torch.testing.assert_close(slopes(slice(0, None, 2)) + slopes(slice(1, None, 2)), slopes(slice(None)))
