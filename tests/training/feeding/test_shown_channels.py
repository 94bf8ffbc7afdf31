"""What `training.channel_sampling` draws: its share in the mean, alike on every layout, by the batch's number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import toy_run
from toy_model import make_domain

from weatherfm.config import parse_settings
from weatherfm.errors import InputError
from weatherfm.model.present import present_inputs, present_now
from weatherfm.model.share import ChannelShare, channel_shares, whole
from weatherfm.training.feeding.channel_sampling import inputs_shown, shown_channels
from weatherfm.training.parallel.role import Role
from weatherfm.training.run_config import RunConfig, TrainingConfig


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 1.0])
def test_the_mean_over_samples_is_the_share(share):
    shown = np.concatenate([shown_channels(share, 0, batch, (32, 200)) for batch in range(100)])
    by_sample = shown.mean(1)
    # a sample's share is uniform: its standard deviation is a twelfth's root of the width, at most 0.29; 3200 samples
    assert by_sample.mean() == pytest.approx(share, abs=0.02)
    assert by_sample.min() >= max(0.0, 2 * share - 1) - 0.15
    np.testing.assert_allclose(shown.mean(0), share, atol=0.04)  # no channel more than another


def test_shares_go_from_few_to_all():
    by_sample = np.concatenate([shown_channels(0.5, 1, batch, (32, 100)) for batch in range(100)]).mean(1)
    counts, _ = np.histogram(by_sample, bins=10, range=(0, 1))
    assert counts.min() > 0.07 * len(by_sample)


def test_every_sample_shows_a_channel():
    for share in (1e-9, 0.05):
        shown = shown_channels(share, 0, 0, (500, 4))
        assert shown.any(1).all()
    assert set(shown_channels(1e-9, 0, 0, (500, 4)).sum(1)) == {1}


def test_what_is_drawn_follows_from_seed_and_batch_alone():
    first = shown_channels(0.5, 3, 7, (8, 20))
    np.testing.assert_array_equal(first, shown_channels(0.5, 3, 7, (8, 20)))
    for other in (shown_channels(0.5, 4, 7, (8, 20)), shown_channels(0.5, 3, 8, (8, 20))):
        assert (other != first).any()


def run_of(tmp_path, **training) -> RunConfig:
    settings = toy_run.run_settings(tmp_path, batch_size=8, **training)
    settings["model"] |= {"input_times": ["-6h", "0h"], "forcings": ["latitude"]}
    return parse_settings(RunConfig, settings, "test")


def test_ranks_together_show_what_one_process_shows(tmp_path):
    config = run_of(tmp_path, channel_sampling=0.5)
    domain = make_domain(channels=("z500", "t850", "u10"), static=2)
    all_of_it = whole(config.model, domain)
    alone = list(inputs_shown(config, Role(None, all_of_it, (0, 1), 1, all_of_it), 5, 8))
    names = all_of_it.input_names(config.model.input_times)
    for count, tp in [(1, 2), (2, 1), (4, 3)]:
        for part in range(count):
            for share in channel_shares(config.model, domain, tp):
                own = [names.index(name) for name in share.input_names(config.model.input_times)]
                given = list(inputs_shown(config, Role(None, share, (part, count), 1, all_of_it), 5, 8))
                rows = slice(part * 8 // count, (part + 1) * 8 // count)
                assert all(torch.equal(a[rows][:, own], b) for a, b in zip(alone, given, strict=True))
    # a run that goes on begins in the middle
    late = list(inputs_shown(config, Role(None, all_of_it, (0, 1), 1, all_of_it), 7, 8))
    assert torch.equal(late[0], alone[2])


def test_all_times_of_a_channel_go_together_and_constant_fields_stay(tmp_path):
    config = run_of(tmp_path, channel_sampling=0.3)
    domain = make_domain(channels=("z500", "t850", "u10"), static=2)
    all_of_it = whole(config.model, domain)
    (shown,) = inputs_shown(config, Role(None, all_of_it, (0, 1), 1, all_of_it), 0, 1)
    assert shown.shape == (8, 2 * 3 + 2 + 1)
    assert torch.equal(shown[:, :3], shown[:, 3:6])
    assert shown[:, 6:].all()
    assert 0 < shown[:, :3].float().mean() < 1


def test_the_present_is_that_of_the_initial_time():
    share = ChannelShare(("z500", "t850"), ("orography",), ("latitude", "lsm"))
    present = present_inputs(torch.tensor([[[True, False], [False, True]]]), share)  # of [B, T, C]
    assert present.tolist() == [[True, False, False, True, True, True, True]]
    assert present_now(present, [-24, 0], share).tolist() == [[False, True]]
    assert present_now(present, [0, -24], share).tolist() == [[True, False]]


def test_without_the_setting_everything_is_shown_and_nothing_recorded(tmp_path):
    config = run_of(tmp_path)
    all_of_it = whole(config.model, make_domain())
    assert inputs_shown(config, Role(None, all_of_it, (0, 1), 1, all_of_it), 0, 4) is None
    assert "channel_sampling" not in config.training.model_dump()
    assert run_of(tmp_path, channel_sampling=0.5).training.model_dump()["channel_sampling"] == 0.5


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan"), "half"])
def test_shares_refused(share):
    with pytest.raises(InputError, match="channel_sampling"):
        parse_settings(TrainingConfig, {"channel_sampling": share}, "training")
