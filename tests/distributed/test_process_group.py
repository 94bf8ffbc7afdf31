"""How ranks rendezvous, how one of them speaks for all, and how who is missing is found out."""

from __future__ import annotations

import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from jobs import by_hand
from spawn_ranks import spawn
from torch.distributed import HashStore

from weatherfm.errors import InputError, OutsideError, QuietExit, StopRequest
from weatherfm.training.checkpoints import resume
from weatherfm.training.ranks import first_failure
from weatherfm.training.ranks.coordination import Coordination
from weatherfm.training.ranks.heartbeat import Heartbeat, describe, gone_ranks, late_ranks, locate, write_heartbeat
from weatherfm.training.ranks.heartbeat_monitor import HeartbeatMonitor
from weatherfm.training.ranks.job import Job, join_job
from weatherfm.training.ranks.neighbour import Neighbour
from weatherfm.training.ranks.process_group import join
from weatherfm.training.ranks.rendezvous import rendezvous
from weatherfm.training.ranks.watchdog import Watchdog

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """No launcher, and SIGTERM, which a rank that has failed ignores, as it was."""
    monkeypatch.delenv("RANK", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


# Meeting -------------------------------------------------------------------------------------------------------


def all_meet(store, world=3):
    with ThreadPoolExecutor(world) as threads:
        return list(threads.map(lambda rank: rendezvous(store, rank, world, 60), range(world)))


def test_ranks_meet_in_a_corner_of_their_own_at_every_start():
    store = HashStore()
    for start in range(3):  # the same store over restarts, as torchrun keeps it
        namespaces, hosts = zip(*all_meet(store), strict=True)
        assert not namespaces[0].check(["left behind"])
        namespaces[1].set("left behind", str(start))
        assert [namespace.get("left behind") for namespace in namespaces] == [str(start).encode()] * 3
        assert len(hosts[2]) == 3


def test_one_rank_needs_no_other():
    namespace, hosts = rendezvous(HashStore(), 0, 1, 60)
    assert namespace.get("host0").decode() == hosts[0]


@pytest.mark.parametrize(("rank", "message"), [(0, "2 of 3 ranks did not start in time: 1, 2"), (1, "rank 0 did not")])
def test_who_does_not_come_is_named(rank, message):
    with pytest.raises(OutsideError, match=message):
        rendezvous(HashStore(), rank, 3, 0.2)


def test_nobody_at_the_address(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("weatherfm.training.ranks.job.START_TIMEOUT", 0.5)
    with pytest.raises(OutsideError, match="rank 1 cannot reach rank 0 at localhost:1"), join_job():
        pass


# Alone, or in a group that is there already ------------------------------------------------------------------------


def test_alone_there_is_no_process_group():
    with join(CPU, 60) as job:
        assert (job.rank, job.world, job.first) == (0, 1, True)
        assert job.first_checks(lambda: 7) == 7
        job.beat(3)
        assert not dist.is_initialized()


def test_alone_errors_pass_as_they_are():
    error = InputError("wrong")
    with pytest.raises(InputError) as caught, join(CPU, 60):
        raise error
    assert caught.value is error
    assert not hasattr(error, "__notes__")


def test_inside_a_job_it_is_the_same_job():
    with join_job() as outer, join(CPU, 60) as inner:
        assert inner is outer
    with join_job() as later:
        assert later is not outer


def test_a_rank_that_ends_quietly_leaves_no_thread_behind():
    """Python aborts when it ends while a thread of its is in the store's code ("terminate called without ...")."""
    job = Job(1, 2, 1, ("here", "here"), HashStore())
    job.watch(60)
    watching = [thread for thread in threading.enumerate() if thread.name == "heartbeat"]
    assert len(watching) == 1
    error = QuietExit(2)
    assert job.error_to_raise(error) is error
    assert not watching[0].is_alive()


def in_a_group(rank):
    with join(CPU, 60) as job:
        seen = (job.rank, job.world, job.first_checks(lambda: rank))
    dist.barrier()  # the group is still there
    return seen


def test_a_group_that_is_there_is_used():
    assert spawn(2, in_a_group) == [(0, 2, 0), (1, 2, 1)]


def asked_on_one_rank(rank):
    def look():
        if rank == 1:
            raise StopRequest("SIGUSR1")

    with pytest.raises(StopRequest) as caught:
        Coordination().all_do(look)
    Coordination().barrier()
    return str(caught.value)


def test_a_stop_asked_of_one_rank_is_one_of_all():
    assert spawn(2, asked_on_one_rank) == ["SIGUSR1", "SIGUSR1"]


def identity_on(rank):
    beats = []

    def find(config, store, dtype, record, alive, start):
        alive()
        return {"found by": rank}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "find_identity", find)
        found = resume.agree_on_identity(None, None, torch.float32, None, lambda: beats.append(1), None)
        return found, len(beats)


def test_no_rank_is_silent_while_the_identity_is_found():
    assert spawn(2, identity_on) == [({"found by": 0}, 1)] * 2


def test_started_by_hand(tmp_path):
    assert [job.end() for job in by_hand("finished", tmp_path, 2)] == [(0, []), (0, [])]


# Who speaks --------------------------------------------------------------------------------------------------------


def test_the_first_to_fail_speaks():
    store = HashStore()
    assert first_failure.failure_status(store) is None
    assert first_failure.claim_failure(store, 2, 2) is None
    assert first_failure.claim_failure(store, 0, 1) == 2
    assert first_failure.claim_failure(store, 2, 1) == 2  # also against itself: a rank has two threads
    assert first_failure.failure_status(store) == 2


def test_the_others_wait_until_it_has_spoken():
    store = HashStore()
    began = time.monotonic()
    first_failure.await_report(store, 0.3)
    assert time.monotonic() - began >= 0.3
    first_failure.mark_reported(store)
    first_failure.await_report(store, 1e9)


@pytest.mark.parametrize(
    ("error", "status"), [(InputError("x"), 2), (KeyboardInterrupt(), 130), (RuntimeError("x"), 1), (OSError(), 1)]
)
def test_statuses_are_those_of_the_command(error, status):
    assert first_failure.exit_status(error) == status


def test_loss_of_a_peer_is_told_from_faults_of_its_own():
    wrapped = ValueError("the checkpoint could not be written")
    wrapped.__cause__ = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5")
    assert first_failure.is_loss_of_a_peer(wrapped)
    assert first_failure.is_loss_of_a_peer(dist.DistBackendError("NCCL communicator was aborted"))
    assert not first_failure.is_loss_of_a_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not first_failure.is_loss_of_a_peer(InputError("gloo"))


def test_a_verdict_leaves_one_speaker():
    store = HashStore()
    first, second = (Job(rank, 2, rank, ("a", "b"), store) for rank in range(2))
    error = InputError("no store at /data")
    assert second.error_to_raise(error) is error
    assert error.__notes__ == ["(on rank 1, b)"]
    quiet = first.error_to_raise(RuntimeError("Connection closed by peer"))
    assert isinstance(quiet, QuietExit)
    assert quiet.status == 2
    assert first.error_to_raise(quiet) is quiet


# Who is missing ----------------------------------------------------------------------------------------------------


def heartbeat(beats=5, step=16, place="weatherfm.training.trainer:200 (_step)", waits=True, done=False):
    return Heartbeat(beats, step, 1000.0, place, waits, done)


def test_gone_is_who_tells_nothing_new():
    assert gone_ranks([heartbeat(1), heartbeat(1), None], [heartbeat(2), heartbeat(1), None]) == [1, 2]
    assert gone_ranks([heartbeat(1), None], [heartbeat(2), heartbeat(1)]) == []
    assert gone_ranks([heartbeat(1, done=True)], [heartbeat(1, done=True)]) == []


def test_a_neighbour_is_silent_only_once_it_has_spoken_and_while_it_is_at_work():
    store = HashStore()
    neighbour = Neighbour(store, 2, 3)
    assert [neighbour.silent_looks() for _ in range(3)] == [0, 0, 0]  # rank 0 may still be starting
    write_heartbeat(store, 0, heartbeat(1))
    assert [neighbour.silent_looks() for _ in range(3)] == [0, 1, 2]
    write_heartbeat(store, 0, heartbeat(2))
    assert [neighbour.silent_looks() for _ in range(3)] == [0, 1, 2]
    neighbour.forgive()
    assert neighbour.silent_looks() == 1
    write_heartbeat(store, 0, heartbeat(3, done=True))
    write_heartbeat(store, 1, heartbeat(1))
    assert [neighbour.silent_looks() for _ in range(4)] == [0, 0, 1, 2]  # it looks at rank 1 instead
    write_heartbeat(store, 1, heartbeat(2, done=True))
    assert [neighbour.silent_looks() for _ in range(3)] == [0, 0, 0]  # nobody is left


def test_the_last_words_of_one_training_are_none_of_the_next():
    """Else a neighbour that has yet to begin the next would be left alone as done."""
    store = HashStore()
    first, second = (HeartbeatMonitor(store, 0, ["here"] * 2, 300.0, training) for training in (1, 2))
    first.start()
    first.stop()
    assert first._heartbeats()[0].done
    assert second._heartbeats() == [None, None]


def test_a_watchdog_acts_once_nothing_has_moved_for_so_many_looks():
    moved, acted, ended = iter(range(5)), threading.Event(), threading.Event()
    dog = Watchdog(lambda: next(moved, 5), 3, 0.01, ended, acted.set)
    dog.start()
    assert acted.wait(240)
    assert next(moved, None) is None  # not before it stood still
    ended.set()
    dog.join(60)
    assert not dog.is_alive()


def test_late_is_who_is_behind():
    assert late_ranks([heartbeat(step=16), heartbeat(step=15), heartbeat(step=16), None]) == [1]


def test_late_is_who_does_something_else():
    reading = heartbeat(place="weatherfm.data_pipeline.loader:88 (read)", waits=False)
    waiting = heartbeat(place="weatherfm.training.stepping.step:10 (exchange)")
    assert late_ranks([heartbeat(), reading, heartbeat()]) == [1]
    assert late_ranks([heartbeat(), reading]) == [1]  # of two, the one in a collective waits
    assert late_ranks([heartbeat(), heartbeat(), waiting, reading]) == [3]  # a third waits elsewhere, for it
    assert late_ranks([heartbeat(), heartbeat(), waiting]) == [2]  # the odd one, since nobody is known to be busy
    assert late_ranks([heartbeat(), heartbeat()]) == []
    assert late_ranks([None, None]) == []


def test_what_is_said_of_the_missing():
    heartbeats, hosts = [heartbeat()] * 11 + [None], ["node1"] * 11 + ["node2"]
    (line,) = describe([3], heartbeats, hosts, 1612.4).splitlines()
    assert line == (
        "no answer from rank 3 (node1), last seen at step 16, 612 s ago, in weatherfm.training.trainer:200 (_step)"
    )
    assert describe([11], heartbeats, hosts, 0) == "no answer from rank 11 (node2), never seen"
    assert describe([], heartbeats, hosts, 0) == ""
    assert describe(range(12), heartbeats, hosts, 0).splitlines()[-1].strip() == "and 4 more"


def test_the_line_shown_is_the_innermost_of_weatherfm():
    frames = []
    Job().first_checks(lambda: frames.append(sys._getframe()))
    place, waits = locate(frames[0])
    assert place.startswith("weatherfm.training.ranks.job:")
    assert place.endswith("(first_checks)")
    assert not waits


def test_a_rank_inside_torch_waits():
    frames = []
    layer = torch.nn.Identity()
    layer.register_forward_hook(lambda *_: frames.append(sys._getframe(1)))
    layer(torch.zeros(1))
    assert locate(frames[0])[1]


def test_one_connection_serves_all_trainings_of_a_job():
    """To a launcher that was killed between two of them a new one is waited for, and the ranks outlived it."""
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    made = []

    class Counted:
        def clone(self):
            made.append(store.clone())
            return made[-1]

    job = Job(0, 1, 0, ("here",), Counted())
    for _ in range(3):
        job.watch(60)
        job.beat(1)
        job.unwatch()
    assert len(made) == 1
