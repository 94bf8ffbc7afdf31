"""Which ranks share a copy of the kept fields, and how much memory there is for each copy."""

from __future__ import annotations

import pytest

from weatherfm.training.feeding.field_copies import Reader, assign_copies

ALL, HALF, REST = ("z500", "t850", "u10"), ("z500", "t850"), ("u10",)


def reader(machine="a", channels=ALL, available=800, space="1", processes=1) -> Reader:
    return Reader(machine, space, channels, available, processes)


def test_alone():
    (copy,) = assign_copies([reader()])
    assert (copy.sharers, copy.copies, copy.free) == ((0,), 1, 800)


def test_processes_that_only_the_launcher_knows_of_have_a_copy_each():
    (copy,) = assign_copies([reader(processes=4)])
    assert (copy.copies, copy.free) == (4, 200)


@pytest.mark.parametrize("processes", [1, 8], ids=["started by srun", "started by torchrun"])
def test_eight_ranks_of_a_machine_share_one_copy(processes):
    copies = assign_copies([reader(processes=processes)] * 8)
    assert {(copy.sharers, copy.copies, copy.free) for copy in copies} == {(tuple(range(8)), 1, 800)}


def test_ranks_with_other_channels_have_another_copy():
    copies = assign_copies([reader(channels=channels) for channels in (HALF, REST) * 2])
    assert [copy.sharers for copy in copies] == [(0, 2), (1, 3), (0, 2), (1, 3)]
    assert {(copy.copies, copy.free) for copy in copies} == {(2, 400)}


def test_machines_have_their_own():
    copies = assign_copies([reader("a"), reader("a"), reader("b", available=100), reader("b", available=90)])
    assert [(copy.sharers, copy.free) for copy in copies] == [((0, 1), 800)] * 2 + [((2, 3), 90)] * 2


def test_containers_of_a_machine_share_within_themselves():
    copies = assign_copies([reader(space=space) for space in "1212"])
    assert [(copy.sharers, copy.free) for copy in copies] == [((0, 2), 400), ((1, 3), 400)] * 2


def test_the_least_memory_that_a_rank_of_the_machine_found_counts_for_all():
    assert {copy.free for copy in assign_copies([reader(available=n) for n in (800, 500, 700)])} == {500}
