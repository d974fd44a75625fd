"""Time of a training step by size of the catalogue, on generated data, and the memory that the process holds.

python benchmarks/step_time.py [--items 10000 100000 1000000] [--methods joint] [--rounds 20] [--threads 2]
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import time

import numpy as np
import torch

from metarec_spark.config.sections import Model, Train
from metarec_spark.model.catalogue import Catalogue, Successors
from metarec_spark.model.encoder import NextItemModel, Shape
from metarec_spark.model.loss import Negatives
from metarec_spark.model.packed import PackedSequences
from metarec_spark.training.batches import Episode
from metarec_spark.training.loop import precision
from metarec_spark.training.meta import step_losses
from metarec_spark.training.optimizer import Optimizer

TOKENS, NEGATIVES, LENGTH, STEPS = 1024, 4096, 16, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--methods", nargs="+", default=["joint"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs, memory = {}, {}
    for case in itertools.product(options.items, options.methods):
        runs[case] = run(*case)
        next(runs[case])
        memory[case] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    times = {case: [] for case in runs}
    for _ in range(options.rounds):  # in turns, so that whatever else the machine does meets all cases alike
        for case, steps in runs.items():
            times[case].append(next(steps))
    first = statistics.median(next(iter(times.values())))
    print(
        f"{TOKENS} events and {NEGATIVES} negatives a step, width 128, {options.threads} threads; median of {options.rounds} rounds"
    )
    print("| items | method | ms a step | quartiles | ratio to the first | peak memory so far, GB |")
    print("|---|---|---|---|---|---|")
    for case, seconds in times.items():
        low, middle, high = (1e3 * value for value in statistics.quantiles(seconds, n=4))
        cells = f"{middle:.1f} | {low:.1f}–{high:.1f} | {middle / first / 1e3:.2f} | {memory[case]:.2f}"
        print(f"| {case[0]:,} | {case[1]} | {cells} |")


def run(items: int, method: str):
    """Yield seconds a step, over and over."""
    random = np.random.default_rng(0)
    tokens = random.integers(1, 1000, (items, 4)).astype(np.int32)
    none = np.zeros(0)
    successors = Successors.from_pairs(items, none.astype(np.int64), none.astype(np.int64), none, none, none)
    catalogue = Catalogue(
        domain=np.zeros(items, np.int32),
        events=np.ones(items, np.int64),
        tokens=tokens,
        weights=np.full((items, 4), 0.5, np.float32),
        token_hashes=np.arange(1000),
        vectors=np.zeros((items, 0), np.float32),
        successors=successors,
    )
    model = NextItemModel(Model(), Shape(1, 1, 32, 50), catalogue)
    tables = model.tables
    for table in tables.values():
        table.requires_grad_(False)
    optimizer, settings = Optimizer(model.network, tables), Train(method=method)
    candidates = Negatives([torch.arange(items)], 0, NEGATIVES, precision(settings))
    sampler, step = torch.Generator().manual_seed(0), 0
    while True:
        start = time.perf_counter()
        for _ in range(STEPS):
            step += 1
            item = torch.from_numpy(random.integers(0, items, TOKENS))
            zero = torch.zeros(TOKENS, dtype=torch.int64)
            batch = PackedSequences(item, zero, zero, zero, torch.full((TOKENS // LENGTH,), LENGTH))
            if method != "joint":
                users = torch.arange(len(batch.length))
                batch = Episode(0, batch.take(users[0::2]), batch.take(users[1::2]))
            losses = step_losses(model, batch, candidates, sampler, [0], settings)
            optimizer.zero_grad()
            (losses.sums.sum() / TOKENS).backward()
            optimizer.step(losses.touched(), 1e-3, step)
        yield (time.perf_counter() - start) / STEPS


if __name__ == "__main__":
    main()
