"""JSON and nested state as files: whole, without pickles, and told when they are not what they should be."""

import json
import struct

import pytest
import torch

from inrflow.errors import UserError
from inrflow.runtime.atomic_files import write_json
from inrflow.runtime.tensor_files import load_tensors, save_tensors, to_cpu


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = write_json(tmp_path / "a.json", {"a": [1, None, 0.5]})
    assert json.loads(path.read_text()) == {"a": [1, None, 0.5]}
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": [1, None, 0.5]} and names(tmp_path) == ["a.json"]


# ---- nested state ----


def same(found, expected):
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert found.stride() == expected.stride() or 0 in expected.stride()
        assert torch.equal(found.nan_to_num(7.0), expected.detach().cpu().nan_to_num(7.0))
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            same(found[key], value)
    elif isinstance(expected, list | tuple):
        assert isinstance(found, list) and len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert type(found) is type(expected) and (found == expected or found != found and expected != expected)


def test_nested_state_survives(tmp_path):
    shared = torch.randn(3)
    state = {
        "module": {"a.weight": torch.randn(2, 3), "a.bias": shared, "again": shared, "view": torch.randn(4, 4).t()[1:],
                   "wide": torch.randn(3, 1).expand(3, 2)},
        "kinds": [torch.tensor(1.5, dtype=torch.float64), torch.tensor([True, False]), torch.arange(3),
                  torch.zeros(0, 2), torch.randn(2).bfloat16(), torch.tensor([float("nan"), float("inf")])],
        "state": {0: {"step": torch.tensor(3.0), "Q": [torch.eye(2), None, []]}, 1: {}},
        "numbers": (1, 2.5, True, None, "text \u00e9", float("inf"), float("nan"), 1e-300, 10**12),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "__tensor__": "a key like any other", "__items__": [],
    }
    path = save_tensors(tmp_path / "a.safetensors", state, {"version": 3, "nested": {"list": [1, 2]}})
    found, metadata = load_tensors(path)
    same(found, state)
    assert metadata == {"version": 3, "nested": {"list": [1, 2]}} and names(tmp_path) == ["a.safetensors"]


def test_keys_that_look_alike_when_joined_are_kept_apart(tmp_path):
    state = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1), 0: torch.full((1,), 2.0)}, "a.0": torch.full((1,), 3.0),
             1: torch.full((1,), 4.0), "1": torch.full((1,), 5.0)}
    found, _ = load_tensors(save_tensors(tmp_path / "a.safetensors", state))
    same(found, state)


def test_optimiser_state_survives(tmp_path):
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters(), betas=(0.8, 0.9))
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    found, _ = load_tensors(save_tensors(tmp_path / "a.safetensors", optimiser.state_dict()))
    same(found, optimiser.state_dict())
    torch.optim.AdamW(layer.parameters()).load_state_dict(found)


def test_state_that_has_no_plain_form_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError, match="state.a"):
        save_tensors(tmp_path / "a.safetensors", {"a": object()})
    assert names(tmp_path) == []


def test_there_is_no_pickle_in_the_file(tmp_path):
    path = save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(4), "b": [1, "x"]})
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + length])  # the whole structure is JSON, the rest is the numbers
    (tensor,) = (value for key, value in header.items() if key != "__metadata__")
    assert tensor == {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} and len(content) == 8 + length + 16
    assert json.loads(header["__metadata__"]["inrflow"])["metadata"] == {}


def test_what_is_not_such_a_file_is_the_users_to_mend(tmp_path):
    from safetensors.torch import save_file

    whole = save_tensors(tmp_path / "whole.safetensors", {"a": torch.zeros(100)})
    foreign = {"text": b"just text", "empty": b"", "pickle": b"\x80\x04\x95cos\nsystem\n",
               "cut": whole.read_bytes()[:-50], "half a header": whole.read_bytes()[:30]}
    for name, content in foreign.items():
        (tmp_path / name).write_bytes(content)
    save_file({"a": torch.zeros(2)}, tmp_path / "plain")
    save_file({"a": torch.zeros(2)}, tmp_path / "other",
              {"inrflow": '{"structure": {"__tensor__": "b"}, "metadata": {}}'})
    save_file({"a": torch.zeros(2)}, tmp_path / "list",
              {"inrflow": '{"structure": {"b": 1}, "metadata": {}}'})
    (tmp_path / "folder").mkdir()
    for name in [*foreign, "plain", "other", "list", "folder"]:
        with pytest.raises(UserError, match="is not a file that inrflow has saved") as caught:
            load_tensors(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="does not exist"):
        load_tensors(tmp_path / "absent")


# ---- state dicts and devices ----


def test_to_cpu_is_a_copy():
    layer = torch.nn.Linear(2, 1)
    kept = to_cpu(layer.state_dict())
    with torch.no_grad():
        layer.weight.fill_(9.0)
    assert float(kept["weight"].max()) < 9 and not kept["weight"].requires_grad


def test_models_are_as_readable_as_other_files(tmp_path):
    (tmp_path / "plain").write_text("")
    save_tensors(tmp_path / "model.safetensors", {"a": torch.ones(2)})
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
