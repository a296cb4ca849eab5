"""Which folders an export may be written into."""

import pytest

from inrflow.commands.export import _free


@pytest.mark.parametrize(("names", "free"), [
    ([], True), (["decode.pt2", "points.csv", ".lock"], True),
    (["decode.pt2", "points.csv", "model.safetensors"], True), (["points.csv", "notes.txt"], False),
    (["model.safetensors"], False), (["decode.pt2", "README.md"], False),
])
def test_an_export_that_was_stopped_is_given_again_and_nothing_else_is_written_over(tmp_path, names, free):
    for name in names:
        (tmp_path / name).touch()
    assert _free(tmp_path) is free
