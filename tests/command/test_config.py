"""Run files: every shipped one opens; wrong keys, types and contradictions are refused with a cure."""

from __future__ import annotations

import pytest
from places import ROOT
from toy_model import make_domain

from weatherfm.earth.grid import regular_grid
from weatherfm.errors import InputError
from weatherfm.model.share import channel_shares
from weatherfm.training.parallel.layout import check_layout, resolve_layout
from weatherfm.training.run_config import load_run

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

SMALLEST = """
run: runs/x
data:
  store: runs/x/store.zarr
  source: {kind: planet}
  channels: [z500, t850]
  train: 2001-2002
  test: 2003-01-01/2003-06-30
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(SMALLEST)
    return path


def test_there_are_configs():
    assert {p.stem for p in CONFIGS} >= {"debug", "planet", "era_interim_europe", "era5_5p625deg"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_config_opens_and_survives_json(path):
    config = load_run(path)
    assert type(config).model_validate_json(config.model_dump_json()) == config
    cubes = config.data.source.kind == "cubes"  # they keep their crops apart themselves
    assert cubes or config.data.train is not None
    assert (config.data.source if cubes else config.data).test is not None


def test_the_layout_of_the_two_node_example_is_possible():
    config = load_run(next(path for path in CONFIGS if path.stem == "era5_1p40625deg_16gpus"))
    domain = make_domain(regular_grid((128, 256)), tuple(config.data.channels))
    layout = resolve_layout(config.parallel, 16)
    check_layout(layout, config.parallel, config.model, domain, config.training.batch_size)
    assert str(layout) == "shard2-tp8"
    shares = channel_shares(config.model, domain, layout.tp)
    assert {len(share.channels) for share in shares} == {config.data.channel_block}  # a device reads one block alone


def test_overrides_are_typed(file):
    config = load_run(file, ["model.depth=3", "data.channels=[z500]", "training.lead_times=[6h, 3d]", "data.test=2004"])
    assert config.model.depth == 3
    assert config.data.channels == ["z500"]
    assert config.training.lead_times == [6, 72]
    assert str(config.data.test) == "2004-01-01/2004-12-31"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dpeth=6", r"unknown key model\.dpeth; did you mean model\.depth\?"),
        ("modle.depth=6", r"unknown key modle; did you mean model\?"),
        ("data.source.sead=6", r"sead; did you mean .*seed\?"),
        ("model.aggregation.evaluat=tokens", r"did you mean model\.aggregation\.evaluate\?"),
        ("model.depth=deep", r"model\.depth: .*valid integer.*got 'deep'"),
        ("model.depth=0", r"model\.depth: .*greater than or equal to 1"),
        ("training.lead_times=[24]", r"training\.lead_times\.0: write a whole time span with its unit"),
        ("data.source.kind=ftp", r"data\.source: .*'files'"),
        ("data.channels=[z50O]", "unknown channel 'z50O'"),
        ("data.channels=[z500, z500]", "repeat z500"),
        ("data.test=2002", r"train \(2001-01-01/2002-12-31\) and test .* share days"),
        ("data.test=2004-2003", "ends .* before it starts"),
        ("data.test=someday", "write a period as"),
        ("data.test=2004-13", r"data\.test: month must be in 1\.\.12"),
        ("data.test=2004/2005/2006", "write a period as"),
        ("channels=[z500]", r"unknown key channels; did you mean data\.channels\?"),
        ("training.channel_weights={t2m: 2}", "names t2m, not among data.channels"),
        ("training.channel_weights={scheme: pressure, vo: 2}", "names vo, not among data.channels"),
        ("model.depth", "write section.key=value"),
        ("run.depth=3", "run is a value, not a section"),
        ("model.depth=[", "not valid YAML"),
        ("data.channels.two=t850", "data.channels.two: two is none of the [0-9]+ entries, which are counted from 0"),
    ],
)
def test_wrong_settings_are_refused_with_a_cure(file, override, message):
    with pytest.raises(InputError, match=message):
        load_run(file, [override])


def test_an_entry_of_a_list_is_changed_by_its_place(file):
    parts = "[{store: a.zarr, source: {kind: planet}}, {store: b.zarr, source: {kind: planet}, weight: 3}]"
    changed = load_run(file, [f"data.mix={parts}", "data.store=a.zarr", "data.mix.1.weight=2"])
    assert [weight for _, weight, _ in changed.data.parts()] == [1, 2]
    with pytest.raises(InputError, match=r"override data.mix.2.weight: 2 is none of the 2 entries"):
        load_run(file, [f"data.mix={parts}", "data.mix.2.weight=2"])


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("2004", "2004-01-01/2004-12-31"),
        ("2004-2005", "2004-01-01/2005-12-31"),
        ("2004/2005", "2004-01-01/2005-12-31"),
        ("2004-02", "2004-02-01/2004-02-29"),
        ("2004-02/2004-11", "2004-02-01/2004-11-30"),
        ("2004-03-05", "2004-03-05/2004-03-05"),
        ("2004-03-05 / 2005", "2004-03-05/2005-12-31"),
    ],
)
def test_periods_are_whole_years_months_and_days(file, text, days):
    assert str(load_run(file, [f"data.test={text}"]).data.test) == days


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no configuration file"):
        load_run(tmp_path / "none.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("a: [")
    with pytest.raises(InputError, match="not valid YAML"):
        load_run(path)
    path.write_text("- a")
    with pytest.raises(InputError, match="must hold"):
        load_run(path)
    path.write_text("run: x")
    with pytest.raises(InputError, match="data is missing"):
        load_run(path)
