from small_surrogates import law, seen

from inrflow.runtime.shown import counted, trajectories


def test_notebooks_show_the_law_and_the_domain_without_markup_of_files():
    surrogate = law()
    surrogate.training["equation"] = ["du/dt = 0.01 lap u", "<script>alert(1)</script>"]
    for thing in (surrogate, surrogate.assimilate(seen(surrogate))):
        shown = thing._repr_html_()
        assert "du/dt = 0.01 lap u" in shown and "x 0 to 2" in shown and "<script>" not in shown
        assert len(repr(thing)) < 200


def test_one_thing_is_no_several():
    assert [trajectories(count) for count in (1, 3, "?")] == ["1 trajectory", "3 trajectories", "? trajectories"]
    assert counted(1, "frame") == "1 frame" and counted(0, "frame") == "0 frames"
