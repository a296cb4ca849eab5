import json
import shutil

import h5py
import pytest

from inrflow.runtime.tensor_files import load_tensors, save_tensors


def test_a_data_file_is_described_in_a_screenful(tiny_data, inrflow_command):
    outcome = inrflow_command("inspect", tiny_data[0])
    assert outcome.code == 0 and len(outcome.out.splitlines()) < 30
    for text in ("12 trajectories x 8 frames x 64 points x 2 channels", "translation_x", "wave"):
        assert text in " ".join(outcome.out.split())


def test_what_a_file_needs_is_said_as_for_convert(tmp_path, inrflow_command):
    rows = [f"{t},{x},{t + x}" for t in range(3) for x in range(4)]
    (tmp_path / "a.csv").write_text("\n".join(["when,x,u", *rows]))
    refused = inrflow_command("inspect", tmp_path / "a.csv")
    assert refused.code == 2 and "not read as it is" in " ".join(refused.out.split())
    read = " ".join(inrflow_command("inspect", tmp_path / "a.csv", "time=when").out.split())
    assert "3 frames x 4 points" in read and "data.read.time=when" in read and "TARGET time=when" in read
    assert inrflow_command("inspect", tmp_path / "a.csv", "tim=when").code == 2
    (tmp_path / "b.csv").write_text("\n".join(["t,x,u,trajectory", *(f"{row},dry run" for row in rows)]))
    refused = inrflow_command("inspect", tmp_path / "b.csv")
    told = "trajectory is 'dry run' in row 1; expected whole numbers from 0, as by pandas.factorize"
    assert refused.code == 2 and told in " ".join(refused.out.split())


def test_long_names_of_channels_leave_room_for_what_is_said(tmp_path, inrflow_command):
    rows = [f"{t},{x},{t + x},{t * x}" for t in range(3) for x in range(4)]
    (tmp_path / "a.csv").write_text("\n".join([f"t,x,{'very ' * 40}long,long_std", *rows]))
    text = inrflow_command("inspect", tmp_path / "a.csv").out
    assert "3 frames x 4 points x 2 channels" in text and text.count("very") >= 120


def test_channels_called_as_columns_of_answers_are_told_before_training(tmp_path, inrflow_command):
    rows = [f"{t},{x},{t + x},{t * x}" for t in range(3) for x in range(4)]
    (tmp_path / "a.csv").write_text("\n".join(["t,x,u,u_std", *rows]))
    assert "a channel u_std, which is the name" in " ".join(inrflow_command("inspect", tmp_path / "a.csv").out.split())


def test_a_finished_run_tells_data_model_validation_and_errors(tiny_run, inrflow_command):
    outcome = inrflow_command("inspect", tiny_run.run)
    text = " ".join(outcome.out.split())
    assert outcome.code == 0 and len(outcome.out.splitlines()) < 44
    for expected in ("finished", "the first 5 frames", "channels u, v", "code of", "validation", "persistence", "MSE"):
        assert expected in text
    assert "unfinished" not in text


def test_an_unfinished_run_says_how_to_resume(tiny_run, tmp_path, inrflow_command):
    folder = tmp_path / "begun"
    folder.mkdir()
    shutil.copy(tiny_run.run / "config.yaml", folder)
    outcome = inrflow_command("inspect", folder)
    text = "".join(outcome.out.split())
    assert outcome.code == 0 and f"unfinished;continuewith:inrflowtrainresume={folder}" in text


def test_settings_that_name_no_files_are_shown_as_such(tmp_path, inrflow_command):
    (tmp_path / "config.yaml").write_text("")
    outcome = inrflow_command("inspect", tmp_path)
    assert outcome.code == 0 and "trained on" in outcome.out


def candidate(recipe, words, error, floor=1e-6, **others):
    return {"recipe": recipe, "candidate": words, "code_size": 16, "memory": 0, "contexts": 0, "unknowns": 4352,
            "seconds": 1.25, "validation_error": error, "floor": floor, "taken": False, "why": "", **others}


CANDIDATES = {
    "chosen": 1,
    "candidates": [
        candidate("reduced_order", "linear, POD", 3.1e-2, taken=True),
        candidate("law", "7 coefficients", 4.2e-5, unknowns=7, taken=True, why="10 times lower error"),
        candidate("reduced_order", "quadratic, [red]POD[/red]", None, memory=4, why="its forecasts diverge"),
        *(candidate("reduced_order", f"size {n}", 1.0 + n, why="no lower error") for n in range(30)),
    ],
    "not_applied": [{"recipe": "coral", "why": "only by name"}, {"recipe": "series", "why": "points move"}],
    "decisions": {"decoder": 300},
}


def test_candidates_are_a_table_with_what_was_chosen_and_why_others_were_not(tiny_run, tmp_path, inrflow_command):
    run = shutil.copytree(tiny_run.run, tmp_path / "run")
    (run / "candidates.json").write_text(json.dumps(CANDIDATES))
    outcome = inrflow_command("inspect", run)
    lines = outcome.out.splitlines()
    assert outcome.code == 0 and len(lines) < 60
    chosen = next(line for line in lines if "7 coefficients" in line)
    for text in ("law", "16", "1.25", "4.20e-05", "1.00e-06", "chosen: 10 times lower error"):
        assert text in chosen
    assert any("linear, POD" in line and "replaced" in line for line in lines)
    assert "14 of 33" in outcome.out and "size 3" in outcome.out and "size 29" not in outcome.out
    assert "coral: only by name" in outcome.out and "series: points move" in outcome.out
    assert "memory" in next(line for line in lines if "unknowns" in line and "recipe" in line)


def test_residual_fields_that_are_used_are_not_called_replaced(tmp_path, tiny_run, inrflow_command):
    run = tmp_path / "run"
    shutil.copytree(tiny_run.run, run)
    fields = [candidate("residual_field", f"{channel}: {name}", 0.1 * k + 0.1, taken=True)
              for k, (channel, name) in enumerate([("u", "rough"), ("u", "smooth"), ("v", "rough")])]
    report = {"chosen": 0, "not_applied": [], "candidates": [candidate("law", "short", 0.5, taken=True), *fields]}
    (run / "candidates.json").write_text(json.dumps(report))
    lines = inrflow_command("inspect", run).out.splitlines()
    said = [next(line for line in lines if name in line) for name in ("u: rough", "u: smooth", "v: rough")]
    assert "replaced" in said[0]
    assert all("used with the model" in line for line in said[1:])


def test_all_candidates_are_shown_where_they_are_few(tmp_path, tiny_run, inrflow_command):
    run = shutil.copytree(tiny_run.run, tmp_path / "run")
    (run / "candidates.json").write_text(json.dumps(CANDIDATES | {"candidates": CANDIDATES["candidates"][:3]}))
    out = inrflow_command("inspect", run).out
    assert "[red]POD[/red]" in out and "its forecasts diverge" in out and "of 3" not in out


@pytest.mark.parametrize("change", [
    {"candidates": 3}, {"candidates": [{}]}, {"chosen": "x", "candidates": [{"recipe": 1}]}, {"not_applied": [1]},
    {"candidates": [candidate("a", "b", "c")]},
])
def test_damaged_candidates_are_one_clear_line(change, tiny_run, tmp_path, inrflow_command):
    run = shutil.copytree(tiny_run.run, tmp_path / "run")
    (run / "candidates.json").write_text(json.dumps(CANDIDATES | change))
    outcome = inrflow_command("inspect", run)
    assert outcome.code == 2 and "candidates.json" in outcome.err and len(outcome.err.splitlines()) == 1
    assert not outcome.out


@pytest.mark.parametrize("change", [
    {"box": "abc"}, {"decoder": {}}, {"horizon": "x"}, {"training": {"equation": 3}}, {"training": 7}, {"field": {}},
    {"scale": {"origin": 0}}, {"description": {"channels": []}}, {"integrator": {"method": 3, "step": 0}},
])
def test_a_damaged_model_is_one_clear_line(change, tiny_run, tmp_path, inrflow_command):
    run = shutil.copytree(tiny_run.run, tmp_path / "run")
    state, metadata = load_tensors(run / "model.safetensors")
    state |= {key: value for key, value in change.items() if key in state}
    save_tensors(run / "model.safetensors", state, metadata | {k: v for k, v in change.items() if k in metadata})
    outcome = inrflow_command("inspect", run)
    if outcome.code == 2:
        assert "model.safetensors" in outcome.err and len(outcome.err.splitlines()) == 1
    else:
        assert outcome.code == 0


def test_reports_of_several_physics_are_shown_by_name(tiny_run, tmp_path, inrflow_command):
    report = json.loads((tiny_run.run / "evaluation.json").read_text())
    (tmp_path / "evaluation.json").write_text(json.dumps({"physics": {"wave": report, "heat": report}}))
    out = inrflow_command("inspect", tmp_path).out
    assert "test data of wave" in out and "test data of heat" in out


def test_names_in_a_file_cannot_steer_the_terminal(tiny_data, tmp_path, inrflow_command):
    path = shutil.copy(tiny_data[0], tmp_path / "data.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["name"] = "wave\x1b[2J\x07"
        file.attrs["time_units"] = "s\x1b]0;title"
    out = inrflow_command("inspect", path).out
    assert "\x1b" not in out and "\\x1b[2J" in out


@pytest.mark.parametrize("content", ["{", "[]", '{"mse": 1}'])
def test_a_damaged_report_is_named(content, tiny_run, tmp_path, inrflow_command):
    (tmp_path / "evaluation.json").write_text(content)
    outcome = inrflow_command("inspect", tmp_path)
    assert outcome.code == 2 and "evaluation.json" in outcome.err and len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("nowhere",), (".",)])
def test_what_is_neither_file_nor_run_is_one_clear_line(arguments, elsewhere, inrflow_command):
    outcome = inrflow_command("inspect", *arguments)
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1 and not outcome.out
