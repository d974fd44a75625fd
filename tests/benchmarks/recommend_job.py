"""A recommend job at size on generated tables: a full run, a run after a day of few changes, and how both compare with the kernel.

python tests/benchmarks/recommend_job.py [--users 1000000] [--items 50000] [--changed 0.01] [--longest 15] [--out warehouse/job]

Tables and a model with drawn parameters are written first: histories of 3 to --longest events, items with --successors successors.
Each run is a process of its own, as `metarec recommend` on local[2]; its peak memory is that of its process tree, sampled.
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

from metarec_spark import columns as c
from metarec_spark import config
from metarec_spark.features.encoding import GAP_BUCKETS
from metarec_spark.job import Job
from metarec_spark.model import bundle
from metarec_spark.model.catalogue import Catalogue, Successors
from metarec_spark.model.transfer import Lending
from metarec_spark.model.transformer import NextItemModel, Shape
from metarec_spark.scoring.topn import ExactIndex
from metarec_spark.sections import Model, Transitions
from metarec_spark.session import session
from metarec_spark.storage import file_uri
from metarec_spark.tables import Warehouse

DAY, MODEL = date(2024, 1, 10), "generated"
LONGEST = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--successors", type=int, default=20)
    parser.add_argument("--longest", type=int, default=15)
    parser.add_argument("--changed", type=float, default=0.01, help="share of the users who have an event on the second day")
    parser.add_argument("--top-n", type=int, default=10)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("warehouse/job"))
    options = parser.parse_args()
    out = options.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "metarec.toml").write_text(
        f"warehouse = {json.dumps(file_uri(out / 'tables'))}\n[recommend]\ntop_n = {options.top_n}\n"
        '[spark]\nmaster = "local[2]"\nconf = { "spark.driver.memory" = "4g" }\n',
        encoding="utf-8",
    )
    step(out, "made", options)
    pairs, kernel = options.users * options.items, of_kernel(options)
    print(f"kernel alone, 2 threads: {kernel / 1e6:.0f} million pairs/s", flush=True)
    print(
        "| run | users scored | seconds | peak memory, GB | million pairs/s | of the kernel's |\n|---|---|---|---|---|---|",
        flush=True,
    )
    night(out, "full", DAY, pairs, kernel)
    step(out, "changed", options)
    night(out, "few changed", DAY + timedelta(days=1), None, kernel)
    step(out, "kept", options)
    night(out, "full, the same day", DAY + timedelta(days=1), pairs, kernel, "--set", "recommend.mode=full")
    step(out, "compared", options)


def step(out: Path, name: str, options: argparse.Namespace) -> None:
    """Part of the benchmark's own work, in a process with Spark that ends before a run is timed."""
    given = {of: getattr(options, of) for of in ("users", "items", "successors", "longest", "changed", "dim")}
    subprocess.run([sys.executable, __file__, name, str(out), json.dumps(given)], check=True)


def opened(out: Path) -> Job:
    made = config.load(out / "metarec.toml", [])
    spark = session(made, "benchmark")
    return Job("benchmark", made, DAY, spark, Warehouse(spark, made.warehouse))


def made(out: Path, of: dict) -> None:
    """Tables and a model."""
    job = opened(out)
    for name in (c.EVENTS, c.ITEMS, c.ITEM_CONTENT, c.ITEM_TRANSITIONS):
        job.warehouse.ensure(name)
    length = F.lit(3) + (F.rand(1) * (of["longest"] - 2)).cast("int")
    users = job.spark.range(of["users"]).select(F.format_string("u%08d", "id").alias(c.USER_ID), length.alias("n"), "id")
    item = F.transform(F.sequence(F.lit(1), "n"), lambda k: F.pmod(F.xxhash64("id", k), F.lit(of["items"])).cast("int"))
    job.warehouse.replace_all(c.USER_SEQUENCES, rows(users.withColumn(c.ITEM_IDX, item)), job.commit())
    folder = out / "tables" / "_models" / MODEL
    model(folder, of)
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


def rows(users: DataFrame) -> DataFrame:
    """Rows of ``user_sequences``, from users and their items: an event an hour."""
    time = F.transform(c.ITEM_IDX, lambda _, k: F.timestamp_seconds(F.lit(1_704_000_000) + 3600 * k))
    alike = {
        name: F.array_repeat(F.lit(value), F.size(c.ITEM_IDX)) for name, value in ((c.DOMAIN, "shop"), (c.EVENT_TYPE, "view"))
    }
    known = {"seen_items": F.array_sort(F.array_distinct(c.ITEM_IDX)), "active_domains": F.array(F.lit("shop"))}
    found = users.withColumns({**alike, c.EVENT_TIME: time, **known, "events": F.size(c.ITEM_IDX).cast("long")})
    return found.select(c.USER_ID, c.ITEM_IDX, c.DOMAIN, c.EVENT_TYPE, c.EVENT_TIME, "seen_items", "active_domains", "events")


def model(folder: Path, of: dict) -> None:
    random, items = np.random.default_rng(0), of["items"]
    row = np.repeat(np.arange(items), of["successors"])
    pair = np.unique(row * items + random.integers(0, items, len(row)))
    signals = random.random((3, len(pair)))
    catalogue = Catalogue(
        domain=np.zeros(items, np.int32),
        events=random.integers(1, 1000, items),
        tokens=np.zeros((items, 1), np.int32),
        weights=np.zeros((items, 1), np.float32),
        token_hashes=np.zeros(1, np.int64),
        vectors=np.zeros((items, 0), np.float32),
        successors=Successors.of(items, *np.divmod(pair, items), *signals),
    )
    settings, lending = Model(dim=of["dim"]), Lending.by(Transitions()).model_dump()
    manifest = {
        "model_id": MODEL,
        "domains": ["shop"],
        "event_types": ["view"],
        "gap_buckets": GAP_BUCKETS,
        "max_length": LONGEST,
        "items": items,
    }
    manifest |= {"vector_widths": [], "transitions": Transitions().model_dump(), "model": settings.model_dump()}
    manifest["tuned"] = {
        "shop": {"lending": lending, "fusion": {"base": 1.0, "transfer": 1.0, "sharpness": 10.0}, "stacked": False}
    }
    torch.manual_seed(0)
    network = NextItemModel(settings, Shape(1, 1, GAP_BUCKETS, LONGEST), catalogue)
    bundle.save(folder, manifest, network, catalogue, pa.chunked_array([[f"i{i}" for i in range(items)]]))


def changed(out: Path, of: dict) -> None:
    """Some users have one more event."""
    job = opened(out)
    users = job.warehouse.read(c.USER_SEQUENCES).where(F.rand(2) < of["changed"]).select(c.USER_ID, c.ITEM_IDX)
    more = F.slice(F.concat(c.ITEM_IDX, F.array((F.rand(3) * of["items"]).cast("int"))), -LONGEST, LONGEST)
    more = F.when(F.size(c.ITEM_IDX) < LONGEST, F.concat(c.ITEM_IDX, F.array((F.rand(3) * of["items"]).cast("int")))).otherwise(
        more
    )
    job.warehouse.merge(c.USER_SEQUENCES, rows(users.withColumn(c.ITEM_IDX, more)).persist(), job.commit())


def kept(out: Path, of: dict) -> None:
    opened(out).warehouse.read(c.RECOMMENDATIONS).write.mode("overwrite").parquet(file_uri(out / "incremental"))


def compared(out: Path, of: dict) -> None:
    """Stop where the full run's table is another."""
    job = opened(out)
    one, other = job.spark.read.parquet(file_uri(out / "incremental")), job.warehouse.read(c.RECOMMENDATIONS)
    differ = [one.exceptAll(other.select(*one.columns)).count(), other.select(*one.columns).exceptAll(one).count()]
    print(f"rows of the incremental run that the full run has not, and the reverse: {differ[0]}, {differ[1]}")
    if any(differ):
        sys.exit(1)


def night(out: Path, name: str, ds: date, pairs: int | None, kernel: float, *more: str) -> None:
    """Run recommend through spark-submit, and print a line."""
    command = ["deploy/submit.sh", "recommend_batch", "--config", out / "metarec.toml", "--ds", ds.isoformat(), *more]
    ended = processes.run(command, out / f"{name}.log", SPARK_MASTER="local[2]", OMP_NUM_THREADS="1")
    said = ended.said
    rate = f"{pairs / said['seconds'] / 1e6:.0f} | {pairs / said['seconds'] / kernel:.0%}" if pairs else " | "
    print(f"| {name} | {said['scored_users']} | {said['seconds']} | {ended.peak:.2f} | {rate} |", flush=True)


def of_kernel(options: argparse.Namespace) -> float:
    """Pairs a second of searches alone, on as long histories."""
    random = np.random.default_rng(0)
    users, items = (random.standard_normal((n, options.dim)).astype(np.float32) for n in (8_192, options.items))
    length = random.integers(3, options.longest + 1, len(users))
    row = np.repeat(np.arange(len(users)), length)
    seen = sparse.csr_matrix(
        (np.ones(len(row), np.float32), (row, random.integers(0, options.items, len(row)))), (len(users), len(items))
    )
    torch.set_num_threads(1)
    index = ExactIndex(items)
    index.search(users[:256], options.top_n, seen[:256])
    start = time.perf_counter()
    index.search(users, options.top_n, seen, threads=2)
    return len(users) * len(items) / (time.perf_counter() - start)


if __name__ == "__main__":
    if len(sys.argv) > 3 and sys.argv[1] in ("made", "changed", "kept", "compared"):
        globals()[sys.argv[1]](Path(sys.argv[2]), json.loads(sys.argv[3]))
    else:
        main()
