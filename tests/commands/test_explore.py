"""The page on a run: what it shows as arrays, its controls, and a person's path in a browser where one is installed."""

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_surrogates import law, seen

from inrflow import Surrogate
from inrflow.commands.explore import run
from inrflow.commands.explore.answers import ERROR, RATE, SPREAD, VALUE, Explored
from inrflow.commands.run_directory import RunDirectory
from inrflow.data.formats.sphere import lonlat_to_xyz
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.domains.base import Domain
from inrflow.dynamics.flow import Dynamics
from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.field import Ahead, ChannelField, Decay, ResidualField
from inrflow.encoding.residual.places import Places
from inrflow.errors import UserError


@pytest.fixture(scope="module")
def explored(tiny_run):
    return Explored(Surrogate.load(tiny_run.run), tiny_run.test)


def table(path, trajectory=1):
    """The first frame of a trajectory as CSV."""
    with TrajectoryFile(path) as file:
        frames = file.read(trajectory, [0])
    rows = [f"{frames.t[0]},{x},{y},{u},{v}" for (x, y), (u, v) in zip(frames.x, frames.u[0], strict=True)]
    return "\n".join(["t,x,y,u,v", *rows]).encode()


def test_fields_are_answers_of_the_solution_on_a_grid(explored, tiny_run):
    solution, frames = explored.solution("1")
    window = np.array([[0.1, 0.2], [0.5, 0.7]])
    view = explored.view("1", 0.3, 1, VALUE, window)
    assert view.shape == (100, 100) and view.places[0].tolist() == [0.1, 0.2]
    chosen = np.array([0, 57, 9999])
    assert np.allclose(view.values[chosen], solution(0.3, view.places[chosen])[:, 1], atol=1e-5)
    assert explored.view("1", 0.3, 0, SPREAD, window).values.min() > 0
    slope = explored.view("1", 0.3, 0, "d/dy", window).values[chosen]
    assert np.allclose(slope, solution.derivatives(0.3, view.places[chosen])["dx"][:, 0, 1], atol=1e-4)
    rate = explored.view("1", 0.3, 0, RATE, window).values[chosen]
    assert np.allclose(rate, solution.derivatives(0.3, view.places[chosen])["dt"][:, 0], atol=1e-4)
    missed = explored.view("1", float(frames.t[2]) + 1e-3, 0, ERROR, window)
    assert np.allclose(missed.values, solution(float(frames.t[2]), frames.x)[:, 0] - frames.u[2, :, 0], atol=1e-5)
    assert "extrapolation" in explored.view("1", 2.0, 0, VALUE, window).words


@pytest.mark.parametrize("place", ["mesh", "sphere"])
def test_places_of_a_picture_are_decoded_once_for_all_times(place, tmp_path, monkeypatch):
    surrogate = law(place)
    frames = seen(surrogate, frames=3).frames()
    write_trajectories(tmp_path / "a.h5", frames.t, frames.x, frames.u[None], surrogate.description)
    shown = Explored(surrogate, tmp_path / "a.h5")
    first = shown.view("0", 0.1, 0, VALUE, shown.box)
    chosen = np.flatnonzero(np.isfinite(first.values))[::97]
    expected = shown.solution("0")[0](0.2, shown._points(first.places[chosen]))[:, 0]
    for name in ("basis", "forward"):
        monkeypatch.setattr(type(surrogate.decoder), name, None)
    later = shown.view("0", 0.2, 0, VALUE, shown.box).values[chosen]
    np.testing.assert_allclose(later, expected, atol=1e-6 * np.abs(expected).max())
    assert not np.allclose(first.values[chosen], later)


@pytest.mark.parametrize("place", ["mesh", "sphere", "walls"])
def test_pictures_of_other_domains_leave_out_what_lies_outside(place, tmp_path):
    surrogate = law(place)
    frames = seen(surrogate, frames=3).frames()
    write_trajectories(tmp_path / "a.h5", frames.t, frames.x, frames.u[None], surrogate.description)
    shown = Explored(surrogate, tmp_path / "a.h5")
    window = shown.box + np.array([[-1.0], [1.0]]) * (place == "mesh")
    view = shown.view("0", 0.1, 0, VALUE, window)
    known = np.isfinite(view.values)
    assert view.shape == (None if place == "walls" else (100, 100)) and 0.1 < known.mean() <= 1
    assert known.all() == (place != "mesh")
    assert place != "mesh" or shown.series("0", window[1], 0)["outside"].all()
    assert len(shown.view("0", 0.1, 0, ERROR, window).values) == frames.x.shape[0]
    if place == "sphere":
        assert shown.axes == ("longitude", "latitude") and np.abs(shown.box[:, 1]).max() <= 90


@pytest.mark.parametrize("place", ["land", "chance", "scattered"])
def test_land_is_left_open_but_not_points_that_lack_by_chance(place, explored, tiny_run, tmp_path):
    random, (low, high) = np.random.default_rng(0), explored.box
    x = np.stack(np.meshgrid(*[np.linspace(0.0, 1.0, 24)] * 2, indexing="ij"), -1).reshape(-1, 2)
    x = random.uniform(0, 1, (900, 2)) if place == "scattered" else x
    missing = (np.abs(x - 0.5) < 0.2).all(1) if place != "chance" else random.uniform(size=len(x)) < 0.3
    solution, frames = explored.solution("0")
    x = low + x * (high - low)
    u = np.where(missing[:, None], np.nan, solution.frames(frames.t[:2], x))
    write_trajectories(tmp_path / "a.h5", frames.t[:2], x, u[None], explored.about)
    view = Explored(Surrogate.load(tiny_run.run), tmp_path / "a.h5", 1).view("0", 0.1, 0, VALUE, explored.box)
    away = np.abs((view.places - low) / (high - low) - 0.5).max(1)
    assert np.isfinite(view.values[away > 0.24]).all()
    assert np.isnan(view.values[away < 0.08]).all() == (place != "chance")


def test_a_slice_of_space_lies_at_points_of_the_data_and_says_where(explored):
    _, frames = explored.solution("0")
    x = np.column_stack([np.repeat(frames.x, 3, 0), np.tile([0.0, 0.4, 1.0], len(frames.x))])
    slices = Explored.__new__(Explored)
    slices.about, slices.on_sphere = SimpleNamespace(coordinates=("x", "y", "z")), False
    slices._seen = {"0": (None, SimpleNamespace(x=x))}
    assert slices.further == {"z": 0.4}
    np.testing.assert_allclose(slices._points(np.array([[0.1, 0.2]])), [[0.1, 0.2, 0.4]])
    assert explored.further == {}


def with_residual(folder):
    """The page's answers on a model of a mesh with a residual field, given three frames that codes do not explain."""
    surrogate = law("mesh")
    covariance = Covariance.of(Form((1.5,), 0.5, (0, 1), (True, True)), [0.1, 1.0], [5.0, 5.0], 0.05, [[0.5, 0.4]])
    surrogate.residual = ResidualField(Places((0.0, 0.0)), (ChannelField(covariance, observed=Ahead(Decay(4.0))),))
    frames = seen(surrogate, frames=3).frames()
    u = frames.u + np.random.default_rng(1).standard_normal(frames.u.shape)
    write_trajectories(folder / "a.h5", frames.t, frames.x, u[None], surrogate.description)
    return Explored(surrogate, folder / "a.h5", observe=3)


def test_pictures_while_a_slider_moves_come_from_few_nodes_of_a_residual_field_and_are_near_the_exact_ones(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("inrflow.commands.explore.answers._QUICK", 60.0)  # fewer nodes are for busy machines
    shown = with_residual(tmp_path)
    asked, flights, searches = [], [], []
    solution = shown.solution("0")[0]
    conditioned = solution.estimate.residual[0]
    own, flow, inside = conditioned.own, Dynamics.flow, Domain.inside
    conditioned.own = lambda c, t, x: asked.append(len(t)) or own(c, t, x)
    monkeypatch.setattr(Dynamics, "flow", lambda *given: flights.append(1) or flow(*given))
    monkeypatch.setattr(Domain, "inside", lambda self, x: searches.append(len(x)) or inside(self, x))
    for quantity, apart in ((VALUE, 0.1), (RATE, 0.2), ("d/dx", 0.2), (SPREAD, 0.05)):
        exact, quick = (shown.view("0", 0.33, 0, quantity, shown.box, one).values for one in (False, True))
        known = np.isfinite(exact)
        assert np.array_equal(known, np.isfinite(quick)) and np.ptp(exact[known]) > 0.1
        assert np.abs(quick - exact)[known].mean() < apart * exact[known].std()
    assert searches == [100 * 100]  # which places of a window are outside is known
    asked.clear()
    flights.clear()
    shown.view("0", 0.37, 0, VALUE, shown.box, True)
    assert 0 < sum(asked) <= 40 * 40 and len(flights) == 1


def test_series_hold_an_interval_and_what_was_observed_nearby(explored):
    _, frames = explored.solution("0")
    series = explored.series("0", frames.x[5] + 1e-3, 1)
    assert (series["low"] < series["middle"]).all() and (series["middle"] < series["high"]).all()
    assert np.array_equal(series["seen"], frames.u[:, 5, 1]) and series["t"][-1] > frames.t[-1]
    assert not series["outside"].any()


def test_other_runs_and_reference_forecasts_take_the_place_of_the_model(tiny_run):
    other = Surrogate.load(tiny_run.run)
    other.normalisation.scale *= 2  # another model
    references = RunDirectory(tiny_run.run).references()
    shown = Explored(Surrogate.load(tiny_run.run), tiny_run.test, None, None, {"half": other}, references)
    window, last = shown.box, shown.solution("1")[1].t[shown.observe - 1]
    own = shown.view("1", 0.3, 0, VALUE, window).values
    shown.model = "half"
    assert not np.allclose(shown.view("1", 0.3, 0, VALUE, window).values, own)
    assert {"this run", "half", "persistence", "POD + DMD"} <= set(shown.models)
    shown.model = shown.models["persistence"]
    frames = shown._observed("1")[1]
    assert last < frames.t[-1]
    for later in (last + 0.07, frames.t[-1]):
        kept = shown.view("1", later, 1, VALUE, window)
        assert np.array_equal(kept.places, frames.x) and np.array_equal(kept.values, frames.u[shown.observe - 1, :, 1])
    missed = shown.view("1", frames.t[-1], 1, ERROR, window)
    np.testing.assert_allclose(missed.values, frames.u[shown.observe - 1, :, 1] - frames.u[-1, :, 1], atol=1e-6)
    series = shown.series("1", frames.x[5], 1)
    assert np.array_equal(series["low"], series["high"]) and series["middle"][-1] == frames.u[shown.observe - 1, 5, 1]
    with pytest.raises(UserError, match="only at the points of the data"):
        shown.view("1", 0.3, 0, SPREAD, window)
    shown.model = "pod_dmd"
    assert np.isfinite(shown.view("1", frames.t[-1] + 0.1, 0, VALUE, window).values).all()


def test_a_table_is_assimilated_and_a_wrong_or_large_one_refused(explored, tiny_run, monkeypatch):
    name = explored.assimilate("mine.csv", table(tiny_run.test))
    assert name in explored.names
    window = explored.box
    given, known = (explored.view(one, 0.2, 0, VALUE, window).values for one in (name, "1"))
    assert np.allclose(given, known, atol=1e-4)
    with pytest.raises(UserError, match="mine.csv"):
        explored.assimilate("mine.csv", b"a,b\n1,2\n")
    monkeypatch.setattr("inrflow.commands.explore.answers.MOST_BYTES", 10)
    with pytest.raises(UserError, match="at most"):
        explored.assimilate("mine.csv", table(tiny_run.test))


def test_controls_draw_anew_and_names_are_no_markup(explored, tiny_run):
    pytest.importorskip("panel")
    from inrflow.commands.explore.page import Page, _words

    page = Page(explored)
    before = page.image.data["image"][0].copy()
    page.time.value = page.time.end / 2
    assert not np.array_equal(page.image.data["image"][0], before)
    page.quantity.value = ERROR
    assert len(page.points.data["value"]) == 64 and not len(page.image.data["image"])
    page.channel.value = "v"
    assert page.title.text.startswith("v at") and page.bar.title == ""
    units = replace(explored.about, units=("m", "m/s<"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explored, "about", units)
        page.refresh()
        assert page.bar.title == page.curve.yaxis[0].axis_label == "m/s&lt;"
    page.file.param.update(value=table(tiny_run.test), filename="<b>.csv")
    page._zoomed(SimpleNamespace(x0=0.1, x1=0.5, y0=0.2, y1=0.7))  # of a wheel that was turned before
    assert page.trajectory.value.startswith("table") and "&lt;b&gt;.csv" in page.given.object
    page.file.param.update(value=b"nonsense", filename="x.csv")
    assert "#b00020" in page.given.object
    assert _words("<script>\x1b[1m") == "&lt;script&gt;\\x1b[1m"


def test_a_map_across_the_meridian_of_its_longitudes_end_is_in_one_piece(tmp_path):
    surrogate = law("sphere")
    lon, lat = (axis.ravel() for axis in np.meshgrid(np.r_[340:360:5, 0:25:5], np.arange(10.0, 50, 5)))
    x = lonlat_to_xyz(lon, lat)
    write_trajectories(tmp_path / "a.h5", np.arange(3) * 0.1, x, np.random.default_rng(0).normal(
        size=(1, 3, len(x), len(surrogate.description.channels))), surrogate.description)
    shown = Explored(surrogate, tmp_path / "a.h5")
    assert shown.box[:, 0] == pytest.approx([-20, 20])
    errors = shown.view("0", 0.1, 0, ERROR, shown.box)
    assert (errors.places >= shown.box[0] - 1e-6).all() and (errors.places <= shown.box[1] + 1e-6).all()


def test_times_that_are_dates_are_shown_as_dates_and_few_places_as_markers(tmp_path):
    pytest.importorskip("panel")
    from inrflow.commands.explore.page import Page

    surrogate = law("mesh")
    surrogate.description = replace(surrogate.description, time_units="days since 2020-02-28")
    frames = seen(surrogate, frames=3).frames()
    write_trajectories(tmp_path / "a.h5", frames.t, frames.x, frames.u[None], surrogate.description)
    page = Page(Explored(surrogate, tmp_path / "a.h5"))
    page.time.value = 1.5
    assert "2020-02-29 12:00" in page.time.name and not page.time.show_value
    assert page.now.data["t"][0] == page._on_axis(1.5) == np.datetime64("2020-02-29T12:00")
    assert page.band.data["t"].dtype.kind == "M"
    assert np.array_equal(np.column_stack([page.stations.data["x"], page.stations.data["y"]]), frames.x)


def test_files_of_users_are_shown_as_they_are(tiny_run, tmp_path, monkeypatch):
    page = pytest.importorskip("panel") and pytest.importorskip("inrflow.commands.explore.page")
    with TrajectoryFile(tiny_run.test) as file:
        frames = file.read(1)
    rows = [f"{t},{x},{y},{u},{v}" for t, values in zip(frames.t, frames.u, strict=True)
            for (x, y), (u, v) in zip(frames.x, values, strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(["t,x,y,u,v", *rows]))
    shown = []
    monkeypatch.setattr(page, "serve", lambda explored, *_: shown.append(explored.solution("0")))
    assert run([f"run={tiny_run.run}", f"data.test={tmp_path / 'mine.csv'}"]) == 0
    ((_, found),) = shown
    order, own = (np.lexsort(one.T) for one in (found.x, frames.x))
    np.testing.assert_allclose(found.u[:, order], frames.u[:, own], rtol=1e-6)
    with pytest.raises(UserError, match=r"gone\.h5"):
        run([f"run={tiny_run.run}", f"data.test={tmp_path / 'gone.h5'}"])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_person_drags_time_clicks_zooms_and_gives_a_table(tiny_run, tmp_path):
    pytest.importorskip("panel")
    sync_api = pytest.importorskip("playwright.sync_api")
    (tmp_path / "mine.csv").write_bytes(table(tiny_run.test))
    command = [sys.executable, "-m", "inrflow", "explore", f"run={tiny_run.run}", "port=0", "show=false"]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=quiet)
    assert server.stderr is not None
    try:
        address = next(line for line in server.stderr if "http://" in line).split("at ")[1].split()[0]
        assert address.startswith("http://127.0.0.1:")
        with sync_api.sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1100, "height": 860})
            strange = []
            page.on("request", lambda r: strange.append(r.url) if r.url[:4] == "http" and address not in r.url else 0)
            page.on("pageerror", lambda error: strange.append(str(error)))
            page.goto(address)
            page.wait_for_selector("text=answered in", timeout=90_000)
            handle = page.locator(".noUi-handle").first
            handle.focus()
            page.keyboard.press("ArrowRight")
            page.wait_for_selector("text=/time: *0?.0[1-9]/", timeout=90_000)
            page.get_by_label("model").select_option("persistence")
            page.wait_for_selector("text=persistence, at the points of the data", timeout=90_000)
            if folder := os.environ.get("SCREENSHOTS"):
                page.screenshot(path=f"{folder}/explore_persistence.png")
            page.get_by_label("model").select_option("this run")
            canvas = page.locator("canvas").first.bounding_box()
            page.mouse.click(canvas["x"] + 200, canvas["y"] + 150)
            page.mouse.wheel(0, -600)
            page.set_input_files("input[type=file]", str(tmp_path / "mine.csv"))
            page.wait_for_selector("text=mine.csv is assimilated and shown as table 1", timeout=90_000)
            if folder := os.environ.get("SCREENSHOTS"):
                page.screenshot(path=f"{folder}/explore.png")
            browser.close()
        assert strange == []
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_drag_over_a_model_with_a_residual_field_is_answered_at_once(tmp_path):
    pn = pytest.importorskip("panel")
    sync_api = pytest.importorskip("playwright.sync_api")
    from inrflow.commands.explore.page import Page

    page_of = Page(with_residual(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = pn.serve(lambda: page_of.layout, address="127.0.0.1", port=port, show=False, threaded=True, verbose=False)
    try:
        with sync_api.sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1100, "height": 860})
            page.goto(f"http://127.0.0.1:{port}")
            page.wait_for_selector("text=answered in", timeout=90_000)
            bar = page.locator(".noUi-base").first.bounding_box()
            page.mouse.move(bar["x"] + 2, bar["y"] + 3)
            page.mouse.down()
            took, at = [], set()
            for share in np.linspace(0.05, 0.95, 24):
                page.mouse.move(bar["x"] + share * bar["width"], bar["y"] + 3, steps=2)
                page.wait_for_timeout(150)
                took.append(float(page.locator("text=answered in").first.inner_text().split()[2]))
                at.add(page_of.time.value)
            page.mouse.up()
            browser.close()
        assert len(at) > 12 and np.quantile(took, 0.25) < 100  # the exact picture takes four times as long
    finally:
        server.stop()
