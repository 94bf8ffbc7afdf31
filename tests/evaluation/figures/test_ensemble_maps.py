"""Maps of the members of an ensemble."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from PIL import Image
from small_store import CHANNELS, EUROPE, SmallStore

from weatherfm.earth.grid import Grid
from weatherfm.errors import InputError
from weatherfm.evaluation.evaluate import evaluate
from weatherfm.evaluation.figures.maps.case import Case, EnsembleCase, load_ensemble_case
from weatherfm.evaluation.figures.maps.ensemble_maps import (
    chance_figure,
    member_maps,
    occurrence_figure,
    spread_figure,
    stamps_figure,
)
from weatherfm.evaluation.forecast_config import EvaluationConfig
from weatherfm.evaluation.forecasts.reader import ForecastFile
from weatherfm.evaluation.forecasts.writer import ForecastContents, ForecastWriter
from weatherfm.evaluation.metrics.events import parse_event
from weatherfm.evaluation.report import map_sections
from weatherfm.evaluation.report import page as page_module
from weatherfm.evaluation.report.page import write_report

LEADS = (24, 96)
INITS = slice(2, 8)


def written(path, store: SmallStore, members: int | None):
    """What comes, each member spoilt by a number of its own."""
    inits = store.times[INITS]
    numbers = None if members is None else tuple(range(members))
    writer = ForecastWriter(path, ForecastContents(CHANNELS, store.grid, inits, LEADS, {"name": "ens"}, numbers))
    for block in writer.remaining():
        for lead, hours in enumerate(LEADS):
            truth = store.state[np.searchsorted(store.times, inits[block]) + hours // 24]
            shifts = np.arange(members or 1, dtype=np.float32)[:, None, None, None]
            fields = truth[:, None] + shifts
            writer.write(block, lead, fields[:, 0] if members is None else fields)
        writer.block_done(block)
    writer.finish()
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(store, ensemble of five, path of it) over Europe."""
    store = SmallStore(EUROPE)
    path = written(tmp_path_factory.mktemp("members") / "ens.zarr", store, 5)
    return store, ForecastFile(path), path


def some_case(grid: Grid = EUROPE, members: int = 20, seed: int = 0) -> EnsembleCase:
    rng = np.random.default_rng(seed)
    warm = 275 + 10 * np.sin(np.deg2rad(4 * grid.longitude)) + np.zeros(grid.shape)
    fields = warm + 2 * rng.standard_normal((members, 1, 1)) + np.zeros(grid.shape)
    init = np.datetime64("2020-01-01", "s")
    return EnsembleCase(Case("t850", grid, init, 24, fields.mean(0), warm, members=members), fields)


def fills(figure: Figure) -> list[QuadContourSet]:
    """Of every map, what is filled."""
    found = [[c for c in axes.get_children() if isinstance(c, QuadContourSet) and c.filled] for axes in figure.axes]
    return [sets[0] for sets in found if sets]


def titles(figure: Figure) -> list[str]:
    return [text for axes in figure.axes if (text := axes.get_title("left") or axes.get_title())]


def test_members_of_a_case(made):
    store, file, _ = made
    case = load_ensemble_case(file, store, "t850", 96, file.init_times[1])
    truth = store.state[2 + 1 + 4, 1]
    np.testing.assert_array_equal(case.mean.truth, truth)
    np.testing.assert_allclose(case.members - truth, np.broadcast_to(np.arange(5.0)[:, None, None], case.members.shape),
                               atol=1e-3)  # fmt: skip
    np.testing.assert_allclose(case.mean.forecast, truth + 2, rtol=1e-6)
    np.testing.assert_allclose(case.spread, np.std(range(5), ddof=1), rtol=1e-4)


def test_a_single_forecast_has_no_members(made, tmp_path):
    single = ForecastFile(written(tmp_path / "single.zarr", made[0], None))
    with pytest.raises(InputError, match="single forecast, of which there are no members"):
        load_ensemble_case(single, made[0], "t850", 24, single.init_times[0])


def test_spread_begins_at_zero_and_names_units():
    figure = spread_figure(some_case())
    (drawn,) = fills(figure)
    assert drawn.levels[0] == 0
    assert drawn.levels[-1] >= some_case().spread.max()
    assert titles(figure) == ["Spread of 20 members"]
    assert figure.axes[-1].get_xlabel() == "Spread of temperature at 850 hPa [K]"
    assert fills(spread_figure(some_case(members=2)))  # and where all agree, a picture all the same
    same = some_case()
    flat = EnsembleCase(same.mean, np.repeat(same.members[:1], 3, axis=0))
    assert len(fills(spread_figure(flat))[0].levels) >= 2


@pytest.mark.parametrize(("members", "maps", "rows"), [(2, 3, 1), (5, 6, 2), (15, 16, 4), (50, 16, 4)])
def test_stamps_share_one_scale(members, maps, rows):
    case = some_case(members=members)
    figure = stamps_figure(case)
    drawn = fills(figure)
    assert len(drawn) == maps
    for one in drawn:
        np.testing.assert_array_equal(one.levels, drawn[0].levels)
    assert titles(figure)[:2] == ["Truth", f"Member 1 of {members}"]
    tops = {round(axes.get_position().y0, 3) for axes in figure.axes[:-1]}
    assert len(tops) == rows


def test_chance_is_the_share_of_members():
    """A tenth of the area on which three of four members are beyond the threshold."""
    case = some_case(members=4)
    truth = np.full(EUROPE.shape, 270.0)
    truth[:, :3] = 280
    fields = np.stack([truth, truth, truth, np.full(EUROPE.shape, 270.0)])
    case = EnsembleCase(Case("t850", EUROPE, case.mean.init_time, 24, fields.mean(0), truth, members=4), fields)
    event = parse_event("t850 > 275")
    figure = chance_figure(case, event)
    (drawn,) = fills(figure)
    assert np.nanmax(drawn.zmax) == 75
    assert drawn.zmin == 0
    assert drawn.levels[0] == 5
    assert titles(figure) == ["Chance of t850 > 1.85 °C"]
    assert figure.axes[-1].get_xlabel() == "Share of 4 members [%]; line: it happened"
    lines = [c for c in figure.axes[0].get_children() if isinstance(c, QuadContourSet) and not c.filled]
    assert [list(line.levels) for line in lines] == [[275.0]]
    weights = EUROPE.area_weights
    share = 100 * weights[:, :3].sum() / weights.sum()
    assert occurrence_figure(case, event).axes[-1].get_xlabel() == f"Where t850 > 1.85 °C: {share:.0f} % of the area"


@pytest.mark.parametrize("text", ["t850 > 320", "t850 < 320", "t850 > 200", "t850 < 200"])
def test_events_that_happen_nowhere_or_everywhere(text):
    case, event = some_case(), parse_event(text)
    everywhere = (">" in text) == ("200" in text)
    assert f"{100 if everywhere else 0} % of the area" in occurrence_figure(case, event).axes[-1].get_xlabel()
    assert fills(chance_figure(case, event))[0].zmax == (100 if everywhere else 0)


def test_masked_points_have_no_chance():
    case = some_case()
    hidden = np.zeros(EUROPE.shape, bool)
    hidden[:2] = True
    fields, truth = (np.where(hidden, np.nan, x) for x in (case.members, case.mean.truth))
    mean = Case("t850", EUROPE, case.mean.init_time, 24, fields.mean(0), truth, members=20)
    masked = EnsembleCase(mean, fields)
    event = parse_event("t850 < 280")
    for figure in (chance_figure(masked, event), occurrence_figure(masked, event), spread_figure(masked)):
        assert fills(figure)
    assert "% of the area" in occurrence_figure(masked, event).axes[-1].get_xlabel()


def test_pictures_for_the_page_are_small(made):
    store, file, _ = made
    events = [parse_event("z500 > 54000"), parse_event("t850 < 280")]
    found = member_maps(file, store, "t850", 96, file.init_times[0], events)
    assert [len(row) for row in found.panels] == [3, 2, 2]
    assert found.title.startswith("t850: 96 h forecast from")
    assert found.panels[1][0].text.startswith("Map of the chance of z500 > 54000, z500: 96 h forecast")
    pictures = [*(picture for row in found.panels for picture in row), found.stamps]
    sizes = [len(picture.address) for picture in pictures]
    assert sum(sizes) < 500_000
    for picture in pictures:
        Image.open(io.BytesIO(base64.b64decode(picture.address.partition(",")[2]))).verify()


def test_the_page_has_a_section_of_an_ensemble_only(made, tmp_path, monkeypatch):
    monkeypatch.setattr(map_sections, "shown_cases", lambda file, *others: ([], file.init_times[0]))
    monkeypatch.setattr(map_sections, "mean_error_maps", lambda *which: [])
    monkeypatch.setattr(map_sections, "animation", lambda cases, levels: None)
    monkeypatch.setattr(page_module, "draw", lambda groups, what: [])
    store, _, path = made
    settings = EvaluationConfig(events=["t850 > 280"], damped_persistence=False)
    out = write_report(evaluate(path, store, settings=settings), tmp_path / "page.html", path, store, channels=["t850"])
    text = out.read_text(encoding="utf-8")
    section = text[text.index('<section id="members">') :].partition("</section>")[0]
    assert '<a href="#members">' in text
    assert section.count("<img") == 6
    assert "t850: 96 h forecast from 2020-01-03 00 UTC" in section
    assert "The chance of an event is" in section
    single = written(tmp_path / "single.zarr", store, None)
    scores = evaluate(single, store, settings=settings)
    text = write_report(scores, tmp_path / "other.html", single, store).read_text(encoding="utf-8")
    assert "#members" not in text
