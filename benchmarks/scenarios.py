"""Each of five generated platforms as the new one, by how much of a user's taste the platforms share: the gain of a transfer.

python benchmarks/scenarios.py [--target shop music] [--taste 0 0.5 1] [--share 0.05 0.2] [--out warehouse/scenarios]

Prints a row for each, and draws gain over shared taste in OUT/dose.png. The gain is that of what was chosen, over the best that
takes nothing from others by the test itself; its error is that of the paired difference over the pairs of all draws. The log has
late, duplicate and broken rows, as ``metarec generate`` writes them.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from transfer import gain, run, tested

from metarec_spark.transfer.modes import MODES

PLATFORMS = ("shop", "social", "music", "video", "search")
FIRST_DAY, LAST_DAY = "2024-01-01", "2024-01-30"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", default=list(PLATFORMS), choices=PLATFORMS)
    parser.add_argument("--taste", type=float, nargs="+", default=[1.0])
    parser.add_argument("--share", type=float, nargs="+", default=[0.05, 0.2])
    parser.add_argument("--days", type=int, help="predict users' first events in the last so many days; the newest without it")
    parser.add_argument(
        "--cuts", type=int, nargs="+", default=[0, 1], help="first, and one after the last; of all shares, or of each"
    )
    parser.add_argument("--modes", nargs="+", default=["cross_domain_heuristic", "meta_trained_ranker"], choices=list(MODES))
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=Path("warehouse/scenarios"))
    parser.add_argument("--set", action="append", default=[], help="section.key=value for all commands")
    options = parser.parse_args()
    print(
        "| new platform | shared taste | share of its users | draws | pairs | best baseline | best transfer | used in | gain of what serves |"
    )
    print("|---" * 9 + "|", flush=True)
    gains: dict[tuple[str, float], list[tuple[float, float, float]]] = {}
    cuts = [*zip(options.cuts[::2], options.cuts[1::2], strict=True)] * len(options.share)
    for taste in options.taste:
        log = generated(options, taste)
        for target in options.target:
            for share, of_share in zip(options.share, cuts, strict=False):
                measured = scenario(options, log, taste, target, share, of_share)
                gains.setdefault((target, share), []).append((taste, *measured))
    draw(gains, options.out / f"dose{f'-{options.days}d' if options.days else ''}.png")


def generated(options: argparse.Namespace, taste: float) -> Path:
    """A log in the two files that the other benchmarks read."""
    log = (options.out / f"log-{taste}").absolute()
    if not (log / "events.parquet").exists():
        command = ["metarec", "generate", "--out", log, "--first-day", FIRST_DAY, "--days", "30", "--shared-taste", str(taste)]
        sizes = {"--users": options.users, "--events": options.events, "--items": options.items}
        subprocess.run([*command, *(str(part) for pair in sizes.items() for part in pair)], stdout=subprocess.DEVNULL, check=True)
        pq.write_table(ds.dataset(log / "items", format="parquet").to_table(), log / "items.parquet")
        pq.write_table(ds.dataset(log / "events", format="parquet").to_table(), log / "events.parquet", coerce_timestamps="us")
    return log


def scenario(
    options: argparse.Namespace, log: Path, taste: float, target: str, share: float, cuts: tuple[int, int]
) -> tuple[float, float]:
    """Adapt to draws of one platform; gain in test NDCG@10 of what was chosen, over the best that takes nothing from others,
    and its standard error over the pairs of all draws."""
    task = {"log": [log], "target": target, "share": share, "cuts": cuts, "ds": LAST_DAY, "source": None, "scramble": False}
    rows = run(argparse.Namespace(**vars(options) | task), (options.out / f"taste-{taste:g}").absolute())
    tested_rows = {(row["mode"], row["cut"]): tested(row) for row in rows if row["seed"] == 0}
    used = [next(row["mode"] for row in rows if row["used"] and row["cut"] == cut) for cut in range(*cuts)]
    pairs = {mode: np.concatenate([tested_rows[mode, cut] for cut in range(*cuts)]) for mode, _ in tested_rows}
    serves = np.concatenate([tested_rows[mode, cut] for cut, mode in enumerate(used, cuts[0])])
    baseline, transfer = (
        max((mode for mode in pairs if MODES[mode].baseline is kind), key=lambda mode: pairs[mode].mean())
        for kind in (True, False)
    )
    value, error = gain(serves, pairs[baseline])
    best = " | ".join(f"{mode} {pairs[mode].mean():.4f}" for mode in (baseline, transfer))
    took = sum(not MODES[mode].baseline for mode in used)
    print(
        f"| {target} | {taste:g} | {share:.0%} | {len(used)} | {len(serves)} | {best} | {took} | {value:+.1%} ± {error:.1%} |",
        flush=True,
    )
    return value, error


def draw(gains: dict[tuple[str, float], list[tuple[float, float, float]]], file: Path) -> None:
    for (target, share), points in gains.items():
        taste, value, error = zip(*points, strict=True)
        plt.errorbar(taste, value, error, marker="o", capsize=3, label=f"{target}, {share:.0%} of its users")
    plt.axhline(0, color="grey", linewidth=0.8)
    plt.xlabel("share of a person's taste that is the same on all platforms")
    plt.ylabel("gain in test NDCG@10 over the best without other platforms")
    plt.legend()
    plt.savefig(file, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
