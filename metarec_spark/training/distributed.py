"""Horovod's home: what ranks do together, and how they are started. One process needs none of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import torch
from pyspark.sql import SparkSession
from torch import Tensor

from metarec_spark.errors import TrainingError
from metarec_spark.model.transformer import summed

Touched = dict[str, tuple[Tensor, Tensor]]
"""For each table, [R] rows and their [R, D] gradients."""


class Ranks(Protocol):
    """The processes of one training run, as one of them sees it."""

    rank: int
    size: int

    def sum(self, values: list[float]) -> list[float]:
        """Sums over all ranks."""

    def max(self, value: int) -> int:
        """The largest over all ranks."""

    def share(self, tensors: dict[str, Tensor]) -> None:
        """Give all ranks rank 0's values, in place."""

    def add_gradients(self, network: list[torch.nn.Parameter], touched: Touched) -> Touched:
        """Sum gradients over all ranks: the network's in place; of the tables only the touched rows travel."""


class Alone:
    """One process, without Horovod."""

    rank, size = 0, 1

    def sum(self, values: list[float]) -> list[float]:
        return values

    def max(self, value: int) -> int:
        return value

    def share(self, tensors: dict[str, Tensor]) -> None:
        pass

    def add_gradients(self, network: list[torch.nn.Parameter], touched: Touched) -> Touched:
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

    def share(self, tensors: dict[str, Tensor]) -> None:
        self._hvd.broadcast_parameters(tensors, root_rank=0)

    def add_gradients(self, network: list[torch.nn.Parameter], touched: Touched) -> Touched:
        for parameter in network:
            if parameter.grad is None:  # nothing of this rank's events reached it; other ranks' may have
                parameter.grad = torch.zeros_like(parameter)
        flat = torch._utils._flatten_dense_tensors([parameter.grad for parameter in network])
        handles = {name: self._start(name, *rows) for name, rows in touched.items()}
        flat = self._hvd.allreduce(flat, op=self._hvd.Sum, name="network")
        for parameter, gradient in zip(
            network, torch._utils._unflatten_dense_tensors(flat, [parameter.grad for parameter in network]), strict=True
        ):
            parameter.grad = gradient
        return {name: summed(*(self._hvd.synchronize(handle) for handle in pair)) for name, pair in handles.items()}

    def _start(self, name: str, rows: Tensor, gradients: Tensor) -> tuple[int, int]:
        return (
            self._hvd.allgather_async(rows, name=f"{name}.rows"),
            self._hvd.allgather_async(gradients, name=f"{name}.gradients"),
        )


def launch(spec: Path, processes: int, launcher: str, spark: SparkSession | None, timeout: int) -> None:
    """Train as ``spec`` says, in this process or on several ranks, and return when all ranks have ended.

    Parameters
    ----------
    spec
        JSON file that every rank can read; see :mod:`metarec_spark.training.worker`.
    processes
        Ranks; 1 is this process.
    launcher
        local: on this host. spark: on the executors of ``spark``.
    timeout
        Seconds, at most, for all ranks to start.

    Raises
    ------
    TrainingError
        Where a rank failed; with its own error where it could say it.
    """
    if processes == 1:
        from metarec_spark.training.worker import train

        train(spec, Alone())
    elif launcher == "local":
        _launch_local(spec, processes, timeout)
    else:
        _launch_spark(spec, processes, timeout, spark)


def _launch_local(spec: Path, processes: int, timeout: int) -> None:
    run = [sys.executable, "-m", "metarec_spark.training.worker", str(spec)]
    horovod = [sys.executable, "-c", "from horovod.runner.launch import run_commandline; run_commandline()"]
    horovod += ["-np", str(processes), "-H", f"localhost:{processes}", "--gloo", "--network-interfaces", "lo"]
    ended = subprocess.run([*horovod, "--start-timeout", str(timeout), *run], stdout=sys.stderr)
    if ended.returncode:
        raise TrainingError(_why(spec, f"horovod ended with {ended.returncode}"))


def _launch_spark(spec: Path, processes: int, timeout: int, spark: SparkSession) -> None:
    import horovod.spark

    loopback = spark.sparkContext.master.startswith("local") or "127.0.0.1" in spark.sparkContext.master
    try:
        horovod.spark.run(
            _rank_on_executor,
            args=(str(spec),),
            num_proc=processes,
            start_timeout=timeout,
            use_gloo=True,
            nics={"lo"} if loopback else None,
            verbose=0,
        )
    except Exception as error:
        raise TrainingError(_why(spec, f"horovod on Spark ended with: {str(error).splitlines()[0]}")) from None


def _rank_on_executor(spec: str) -> None:
    from metarec_spark.training.worker import main

    main(Path(spec))


def _why(spec: Path, ended: str) -> str:
    """The first error that a rank left beside the spec, or how the run ended."""
    said = [json.loads(file.read_text()) for file in sorted(spec.parent.glob("error-*.json"))]
    if not said:
        return f"{ended}; no rank left an error; see the log above and run again: training goes on from its last checkpoint"
    first = min(said, key=lambda error: error["time"])
    return f"rank {first['rank']} failed: {first['error']}; {ended}"
