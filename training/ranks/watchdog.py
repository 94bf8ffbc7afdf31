"""A thread that looks whether another one gets on."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Watchdog(threading.Thread):
    """Acts when a number has stayed the same for so many looks, and again after as many more.

    Args:
        number: grows with what is watched.
        looks: in a row.
        every: seconds between them.
        ended: set to end it.
        act: what to do then.
    """

    def __init__(
        self, number: Callable[[], int], looks: int, every: float, ended: threading.Event, act: Callable[[], None]
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._number, self._looks, self._every, self._over, self._act = number, looks, every, ended, act

    def run(self) -> None:
        """Look, until ended."""
        seen, same = self._number(), 0
        while not self._over.wait(self._every):
            now = self._number()
            same = same + 1 if now == seen else 0
            seen = now
            if same >= self._looks:
                same = 0
                self._act()
