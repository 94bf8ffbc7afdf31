"""Processes of their own, as `--devices N` starts them: how they end, in Python's words."""

from __future__ import annotations

from weatherfm.errors import InputError, OutsideError


def require_done(status: int, what: str) -> None:
    """Raise what an exit status means; the processes have said on stderr why.

    Raises:
        InputError: wrong input (2).
        KeyboardInterrupt: Ctrl-C (130).
        OutsideError: a process failed or is gone.
    """
    if status == 2:
        raise InputError(f"{what} on several processes was refused; one of them has said on stderr what to do")
    if status == 130:
        raise KeyboardInterrupt(f"{what} was interrupted; the same call goes on from here")
    if status:
        raise OutsideError(f"{what} on several processes failed with status {status}; one has said on stderr why")
