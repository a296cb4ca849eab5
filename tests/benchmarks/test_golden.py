"""The comparison of golden runs: what counts as worse."""

import pytest

from benchmarks import golden

OLD = {
    "exit_code": 0, "cpu": 10.0, "memory": 500.0, "1 train mse.in_t": 2e-5, "1 train nmse.in_t": 1e-4,
    "1 train coverage_90": 0.93, "1 train code_size": 20,
}


def worse(moved=None, old=OLD, **changes):
    """Names of the figures that are worse after changes."""
    new = {**old, **changes}
    return [key for key, *_, is_worse in golden.compare(old, new, moved or {}) if is_worse]


@pytest.mark.parametrize("key, allowed, too_much", [
    ("exit_code", 0, 1),
    ("cpu", 10.9, 11.1),
    ("memory", 549, 551),
    ("1 train mse.in_t", 2.01e-5, 2.03e-5),
    ("1 train mse.in_t", 1e-7, float("nan")),
    ("1 train coverage_90", 0.939, 0.945),
    ("1 train coverage_90", 0.862, 0.855),
    ("1 train code_size", 20, 21),
])
def test_figures_beyond_their_tolerance_are_worse(key, allowed, too_much):
    assert worse(**{key: allowed}) == [] and worse(**{key: too_much}) == [key]


def test_a_missing_figure_is_worse_and_a_new_one_is_not_compared():
    new = {key: value for key, value in OLD.items() if key != "memory"} | {"2 evaluate mse.all": 1.0}
    assert [row[0] for row in golden.compare(OLD, new, {}) if row[-1]] == ["memory"]


def test_errors_may_move_twice_as_far_as_rounding_moves_them():
    key, moved = "1 train mse.in_t", {"1 train mse.in_t": 0.05}
    assert worse(moved, **{key: 2.19e-5}) == [] and worse(moved, **{key: 2.21e-5}) == [key]


def test_errors_of_single_precision_may_differ_by_a_factor():
    old = {"1 train mse.in_t": 5e-15, "1 train nmse.in_t": 6e-14}
    assert worse(old=old, **{"1 train mse.in_t": 9.9e-15}) == []
    assert worse(old=old, **{"1 train mse.in_t": 1.1e-14}) == ["1 train mse.in_t"]


def test_every_data_file_of_a_case_can_be_made_or_is_given():
    names = set(golden.DATA) | {"run", "rows_train", "rows_test"}
    for case in golden.CASES.values():
        used = golden.re.findall(r"{(\w+)}", " ".join([case.arguments, *case.further]))
        assert set(used) <= names | {case.given}
