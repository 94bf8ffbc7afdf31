from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from weatherfm.errors import StopRequest
from weatherfm.training.upkeep.stop_signals import SIGNALS, StopSignals, sigterm_interrupts


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_first_signal_is_noted_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received == number.name
    assert signal.getsignal(number) is before


@pytest.fixture
def _interruptible():
    """Python's own handler: a shell starts background jobs with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_second_ctrl_c_interrupts():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.received == "SIGINT"


def test_a_thread_cannot_catch_signals_and_says_nothing():
    def enter():
        with StopSignals() as stop:
            return stop.received

    before = [signal.getsignal(number) for number in SIGNALS]
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(enter).result() is None
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_what_asks_before_the_first_step_is_told_by_name():
    with StopSignals() as stop:
        stop.heed()
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(StopRequest, match="SIGUSR1"):
            stop.heed()


def test_sigterm_ends_as_ctrl_c_does_and_its_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), sigterm_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    with ThreadPoolExecutor(1) as pool, sigterm_interrupts():
        inside = signal.getsignal(signal.SIGTERM)
        assert pool.submit(_entered).result() is inside


def _entered():
    with sigterm_interrupts():
        return signal.getsignal(signal.SIGTERM)
