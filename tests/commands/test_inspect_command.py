import shutil

import pytest


def test_a_data_file_is_described_in_a_screenful(tiny_data, inrflow_command):
    outcome = inrflow_command("inspect", tiny_data[0])
    assert outcome.code == 0 and len(outcome.out.splitlines()) < 30
    for text in ("12 trajectories x 8 frames x 64 points x 2 channels", "translation_x", "wave"):
        assert text in " ".join(outcome.out.split())


def test_a_finished_run_tells_data_model_validation_and_errors(tiny_run, inrflow_command):
    outcome = inrflow_command("inspect", tiny_run.run)
    text = " ".join(outcome.out.split())
    assert outcome.code == 0 and len(outcome.out.splitlines()) < 40
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


@pytest.mark.parametrize("content", ["{", "[]", '{"mse": 1}'])
def test_a_damaged_report_is_named(content, tiny_run, tmp_path, inrflow_command):
    (tmp_path / "evaluation.json").write_text(content)
    outcome = inrflow_command("inspect", tmp_path)
    assert outcome.code == 2 and "evaluation.json" in outcome.err and len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("nowhere",), (".",)])
def test_what_is_neither_file_nor_run_is_one_clear_line(arguments, elsewhere, inrflow_command):
    outcome = inrflow_command("inspect", *arguments)
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1 and not outcome.out
