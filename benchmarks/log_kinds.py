"""Generated logs of kinds that no public one here has, each with a structure that a recommender can learn.

python benchmarks/log_kinds.py --out DIR [--kinds repeats sessions …] [--users 3000] [--seed 0]
python benchmarks/protocol.py --log DIR/*

Each folder gets events.parquet and, if items have titles, items.parquet. Common structure: items belong to topics, people have a few
topics, and popularity within a topic is skewed. What differs is said beside each kind in ``KINDS``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TOPICS = 40
START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Kind:
    """How a log is drawn."""

    users: int = 3000
    items: int = 1500
    shortest: int = 5
    longest: int = 30
    """Events of a user."""
    repeats: float = 0.0
    """Probability that an event repeats one of the user's own items, newer ones more often."""
    chain: float = 0.5
    """Probability that an event follows the item before in a fixed chain of its topic."""
    random_order: bool = False
    """Whether times are drawn at random after all events are."""
    types: bool = False
    """Whether each purchase is preceded by views of items of the same topic, most of which are never bought."""
    ratings: bool = False
    """Whether events have a value, of 1 or 2 for items of topics that the user does not like."""
    titles: str | None = None
    """Language of the titles, whose words are those of the item's topic: zh or en."""


KINDS: dict[str, Kind] = {
    "repeats": Kind(repeats=0.7, chain=0.2),  # check-ins, groceries
    "sessions": Kind(users=6000, shortest=3, longest=5),  # anonymous shop sessions
    "random-order": Kind(random_order=True, chain=0.0),  # exports without a usable time
    "long": Kind(users=600, shortest=200, longest=500, chain=0.3),  # music, films
    "few-people": Kind(users=300, items=300),  # a new shop
    "views": Kind(types=True),  # views and purchases
    "ratings": Kind(ratings=True, chain=0.2),  # dislikes among likes
    "chinese": Kind(users=1500, items=3000, shortest=3, longest=8, titles="zh"),  # sparse, with titles without blanks
}
WORDS = {"zh": "咖啡豆茶叶酱油米面耳机书包牙膏电池雨伞毛巾台灯水壶", "en": "abcdefghijklmnopqrstuvwxyz"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--users", type=int, help="users of each log, in place of its own number")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.kinds:
        kind = replace(KINDS[name], users=options.users) if options.users else KINDS[name]
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        events, items = drawn(kind, name, np.random.default_rng([options.seed, *name.encode()]))
        pq.write_table(events, folder / "events.parquet")
        if items is not None:
            pq.write_table(items, folder / "items.parquet")
        print(f"{folder}: {events.num_rows:,} events of {kind.users:,} users on {kind.items:,} items")


def drawn(kind: Kind, name: str, random: np.random.Generator) -> tuple[pa.Table, pa.Table | None]:
    """Return events and, if the kind has titles, items."""
    topic = np.sort(random.integers(0, TOPICS, kind.items))
    members = [np.flatnonzero(topic == number) for number in range(TOPICS)]
    chain = np.concatenate([np.roll(random.permutation(part), 1) for part in members])  # item → the next of its topic
    weight = 1 / np.arange(1, kind.items + 1)[random.permutation(kind.items)] ** 0.8
    columns: dict[str, list] = {column: [] for column in ("user_id", "item_id", "event_type", "event_time", "value")}
    pick = _picker(members, weight, random)
    for user in range(kind.users):
        rows = _user(kind, random, topic, chain, pick)
        times = np.sort(random.integers(0, 90 * 86_400, len(rows)))
        times = random.permutation(times) if kind.random_order else times
        for (item, event_type, value), seconds in zip(rows, times, strict=True):
            columns["user_id"].append(f"u{user}")
            columns["item_id"].append(f"i{item}")
            columns["event_type"].append(event_type)
            columns["event_time"].append(START + timedelta(seconds=int(seconds)))
            columns["value"].append(value)
    events = pa.table(columns | {"domain": [name] * len(columns["user_id"])})
    if kind.titles is None:
        return events, None
    words = [random.choice(list(WORDS[kind.titles]), 4, replace=False) for _ in range(TOPICS)]
    titles = ["".join([*random.permutation(words[number])[:3], *random.choice(list(WORDS[kind.titles]), 2)]) for number in topic]
    ids = [f"i{item}" for item in range(kind.items)]
    return events, pa.table({"item_id": ids, "domain": [name] * kind.items, "title": titles})


def _picker(members: list[np.ndarray], weight: np.ndarray, random: np.random.Generator) -> Callable[[int], int]:
    shares = [weight[part] / weight[part].sum() if len(part) else weight[part] for part in members]
    filled = np.array([number for number, part in enumerate(members) if len(part)])

    def pick(number: int) -> int:
        number = int(filled[number % len(filled)])
        return int(random.choice(members[number], p=shares[number]))

    return pick


def _user(
    kind: Kind, random: np.random.Generator, topic: np.ndarray, chain: np.ndarray, pick: Callable[[int], int]
) -> list[tuple[int, str, float]]:
    """Return one user's events, oldest first."""
    liked = random.integers(0, TOPICS, 3)
    rows: list[tuple[int, str, float]] = []
    last: int | None = None
    for _ in range(int(random.integers(kind.shortest, kind.longest + 1))):
        own = [item for item, _, _ in rows]
        if own and random.random() < kind.repeats:
            age = min(int(random.geometric(0.2)) - 1, len(own) - 1)
            item = own[-1 - age] if random.random() < 0.7 else own[int(random.integers(len(own)))]
        elif last is not None and random.random() < kind.chain:
            item = int(chain[last])
        else:
            item = pick(int(random.choice(liked)))
        value = 5.0
        if kind.ratings and random.random() < 0.3:
            item, value = pick(int(random.integers(0, TOPICS))), float(random.integers(1, 3))
        elif kind.ratings:
            value = float(random.integers(4, 6))
        if kind.types:
            rows += [(pick(int(random.integers(0, TOPICS))), "view", 1.0) for _ in range(int(random.integers(0, 3)))]
        rows.append((item, "buy" if kind.types else "event", value))
        last = item
    return rows


if __name__ == "__main__":
    main()
