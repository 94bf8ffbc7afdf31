"""Start the ranks of a job on this machine, as torchrun does, for `weatherfm train --devices N`.

The engine is torchrun's own agent. What differs is how it ends: signals reach the ranks, which stop after a step with
a checkpoint; that, and wrong input, is not tried again; the ranks' own message is the message, and their status the
status.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import uuid
from collections.abc import Sequence
from types import FrameType

import torch
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from weatherfm.data_pipeline.machine.host_memory import available_memory
from weatherfm.errors import STOPPED, InputError
from weatherfm.training.upkeep.stop_signals import SIGNALS, StopSignals

_log = logging.getLogger(__name__)

_PROCESS = 400 * 2**20
"""Bytes that a process takes before it has done anything: those of Python and PyTorch."""

_FINAL = (2, STOPPED, 130)
_OF_COMMANDS = (1, *_FINAL)
"""Statuses after which nothing is started again: wrong input, a stop that was asked for, and Ctrl-C."""


def require_devices(
    devices: int, restarts: int, device: str, setting: str = "training.device", at_once: int = 1
) -> None:
    """Refuse what cannot be started here.

    Args:
        devices: ranks to start.
        restarts: allowed.
        device: that setting of the run.
        setting: what the messages call it.
        at_once: so many trainings side by side, each of so many ranks.

    Raises:
        InputError: started by a launcher already, a number that makes no sense, one device for several ranks, fewer
            GPUs than ranks, or no memory for so many processes.
    """
    told = f"--devices {devices}" + (f" x --at-once {at_once}" if at_once > 1 else "")
    if "RANK" in os.environ:
        raise InputError(f"{told} under torchrun: it has started {os.environ.get('WORLD_SIZE')} already")
    if devices < 1 or restarts < 0:
        raise InputError(f"--devices must be 1 or more, --restarts 0 or more; got {devices} and {restarts}")
    if (wanted := devices * at_once) > 1 and ":" in device:
        raise InputError(f"{setting} {device} is one device, not {wanted}; write auto, cuda or cpu")
    gpus = torch.cuda.device_count()
    if on_gpus(device) and wanted > gpus:
        raise InputError(f"{told}, but this machine has {gpus} GPUs; start at most {gpus}, or {setting}=cpu")
    if wanted > (most := max(1, available_memory() // _PROCESS)):
        raise InputError(
            f"{told}, but this machine has memory for {most} processes; start at most so many, best one a GPU or, on a "
            "CPU, one a core"
        )


def on_gpus(device: str) -> bool:
    """Whether ranks of such a `device` take GPUs here."""
    return device.startswith("cuda") or (device == "auto" and torch.cuda.device_count() > 0)


def launch(command: Sequence[str], devices: int, restarts: int = 0, stop: StopSignals | None = None) -> int:
    """Run a command on so many ranks of this machine, and return the status it ends with.

    Args:
        command: program and arguments; each rank finds its number in the environment.
        devices: ranks.
        restarts: how often all of them are started again when one fails.
        stop: of a command that can be stopped at any time and goes on when started again: it has been listening since
            the start, and ranks that a signal ends before they listen themselves have stopped, not failed.
    """
    agents_own = logging.getLogger("torch.distributed.elastic")  # the ranks' messages are enough
    agents_own.addHandler(logging.NullHandler())
    agents_own.propagate = False
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // devices)))
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGHUP, signal.SIGQUIT)}
    with tempfile.TemporaryDirectory(prefix="weatherfm") as folder:
        agent = _Agent(_spec(command, devices, restarts), DefaultLogsSpecs(log_dir=folder))
        agent.listen()
        if stop is not None and stop.received is not None:
            agent.asked_to_stop = signal.Signals[stop.received]
        try:
            result = agent.run()
            if stop is not None and agent.asked_to_stop is not None:
                stop.received = agent.asked_to_stop.name  # it has not heard of it
            if stop is not None and (number := agent.stopped_before_it_began(result)):
                _log.info("stopped by %s while starting; the same command goes on", number.name)
                return STOPPED
            return _status(result)
        except SignalException as end:  # SIGHUP or SIGQUIT, which end the ranks at once
            return 128 + end.sigval
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            agent.get_worker_group().spec.rdzv_handler.shutdown()


def _spec(command: Sequence[str], devices: int, restarts: int) -> WorkerSpec:
    here = RendezvousParameters(
        backend="c10d",
        endpoint="localhost:0",  # any free port
        run_id=uuid.uuid4().hex,
        min_nodes=1,
        max_nodes=1,
        local_addr="localhost",
    )
    return WorkerSpec(
        role="train",
        local_world_size=devices,
        rdzv_handler=get_rendezvous_handler(here),
        entrypoint=command[0],
        args=tuple(command[1:]),
        max_restarts=restarts,
        monitor_interval=0.1,
    )


class _Agent(LocalElasticAgent):
    """torchrun's agent, but that it hands signals on and waits, and knows what a restart cannot mend."""

    asked_to_stop: signal.Signals | None = None
    _handed_on = False

    def listen(self) -> None:
        """Note signals from now on; the agent's own handlers for them would end the ranks in 30 seconds."""
        os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGHUP,SIGQUIT"
        for number in SIGNALS:
            signal.signal(number, self._note)

    def stopped_before_it_began(self, result: RunResult) -> signal.Signals | None:
        """The signal that was handed on, if it ended a rank, which did not listen yet; none that was wrong otherwise.

        A rank that did listen may have found the others gone and taken that for a failure.
        """
        codes = [failure.exitcode for failure in result.failures.values()]
        ended = self.asked_to_stop is not None and -self.asked_to_stop in codes
        return self.asked_to_stop if ended and _status(result) not in _FINAL else None

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        if self.asked_to_stop is not None and not self._handed_on:
            self._hand_on(self.asked_to_stop)
        result = super()._monitor_workers(worker_group)
        if result.state == WorkerState.FAILED:
            if self.asked_to_stop is not None or _status(result) in _FINAL:
                self._remaining_restarts = 0
            if self._remaining_restarts:
                limit = worker_group.spec.max_restarts
                nth = limit - self._remaining_restarts + 1
                _log.warning("%s; starting all again from the newest checkpoint (%d of %d)", _why(result), nth, limit)
        return result

    def _note(self, number: int, frame: FrameType | None) -> None:
        """For the next look at the ranks, a tenth of a second away: none may be there yet."""
        self.asked_to_stop, self._handed_on = signal.Signals(number), False

    def _hand_on(self, number: signal.Signals) -> None:
        self._handed_on = True
        for worker in self.get_worker_group().workers:
            if worker.id:
                try:
                    os.kill(worker.id, number)
                except ProcessLookupError:  # it has just ended
                    continue


def _status(result: RunResult) -> int:
    """The ranks' own status; 1 where a signal, or another's code, ended them."""
    codes = [failure.exitcode for failure in result.failures.values()]
    own = [code if code in _OF_COMMANDS else 1 for code in codes if code > 0]
    return max(own, default=1 if codes or result.is_failed() else 0)


def _why(result: RunResult) -> str:
    """The ranks that did not end by themselves, if any: the others fail for lack of them."""
    codes = {rank: failure.exitcode for rank, failure in sorted(result.failures.items())}
    ended = [f"rank {rank} was ended by {signal.Signals(-code).name}" for rank, code in codes.items() if code < 0]
    return ", ".join(ended) or "training failed"
