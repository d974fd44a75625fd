"""Horovod's home: collective operations of the ranks of one training; a single process does without Horovod."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from metarec_spark.runtime.isolation import isolated_environment

# Horovod's launcher ends its ranks when it ends. It ends when its standard input is closed, that is, with the process that
# started it: otherwise ranks of a killed job would run on beside those of the next. (It is not read through sys.stdin: that would
# hold its lock, and Horovod forks a process that closes it.) The ranks' rendezvous server accepts anybody (CVE-2026-31234), so it
# listens on the loopback only.
_LAUNCHER = """
import os, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
from horovod.runner.http import http_server
from horovod.runner.launch import run_commandline
find_port = http_server.find_port
http_server.find_port = lambda server: find_port(lambda address: server(("127.0.0.1", address[1])))
run_commandline()
"""
Touched = dict[str, tuple[Tensor, Tensor]]
"""Table = [R] rows and their [R, D] gradients."""
PendingRows = dict[str, int]
"""Table = Horovod's handle of an asynchronous all-gather."""


class Ranks(Protocol):
    """The processes of one training run, as one of them sees it."""

    rank: int
    size: int

    def sum(self, values: list[float]) -> list[float]:
        """Sum each value over all ranks."""

    def max(self, value: int) -> int:
        """The largest value of all ranks."""

    def broadcast(self, tensors: dict[str, Tensor]) -> None:
        """Copy rank 0's values to all ranks, in place."""

    def gather_rows(self, rows: dict[str, Tensor]) -> PendingRows:
        """Start to gather the rows of each table that this step touches from all ranks, while their gradients are computed."""

    def add_gradients(self, network: list[torch.nn.Parameter], touched: Touched, pending: PendingRows) -> Touched:
        """Sum gradients over all ranks: the network's in place, and the tables' over the rows that some rank touched."""


class SingleProcess:
    """One process, without Horovod."""

    rank, size = 0, 1

    def sum(self, values: list[float]) -> list[float]:
        return values

    def max(self, value: int) -> int:
        return value

    def broadcast(self, tensors: dict[str, Tensor]) -> None:
        pass

    def gather_rows(self, rows: dict[str, Tensor]) -> PendingRows:
        return {}

    def add_gradients(self, network: list[torch.nn.Parameter], touched: Touched, pending: PendingRows) -> Touched:
        return touched


class Horovod:
    """One of several ranks."""

    def __init__(self) -> None:
        import horovod.torch as hvd

        hvd.init()
        self._hvd = hvd
        self.rank, self.size = hvd.rank(), hvd.size()

    def sum(self, values: list[float]) -> list[float]:
        return self._hvd.allreduce(torch.tensor(values, dtype=torch.float64), op=self._hvd.Sum).tolist()

    def max(self, value: int) -> int:
        return int(self._hvd.allreduce(torch.tensor(value), op=self._hvd.Max))

    def broadcast(self, tensors: dict[str, Tensor]) -> None:
        self._hvd.broadcast_parameters(tensors, root_rank=0)

    def gather_rows(self, rows: dict[str, Tensor]) -> PendingRows:
        return {name: self._hvd.allgather_async(touched, name=f"{name}.rows") for name, touched in rows.items()}

    def add_gradients(self, network: list[torch.nn.Parameter], touched: Touched, pending: PendingRows) -> Touched:
        # All gradients are reduced as one tensor: starting a collective costs more than its bytes.
        union = {name: self._hvd.synchronize(message).unique() for name, message in pending.items()}
        shapes = [parameter.shape for parameter in network]
        shapes += [torch.Size((len(rows), touched[name][1].shape[1])) for name, rows in union.items()]
        flat = torch.zeros(sum(shape.numel() for shape in shapes))
        parts = [part.view(shape) for part, shape in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True)]
        for parameter, part in zip(network, parts, strict=False):
            if parameter.grad is not None:  # else none of this rank's events reached it; other ranks' events may have
                part.copy_(parameter.grad)
            parameter.grad = part
        tables = dict(zip(union, parts[len(network) :], strict=True))
        for name, (rows, gradients) in touched.items():
            tables[name][torch.searchsorted(union[name], rows)] = gradients
        self._hvd.allreduce_(flat, op=self._hvd.Sum, name="gradients")
        return {name: (rows, tables[name]) for name, rows in union.items()}


def built_with_gloo() -> bool:
    """Whether Horovod is installed with Gloo and PyTorch; an ImportError if it is not installed."""
    import horovod.torch as hvd

    return bool(hvd.gloo_built())


def run_on_this_host(rank: list[str], processes: int, timeout: int) -> int:
    """Run the command ``rank`` in so many processes of this host, connected by its loopback; return the exit code."""
    command = [sys.executable, "-c", _LAUNCHER, "-np", str(processes), "-H", f"localhost:{processes}", "--gloo"]
    command += ["--network-interfaces", "lo", "--start-timeout", str(timeout), *rank]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr, env=isolated_environment()) as launcher:
        return launcher.wait()


def run_on_executors(rank: Callable[[str], None], spec: str, processes: int, timeout: int, interface: str | None) -> None:
    """Run ``rank(spec)`` in so many tasks of the active Spark session, connected by a network interface; None: by any."""
    import horovod.spark

    nics = {interface} if interface else None
    horovod.spark.run(rank, args=(spec,), num_proc=processes, start_timeout=timeout, use_gloo=True, nics=nics, verbose=0)
