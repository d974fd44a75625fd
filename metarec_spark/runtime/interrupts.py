"""SIGTERM and Ctrl-C end a job in order: its Spark jobs are cancelled, and what it had open is closed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from pyspark import SparkContext

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SAME_SIGNAL = 1.0
"""Seconds in which a second signal counts as the first: a terminal and a script may both pass it on."""


class Interrupted(BaseException):
    """A signal asked the process to end. Not an Exception, so that no handler of errors takes it for one."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number
        super().__init__(self.name)


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Raise :class:`Interrupted` in the block at the first SIGTERM or SIGINT; the second one ends the process at once.

    Yields a function that sets the handlers again: a new SparkContext sets its own for SIGINT. Signals reach the main thread
    alone; in other threads the block changes nothing.
    """

    def handle(number: int, _: FrameType | None) -> None:
        first = time.monotonic()

        def again(number: int, _: FrameType | None) -> None:
            if time.monotonic() - first > _SAME_SIGNAL:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        for name in _SIGNALS:
            signal.signal(name, again)
        _cancel_spark_jobs()
        raise Interrupted(number)

    def install() -> None:
        for name in _SIGNALS:
            signal.signal(name, handle)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {name: signal.getsignal(name) for name in _SIGNALS}
    install()
    try:
        yield install
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _cancel_spark_jobs() -> None:
    """Cancel what runs in the JVM. The call that the signal interrupted still waits for its answer on this thread's connection:
    that connection is closed, and the next call opens another."""
    context, gateway = SparkContext._active_spark_context, SparkContext._gateway
    if context is None or gateway is None:
        return
    with suppress(Exception):  # the JVM may have got the signal too
        connection = gateway._gateway_client.get_thread_connection()
        if connection is not None:
            connection.close()
        context.cancelAllJobs()
