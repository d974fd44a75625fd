"""Time of a training step by size of the catalogue, on generated data, and the memory that the process holds.

python tests/benchmarks/step_time.py [--items 10000 100000 1000000] [--rounds 20] [--threads 2]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import numpy as np
import torch

from metarec_spark.model.catalogue import Catalogue, Successors
from metarec_spark.model.loss import Candidates, next_item_losses
from metarec_spark.model.transformer import Contexts, NextItemModel, Shape
from metarec_spark.sections import Model, Train
from metarec_spark.training.loop import precision
from metarec_spark.training.optimizer import Optimizer

TOKENS, NEGATIVES, LENGTH, STEPS = 1024, 4096, 16, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs, memory = {}, {}
    for items in options.items:
        runs[items] = run(items)
        next(runs[items])
        memory[items] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    times = {items: [] for items in options.items}
    for _ in range(options.rounds):  # in turns, so that whatever else the machine does meets all sizes alike
        for items, steps in runs.items():
            times[items].append(next(steps))
    first = statistics.median(times[options.items[0]])
    print(
        f"{TOKENS} events and {NEGATIVES} negatives a step, width 128, {options.threads} threads; median of {options.rounds} rounds"
    )
    print("| items | ms a step | quartiles | ratio to the first | peak memory so far, GB |")
    print("|---|---|---|---|---|")
    for items, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        print(
            f"| {items:,} | {middle * 1e3:.1f} | {low * 1e3:.1f}–{high * 1e3:.1f} | {middle / first:.2f} | {memory[items]:.2f} |"
        )


def run(items: int):
    """Yield seconds a step, over and over."""
    random = np.random.default_rng(0)
    tokens = random.integers(1, 1000, (items, 4)).astype(np.int32)
    none = np.zeros(0)
    successors = Successors.of(items, none.astype(np.int64), none.astype(np.int64), none, none, none)
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
    optimizer = Optimizer({name: value for name, value in model.named_parameters() if name not in tables}, tables)
    candidates = Candidates([torch.arange(items)], 0, NEGATIVES, precision(Train()))
    sampler, step = torch.Generator().manual_seed(0), 0
    while True:
        start = time.perf_counter()
        for _ in range(STEPS):
            step += 1
            item = torch.from_numpy(random.integers(0, items, TOKENS))
            zero = torch.zeros(TOKENS, dtype=torch.int64)
            batch = Contexts(item, zero, zero, zero, torch.full((TOKENS // LENGTH,), LENGTH))
            losses = next_item_losses(model, batch, candidates, sampler)
            for parameter in optimizer.network:
                parameter.grad = None
            (losses.sums.sum() / TOKENS).backward()
            optimizer.step(losses.touched(), 1e-3, step)
        yield (time.perf_counter() - start) / STEPS


if __name__ == "__main__":
    main()
