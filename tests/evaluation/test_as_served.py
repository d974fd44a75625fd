"""What is measured is what is served: the rank of a held-out item is its place in the list of its user, under every rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation.factories import batch_of, with_baselines
from model.factories import catalogue, saved
from scipy import sparse

from metarec_spark.evaluation.ranks import RankingTask, rank
from metarec_spark.model.ensemble.unordered import UnorderedSignals, UnorderedWeights
from metarec_spark.model.repeats import RepeatParams
from metarec_spark.scoring.batch import ScoringTask, score
from metarec_spark.scoring.timings import Timings

LONGEST = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    random = np.random.default_rng(0)
    follows = random.random((20, 20)) * (random.random((20, 20)) < 0.4)
    users = [sparse.csr_matrix((random.random((40, 10)) < 0.3).astype(np.float32)) for _ in range(2)]
    terms = {
        "repeats": RepeatParams(weight=1.0),
        "unordered": UnorderedWeights(neighbours=5.0, factors=2.0, popularity=0.3),
        "signals": [UnorderedSignals.fit(matrix) for matrix in users],
    }
    return with_baselines(saved(tmp_path_factory.mktemp("served") / "model", catalogue(transitions=follows), **terms))


def pairs(repeats: bool) -> list[dict]:
    """Users with histories of even and odd items; of the even items, the targets are drawn."""
    random, found = np.random.default_rng(1), []
    for _ in range(200):
        context = random.integers(1, 20, random.integers(0, 6)).tolist()
        target = int(random.integers(0, 10) * 2)
        if (target in context) == repeats:
            found.append({"context": context, "target": target, "repeat": repeats, "seen": sorted({*context} - {target})})
    return found


def rules(folder: Path) -> Path:
    """Items 4 and 12 are excluded; of the items 0, 2, 6, 8 and 10 a list holds one, of 14 and 16 too."""
    groups = [(item, 0, "a", 1) for item in (0, 2, 6, 8, 10)] + [(item, 1, "b", 1) for item in (14, 16)]
    columns = zip(*groups, strict=True)
    pq.write_table(pa.table({"item_idx": pa.array([4, 12], pa.int32())}), folder / "withheld")
    pq.write_table(
        pa.table(dict(zip(("item_idx", "cap", "group", "at_most"), map(list, columns), strict=True))), folder / "group"
    )
    return folder


@pytest.mark.parametrize("repeats", [True, False], ids=["repeats", "first time"])
@pytest.mark.parametrize("exclude_seen", [True, False], ids=["unseen items", "all items"])
@pytest.mark.parametrize("ruled", [True, False], ids=["rules", "no rules"])
@pytest.mark.parametrize("least", [-np.inf, 1.0], ids=["any score", "least score"])
def test_a_targets_rank_is_its_place_in_the_list(spark, folder, tmp_path, repeats, exclude_seen, ruled, least):
    given, ruled = pairs(repeats), str(rules(tmp_path)) if ruled else None
    batch = batch_of(*given)
    seen_allowed = frozenset() if exclude_seen else frozenset(["books"])
    conditions = {"seen_allowed": seen_allowed, "rules": ruled, "min_score": {"books": least}}
    task = RankingTask(str(folder), str(folder / "baselines"), LONGEST, 3, 4, **conditions)
    measured = [row for part in rank([batch], task) for row in part.to_pylist() if row["scorer"] == "model" and row["all"]]
    assert measured or (repeats and exclude_seen), "otherwise nothing is compared"
    seen = pa.array([sorted({*pair["context"]}) for pair in given], pa.list_(pa.int32()))
    domains = pa.array([[0]] * len(given), pa.list_(pa.int32()))
    users = pa.RecordBatch.from_arrays(
        [*batch.columns, seen, domains, domains], [*batch.schema.names, "seen_items", "wanted", "active"]
    )
    served = ScoringTask(str(folder), LONGEST, **conditions)
    lists = {
        row["user_id"]: row["items"] for part in score([users], served, Timings(spark.sparkContext)) for row in part.to_pylist()
    }
    for row in measured:
        items = [item["item_id"] for item in lists[row["user_id"]]]
        target = f"i{row['target']}"
        assert (row["rank"] if row["rank"] <= LONGEST else None) == (items.index(target) + 1 if target in items else None)
    if not repeats and not ruled:
        assert len(measured) == len(given)
