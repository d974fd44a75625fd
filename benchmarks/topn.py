"""The exact top-N beside faiss, implicit and PyTorch: seconds for one search of the same vectors on the same threads, and ratios.

python benchmarks/protocol.py --log ../shared/data/beauty --set model.dim=64 --set train.stacking_pairs=0 --out OUT
python benchmarks/topn.py --trained OUT/beauty

Needs faiss and implicit beside the project: pip install --no-deps --target DIR faiss-cpu implicit tqdm; PYTHONPATH=DIR. They
cannot exclude seen items, so as many more items are requested as the longest history has; what remains to be done on their lists is not
counted. Rounds alternate. Before it is timed, each search is compared with a full sort in float64.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cuts import Log, _bounds, _contexts
from scipy import sparse

from metarec_spark.config.sections import Transitions
from metarec_spark.model import artifact
from metarec_spark.model.scorer import Scorer
from metarec_spark.scoring.topn import ExactIndex

SHAPES = ((22_363, 12_101), (20_000, 50_000), (4_096, 500_000))
DIM = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=Path, required=True, help="warehouse of a model with vectors of 64 numbers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=float, default=1.0, help="share of the users that search")
    options = parser.parse_args()
    if not (options.trained / "models").exists():
        parser.exit(1, f"this benchmark needs a model; there is none in {options.trained}: train one as said above\n")
    torch.set_num_threads(options.threads)
    users, items, seen = trained(options.trained)
    print(
        f"{options.threads} threads, vectors of {items.shape[1]} numbers; ns a pair of user and item, median of {options.rounds}"
    )
    print(
        "| vectors | users × items | n | this | GEMM alone | faiss | implicit | torch | best of them over this | this over GEMM |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    random = np.random.default_rng(0)
    for number, (of_users, of_items) in enumerate(SHAPES):
        drawn = (random.standard_normal((rows, DIM)).astype(np.float32) for rows in (of_users, of_items))
        cases = {"random": (*drawn, redealt(seen, of_users, of_items, random))}
        if number == 0:
            cases = {"trained": (users, items, seen), **cases}
        for name, (of_user, of_item, hidden) in cases.items():
            some = slice(0, int(options.users * len(of_user)))
            for n in (10, 100):
                print(row(name, of_user[some], of_item, hidden[some], n, options), flush=True)


def trained(warehouse: Path) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Users' and items' vectors of the newest model, and what users have seen."""
    model = max(folder for folder in (warehouse / "_models").iterdir() if (folder / "manifest.json").exists())
    scorer = Scorer(artifact.load(model))
    log = Log(warehouse, Transitions())
    starts, ends = _bounds(log.user)
    contexts = _contexts(log.packed(np.arange(len(log.user)), starts, ends))
    users, items = scorer.user_vectors(contexts, scorer.hidden(contexts), 0).numpy(), scorer.item_vectors(0).numpy()
    seen = sparse.csr_matrix((np.ones(len(log.item), np.float32), (log.user, log.item)), (len(users), len(items)))
    seen.sum_duplicates()
    return users, items, seen


def redealt(seen: sparse.csr_matrix, users: int, items: int, random: np.random.Generator) -> sparse.csr_matrix:
    """Histories as long as those, of items drawn at random."""
    length = np.resize(np.diff(seen.indptr), users)
    row = np.repeat(np.arange(users), length)
    histories = sparse.csr_matrix((np.ones(len(row), np.float32), (row, random.integers(0, items, len(row)))), (users, items))
    histories.sum_duplicates()
    return histories


def row(name: str, users: np.ndarray, items: np.ndarray, seen: sparse.csr_matrix, n: int, options: argparse.Namespace) -> str:
    """One line of the table."""
    index, longer = ExactIndex(items), n + int(np.diff(seen.indptr).max())
    checked(index, users, items, seen, n)
    searches = {
        "this": lambda: index.search(users, n, seen, threads=options.threads),
        "gemm": gemm(users, items),
        "faiss": faiss(users, items, longer, options.threads),
        "implicit": implicit(users, items, longer, options.threads),
        "torch": with_torch(users, items, longer),
    }
    seconds = {timed: [] for timed in searches}
    torch.set_num_threads(options.threads)
    for _ in range(options.rounds):
        for timed, search in searches.items():
            torch.set_num_threads(1 if timed == "this" else options.threads)
            start = time.perf_counter()
            search()
            seconds[timed].append(time.perf_counter() - start)
    pairs = len(users) * len(items)
    timed = {who: np.array(taken) / pairs * 1e9 for who, taken in seconds.items()}
    best = np.min([timed[who] for who in ("faiss", "implicit", "torch")], axis=0)
    shown = " | ".join(f"{np.median(taken):.2f}" for taken in timed.values())
    ratios = f"{spread(best / timed['this'])} | {spread(timed['this'] / timed['gemm'])}"
    return f"| {name} | {len(users):,} × {len(items):,} | {n} | {shown} | {ratios} |"


def spread(ratios: np.ndarray) -> str:
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def checked(index: ExactIndex, users: np.ndarray, items: np.ndarray, seen: sparse.csr_matrix, n: int) -> None:
    """Stop where the first hundred lists are not those of a full sort."""
    some = slice(0, 100)
    scores = users[some].astype(np.float64) @ items.T.astype(np.float64)
    scores[seen[some].nonzero()] = -np.inf
    expected = np.take_along_axis(scores, np.argsort(-scores, axis=1)[:, :n], 1)
    best, score = index.search(users[some], n, seen[some])
    np.testing.assert_allclose(np.take_along_axis(scores, best, 1), expected, rtol=1e-12)
    np.testing.assert_allclose(score, expected, rtol=1e-6)


def gemm(users: np.ndarray, items: np.ndarray) -> Callable[[], None]:
    """float32 products alone, in blocks of 256 users and 4,096 items."""
    queries, catalogue, room = torch.from_numpy(users), torch.from_numpy(items), torch.empty(256 * 4096)

    def search() -> None:
        for block in queries.split(256):
            for tile in catalogue.split(4096):
                torch.mm(block, tile.T, out=room[: len(block) * len(tile)].view(len(block), -1))

    return search


def faiss(users: np.ndarray, items: np.ndarray, n: int, threads: int) -> Callable[[], object]:
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    return lambda: index.search(users, n)


def implicit(users: np.ndarray, items: np.ndarray, n: int, threads: int) -> Callable[[], object]:
    from implicit.cpu.topk import topk

    return lambda: topk(items, users, n, num_threads=threads)


def with_torch(users: np.ndarray, items: np.ndarray, n: int) -> Callable[[], None]:
    """A product and a selection, in blocks of 256 users."""
    queries, catalogue = torch.from_numpy(users), torch.from_numpy(items)

    def search() -> None:
        for block in queries.split(256):
            (block @ catalogue.T).topk(n, dim=1)

    return search


if __name__ == "__main__":
    main()
