"""A recommend job at size on generated tables: a full run, a run after a day of few changes, and how both compare with the kernel.

python benchmarks/recommend_job.py [--users 1000000] [--items 50000] [--changed 0.01] [--longest 15] [--out warehouse/job]

Tables and a model with drawn parameters are written first: histories of 3 to --longest events, items with --successors successors.
Each run is a process of its own, as `metarec recommend` on local[2]; its peak memory is that of its process tree, sampled. The
kernel is the search alone, by two threads, of 16,384 of these users, with what is added to their scores and their seen items.
The incremental run's table is compared with that of a full run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import processes
import pyarrow as pa
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from metarec_spark import __version__, config
from metarec_spark import columns as c
from metarec_spark.config.sections import Features, Model, Split, Train, Transitions
from metarec_spark.features.encoding import GAP_BUCKETS
from metarec_spark.job import Job
from metarec_spark.model import artifact
from metarec_spark.model.catalogue import Catalogue, Successors
from metarec_spark.model.encoder import NextItemModel
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.manifest import DomainSettings, Manifest
from metarec_spark.model.ranking import seen_local_indexes
from metarec_spark.model.scorer import Scorer
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.runtime.session import session
from metarec_spark.scoring.batch import contexts_of
from metarec_spark.scoring.recommend import inputs
from metarec_spark.scoring.topn import ExactIndex
from metarec_spark.warehouse.storage import file_uri
from metarec_spark.warehouse.tables import Warehouse

DAY, MODEL = date(2024, 1, 10), "generated"
LONGEST, ASKED = 50, 16_384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--changed", type=float, default=0.01, help="share of the users who have an event on the second day")
    parser.add_argument("--out", type=Path, default=Path("warehouse/job"))
    sizes(parser)
    options = parser.parse_args()
    out, given = options.out.absolute(), vars(options) | {"out": None}
    prepared(out, given)
    pairs = options.users * options.items
    kernel = options.items / step(out, "kernel", given)["seconds_a_user"]
    print(f"kernel alone, 2 threads: {kernel / 1e6:.0f} million pairs/s\n", flush=True)
    print("| run | users scored | seconds | of them for lists | peak memory, GB | million pairs/s | of the kernel's |")
    print("|---|---|---|---|---|---|---|", flush=True)

    def night(name: str, ds: date, pairs: int | None, *more: str) -> None:
        ended = submitted(out, name, ds, *more)
        result = ended.result
        rate = f"{pairs / result['seconds'] / 1e6:.0f} | {pairs / result['seconds'] / kernel:.0%}" if pairs else " | "
        cells = (
            f"{name} | {result['scored_users']:,} | {result['seconds']} | {result['list_seconds']} | {ended.peak:.2f} | {rate}"
        )
        print(f"| {cells} | {result['processor_seconds']}", flush=True)

    night("full", DAY, pairs)
    step(out, "changed", given)
    night("few changed", DAY + timedelta(days=1), None)
    step(out, "saved", given)
    night("full, the same day", DAY + timedelta(days=1), pairs, "--set", "recommend.mode=full")
    differ = step(out, "compared", given)["rows"]
    print(f"\nrows of the incremental run that the full run has not, and the reverse: {differ}")
    sys.exit(any(differ))


def sizes(parser: argparse.ArgumentParser) -> None:
    """Options on what is generated, beside users and items."""
    parser.add_argument("--successors", type=int, default=20)
    parser.add_argument("--longest", type=int, default=15)
    parser.add_argument("--top-n", type=int, default=10)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--heavy", type=int, default=0, help="events of one more user; 0: there is no such user")


def prepared(out: Path, given: dict) -> None:
    """A folder with a configuration, tables and a model."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "metarec.toml").write_text(
        f"warehouse = {json.dumps(file_uri(out / 'tables'))}\n[recommend]\ntop_n = {given['top_n']}\n"
        '[spark]\nmaster = "local[2]"\nconf = { "spark.driver.memory" = "4g" }\n',
        encoding="utf-8",
    )
    step(out, "tables_and_model", given)


def step(out: Path, name: str, given: dict) -> dict:
    """Part of the benchmark's own work, in a process with Spark that ends before a run is timed; what it says."""
    ended = subprocess.run([sys.executable, __file__, name, str(out), json.dumps(given)], check=True, stdout=subprocess.PIPE)
    return json.loads(ended.stdout.splitlines()[-1])


def submitted(out: Path, name: str, ds: date, *more: str, **environment: str) -> processes.Ended:
    """Run recommend through spark-submit."""
    command = ["deploy/submit.sh", "recommend_batch", "--config", out / "metarec.toml", "--ds", ds.isoformat(), *more]
    environment = {"SPARK_MASTER": "local[2]", "OMP_NUM_THREADS": "1"} | environment
    return processes.run(command, out / f"{name}.log", **environment)


def opened(out: Path) -> Job:
    settings = config.load(out / "metarec.toml", [])
    spark = session(settings, "benchmark")
    return Job("benchmark", settings, DAY, spark, Warehouse(spark, settings.warehouse))


def tables_and_model(job: Job, out: Path, given: dict) -> dict:
    """Tables and a model."""
    for name in (c.EVENTS, c.ITEM_CONTENT, c.ITEM_TRANSITIONS):
        job.warehouse.ensure(name)
    day = F.lit(DAY - timedelta(days=1))
    items = job.spark.range(given["items"]).select(
        *[
            F.col("id").cast("int").alias(c.ITEM_IDX),
            F.lit("shop").alias(c.DOMAIN),
            F.format_string("i%d", "id").alias(c.ITEM_ID),
        ],
        *[F.lit(1).cast("long").alias("events"), day.alias("first_day"), day.alias("last_day")],
    )
    job.warehouse.replace_all(c.ITEMS, items, job.commit())
    length = F.lit(3) + (F.rand(1) * (given["longest"] - 2)).cast("int")
    users = job.spark.range(given["users"]).select(F.format_string("u%08d", "id").alias(c.USER_ID), length.alias("n"), "id")
    if given["heavy"]:
        one = job.spark.range(given["users"], given["users"] + 1)
        users = users.unionByName(one.select(F.lit("u-heavy").alias(c.USER_ID), F.lit(given["heavy"]).alias("n"), "id"))
    item = F.transform(F.sequence(F.lit(1), "n"), lambda k: F.pmod(F.xxhash64("id", k), F.lit(given["items"])).cast("int"))
    job.warehouse.replace_all(c.USER_SEQUENCES, rows(users.withColumn(c.ITEM_IDX, item)), job.commit())
    folder = out / "tables" / "_models" / MODEL
    model(folder, given)
    record = {
        "model_id": MODEL,
        "parent": None,
        "kind": "base",
        "domains": ["shop"],
        "ds": DAY,
        "table_versions": {},
        "config": "{}",
        "metrics": "{}",
    }
    record |= {"status": "approved", "reason": None, "path": file_uri(folder), "code_version": "benchmark"}
    job.warehouse.merge_records(c.MODELS, [record], job.commit())
    return {}


def rows(users: DataFrame) -> DataFrame:
    """Rows of ``user_sequences``, from users and their items: an event an hour, of which the newest are kept."""
    users = users.withColumns(
        {"seen_items": F.array_sort(F.array_distinct(c.ITEM_IDX)), "events": F.size(c.ITEM_IDX).cast("long")}
    )
    users = users.withColumn(c.ITEM_IDX, F.slice(c.ITEM_IDX, F.greatest(F.lit(1), F.size(c.ITEM_IDX) - LONGEST + 1), LONGEST))
    time = F.transform(c.ITEM_IDX, lambda _, k: F.timestamp_seconds(F.lit(1_704_000_000) + 3600 * k))
    constant = {
        name: F.array_repeat(F.lit(value), F.size(c.ITEM_IDX)) for name, value in ((c.DOMAIN, "shop"), (c.EVENT_TYPE, "view"))
    }
    sequences = users.withColumns({**constant, c.EVENT_TIME: time, "active_domains": F.array(F.lit("shop"))})
    return sequences.select(c.USER_ID, c.ITEM_IDX, c.DOMAIN, c.EVENT_TYPE, c.EVENT_TIME, "seen_items", "active_domains", "events")


def model(folder: Path, given: dict) -> None:
    random, items = np.random.default_rng(0), given["items"]
    row = np.repeat(np.arange(items), given["successors"])
    pair = np.unique(row * items + random.integers(0, items, len(row)))
    signals = random.random((3, len(pair)))
    catalogue = Catalogue(
        domain=np.zeros(items, np.int32),
        events=random.integers(1, 1000, items),
        tokens=np.zeros((items, 1), np.int32),
        weights=np.zeros((items, 1), np.float32),
        token_hashes=np.zeros(1, np.int64),
        vectors=np.zeros((items, 0), np.float32),
        successors=Successors.from_pairs(items, *np.divmod(pair, items), *signals),
    )
    params, fusion = TransitionParams.from_settings(Transitions()), Fusion(transitions=1.0)
    manifest = Manifest(
        model_id=MODEL,
        serves=["shop"],
        domains=["shop"],
        event_types=["view"],
        items=items,
        max_length=LONGEST,
        gap_buckets=GAP_BUCKETS,
        ds=DAY,
        code_version=__version__,
        table_versions={},
        model=Model(dim=given["dim"]),
        transitions=Transitions(),
        split=Split(),
        features=Features(),
        train=Train(),
        tuned={"shop": DomainSettings(params=params, fusion=fusion)},
    )
    torch.manual_seed(0)
    network = NextItemModel(manifest.model, manifest.shape, catalogue)
    artifact.save(folder, manifest, network, catalogue, pa.chunked_array([[f"i{i}" for i in range(items)]]))


def changed(job: Job, out: Path, given: dict) -> dict:
    """Some users have one more event."""
    users = job.warehouse.read(c.USER_SEQUENCES).where(F.rand(2) < given["changed"]).select(c.USER_ID, c.ITEM_IDX)
    more = F.concat(c.ITEM_IDX, F.array((F.rand(3) * given["items"]).cast("int")))
    job.warehouse.merge(c.USER_SEQUENCES, rows(users.withColumn(c.ITEM_IDX, more)).persist(), job.commit())
    return {}


def kernel(job: Job, out: Path, given: dict) -> dict:
    """Seconds that the search of some of the users takes."""
    torch.set_num_threads(1)
    loaded = artifact.load(out / "tables" / "_models" / MODEL)
    scorer = Scorer(loaded)
    users = inputs(job.warehouse.read(c.USER_SEQUENCES), loaded.manifest, ["shop"], None, everywhere=False).limit(ASKED)
    (batch,) = users.toArrow().combine_chunks().to_batches()
    contexts = contexts_of(batch)
    hidden = scorer.hidden(contexts)
    vectors, index = scorer.user_vectors(contexts, hidden, 0).numpy(), ExactIndex(scorer.item_vectors(0).numpy())
    additions = scorer.additions(contexts, hidden, 0)
    lists = batch["seen_items"]
    row, local = seen_local_indexes(scorer.catalogue.of_domain[0], lists.flatten().to_numpy(), np.diff(lists.offsets.to_numpy()))
    seen = sparse.csr_matrix((np.ones(len(row), np.float32), (row, local)), additions.shape)
    index.search(vectors[:256], given["top_n"], seen[:256], additions[:256])
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        index.search(vectors, given["top_n"], seen, additions, threads=2)
        taken.append(time.perf_counter() - start)
    return {"seconds_a_user": sorted(taken)[1] / len(vectors)}


def saved(job: Job, out: Path, given: dict) -> dict:
    job.warehouse.read(c.RECOMMENDATIONS).write.mode("overwrite").parquet(file_uri(out / "incremental"))
    return {}


def compared(job: Job, out: Path, given: dict) -> dict:
    one, other = job.spark.read.parquet(file_uri(out / "incremental")), job.warehouse.read(c.RECOMMENDATIONS)
    other = other.select(*one.columns)
    return {"rows": [one.exceptAll(other).count(), other.exceptAll(one).count()]}


STEPS = {step.__name__: step for step in (tables_and_model, changed, kernel, saved, compared)}

if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in STEPS:
        folder = Path(sys.argv[2])
        print(json.dumps(STEPS[sys.argv[1]](opened(folder), folder, json.loads(sys.argv[3]))))
    else:
        main()
