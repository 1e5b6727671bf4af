"""Handle the signals that end a program for the length of a block: held back, or as an exception that undoes its work.

Elsewhere than in the main thread these blocks do nothing: signals arrive only there.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handling(numbers: Iterable[int], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Call `handler` for these signals inside the block, and what was there before from its end on."""
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back what would end the program until the block has ended: something is open and not yet registered."""
    held: list[int] = []
    with handling(ENDING, lambda number, _: held.append(number)):
        yield
    if held:
        signal.raise_signal(held[0])


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Treat a closed terminal and SIGTERM as Ctrl-C inside the block, so that what was made is undone."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with handling([number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL], leave):
        yield
