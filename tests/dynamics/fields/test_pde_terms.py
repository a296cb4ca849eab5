"""Short lists of terms from what other physics need."""

from inrflow.dynamics.fields.pde_terms import Factor, known_libraries

U, V = Factor(0), Factor(1)


def test_known_terms_are_renamed_to_the_channels_and_axes_of_the_new_physics():
    found = known_libraries({"burgers": [(U, Factor(0, (0,)))], "wave": [(V,)]}, 1, 2)
    assert set(found["terms of burgers"]) == {(), (U, Factor(0, (0,))), (U, Factor(0, (1,)))}
    assert found["terms of wave"] == [(), (U,)]  # the only channel plays the part of the second


def test_terms_that_need_more_axes_than_there_are_are_left_out():
    found = known_libraries({"flow": [(Factor(0, (0, 1)),), (Factor(0, (0, 0)),)]}, 1, 1)
    assert found["terms of flow"] == [(), (Factor(0, (0, 0)),)]


def test_short_lists_come_first_and_none_twice():
    found = known_libraries({"heat": [(Factor(0, (0, 0)),)], "diffusion": [(Factor(0, (0, 0)),)]}, 2, 2)
    sizes = [len(terms) for terms in found.values()]
    assert sizes == sorted(sizes) and not any("diffusion" in name for name in found)
    assert {"terms of heat and stirring", "terms of heat and transport", "terms of heat and reactions"} < set(found)
    for terms in found.values():
        assert len({tuple(sorted(term)) for term in terms}) == len(terms)


def test_nothing_known_gives_no_list():
    assert known_libraries({}, 1, 2) == {}
