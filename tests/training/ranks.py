"""Ranks as threads of this process: a third implementation of ``Ranks``, without the seconds that Horovod takes to start."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from metarec_spark.training.distributed import Ranks, Touched

_LONGEST = 120
"""Seconds that a rank may wait for the others."""


class Group:
    """Where threads meet. One of them runs at a time, with random numbers of its own, as processes would."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.running = threading.Lock()
        self.barrier = threading.Barrier(size, timeout=_LONGEST)
        self.values: list[Any] = [None] * size


class ThreadRank:
    """One rank of a group."""

    def __init__(self, rank: int, group: Group) -> None:
        self.rank, self.size, self._group = rank, group.size, group

    def _all(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order."""
        group, random = self._group, torch.get_rng_state()
        group.values[self.rank] = value
        group.running.release()
        try:
            group.barrier.wait()
            values = list(group.values)
            group.barrier.wait()
        finally:
            group.running.acquire()
        torch.set_rng_state(random)
        return values

    def sum(self, values: list[float]) -> list[float]:
        return [sum(column) for column in zip(*self._all(values), strict=True)]

    def max(self, value: int) -> int:
        return max(self._all(value))

    def broadcast(self, tensors: dict[str, Tensor]) -> None:
        first, *_ = self._all({name: value.clone() for name, value in tensors.items()} if self.rank == 0 else None)
        for name, value in first.items():
            tensors[name].copy_(value)

    def gather_rows(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.cat([other[name] for other in self._all(rows)]).unique() for name in rows}

    def add_gradients(self, network: list[torch.nn.Parameter], touched: Touched, pending: dict[str, Tensor]) -> Touched:
        own = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in network]
        everybody = self._all((own, touched))
        for parameter, *gradients in zip(network, *[gradients for gradients, _ in everybody], strict=True):
            parameter.grad = torch.stack(gradients).sum(0)
        sums = {}
        for name, union in pending.items():
            sums[name] = (union, torch.zeros(len(union), touched[name][1].shape[1]))
            for rows, gradients in (tables[name] for _, tables in everybody):
                sums[name][1].index_add_(0, torch.searchsorted(union, rows), gradients)
        return sums


def as_threads(size: int, work: Callable[[Ranks], None]) -> None:
    """Do ``work`` as each of so many ranks; the first error of a rank ends all."""
    group = Group(size)

    def rank(number: int) -> None:
        with group.running:
            try:
                work(ThreadRank(number, group))
            except BaseException:
                group.barrier.abort()
                raise

    with ThreadPoolExecutor(size) as pool:
        ended = [pool.submit(rank, number) for number in range(size)]
    errors = [future.exception() for future in ended if future.exception()]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
