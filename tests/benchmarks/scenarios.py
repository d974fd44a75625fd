"""Each of five generated platforms as the new one, by how much of a person's taste the platforms share: what a transfer gains there.

python tests/benchmarks/scenarios.py [--target shop music] [--taste 0 0.5 1] [--share 0.05 0.2] [--out warehouse/scenarios]

Prints a row for each, and draws gain over shared taste in OUT/dose.png. The log has late, duplicate and broken rows, as
``metarec generate`` writes them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from transfer import run

from metarec_spark.transfer.modes import MODES

PLATFORMS = ("shop", "social", "music", "video", "search")
FIRST_DAY, LAST_DAY = "2024-01-01", "2024-01-30"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", default=list(PLATFORMS), choices=PLATFORMS)
    parser.add_argument("--taste", type=float, nargs="+", default=[1.0])
    parser.add_argument("--share", type=float, nargs="+", default=[0.05, 0.2])
    parser.add_argument("--cuts", type=int, nargs=2, default=[0, 1], help="first, and one after the last")
    parser.add_argument("--modes", nargs="+", default=["lent", "taught"], choices=list(MODES))
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=Path("warehouse/scenarios"))
    parser.add_argument("--set", action="append", default=[], help="section.key=value for all commands")
    options = parser.parse_args()
    print("| new platform | shared taste | share of its users | best plain | best transfer | chosen | gain of the chosen |")
    print("|---|---|---|---|---|---|---|", flush=True)
    gains: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for taste in options.taste:
        log = generated(options, taste)
        for target in options.target:
            for share in options.share:
                gain = scenario(options, log, taste, target, share)
                gains.setdefault((target, share), []).append((taste, gain))
    draw(gains, options.out / "dose.png")


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


def scenario(options: argparse.Namespace, log: Path, taste: float, target: str, share: float) -> float:
    """Adapt to cuts of one platform; gain in test NDCG@10 of what the guard chose, over the best that takes nothing from others."""
    task = {"log": [log], "target": target, "share": share, "ds": LAST_DAY, "source": None, "scramble": False}
    rows = run(argparse.Namespace(**vars(options) | task), (options.out / f"taste-{taste:g}").absolute())
    found = []
    for cut in range(*options.cuts):
        of = {row["mode"]: row["test_ndcg"] for row in rows if row["cut"] == cut and row["seed"] == 0}
        used = next(row["mode"] for row in rows if row["used"] and row["cut"] == cut)
        best = [max((of[name], name) for name in of if MODES[name].plain == plain) for plain in (True, False)]
        found.append((of[used] / best[0][0] - 1, best, used))
    gain = statistics.mean(row[0] for row in found)
    plain, transfer = (f"{name} {value:.4f}" for value, name in found[0][1])
    used = ", ".join(row[2] for row in found)
    print(f"| {target} | {taste:g} | {share:.0%} | {plain} | {transfer} | {used} | {gain:+.1%} |", flush=True)
    return gain


def draw(gains: dict[tuple[str, float], list[tuple[float, float]]], file: Path) -> None:
    for (target, share), points in gains.items():
        plt.plot(*zip(*points, strict=True), marker="o", label=f"{target}, {share:.0%} of its users")
    plt.axhline(0, color="grey", linewidth=0.8)
    plt.xlabel("share of a person's taste that is the same on all platforms")
    plt.ylabel("gain in test NDCG@10 over the best without other platforms")
    plt.legend()
    plt.savefig(file, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
