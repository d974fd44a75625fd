"""Spark's ALS beside a recommend job of the same users, items and list length: seconds to make all lists.

python benchmarks/als.py [--users 1000000] [--items 50000] [--rank 64] [--of WAREHOUSE_OF_recommend_job] [--out warehouse/als]

ALS is trained with one iteration on the generated histories: its factors are as many as after more of them. Timed is
recommendForAllUsers alone, written as Parquet, on local[2] with 8 GB for the driver; it leaves no seen items out. --share scores
some of the users alone, and says what all of them would take at the same speed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import processes
from pyspark.ml.recommendation import ALS
from pyspark.sql import functions as F
from recommend_job import prepared, sizes

from metarec_spark import columns as c
from metarec_spark import config
from metarec_spark.runtime.session import session
from metarec_spark.warehouse.storage import file_uri
from metarec_spark.warehouse.tables import Warehouse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--share", type=float, default=1.0, help="of the users who get lists")
    parser.add_argument("--of", type=Path, help="folder that recommend_job.py has made; otherwise one is made")
    parser.add_argument("--out", type=Path, default=Path("warehouse/als"))
    sizes(parser)
    options = parser.parse_args()
    out = options.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    tables = options.of.absolute() if options.of else out / "made"
    if not options.of:
        prepared(tables, vars(options) | {"out": None, "of": None})
    given = {"tables": file_uri(tables / "tables"), "rank": options.rank, "share": options.share, "n": options.top_n}
    ended = processes.run([sys.executable, __file__, "lists", out, json.dumps(given)], out / "als.log")
    result = ended.result
    whole = result["seconds"] / result["users"] * options.users
    print(f"| users with lists | seconds | for all {options.users:,} users | million pairs/s | training, s | peak memory, GB |")
    print("|---|---|---|---|---|---|")
    rate = result["users"] * options.items / result["seconds"] / 1e6
    print(
        f"| {result['users']:,} | {result['seconds']:.0f} | {whole:.0f} | {rate:.0f} | {result['training']:.0f} | {ended.peak:.2f} |"
    )


def lists(out: Path, sizes: dict) -> dict:
    """Train, then time the lists."""
    settings = {"master": "local[2]", "conf": {"spark.driver.memory": "8g"}}
    spark = session(config.parse({"warehouse": sizes["tables"], "spark": settings}), "benchmark")
    users = Warehouse(spark, sizes["tables"]).read(c.USER_SEQUENCES)
    number = F.substring(c.USER_ID, 2, 8).cast("int").alias("user")
    events = users.select(number, F.explode(c.ITEM_IDX).alias("item")).withColumn("rating", F.lit(1.0))
    start = time.perf_counter()
    trained = ALS(
        rank=sizes["rank"], maxIter=1, userCol="user", itemCol="item", implicitPrefs=True, numUserBlocks=4, numItemBlocks=4
    ).fit(events)
    training = time.perf_counter() - start
    some = users.select(number).where(F.rand(1) < sizes["share"])
    count, start = some.count(), time.perf_counter()
    recommended = (
        trained.recommendForUserSubset(some, sizes["n"]) if sizes["share"] < 1 else trained.recommendForAllUsers(sizes["n"])
    )
    recommended.write.mode("overwrite").parquet(file_uri(out / "lists"))
    return {"users": count, "seconds": time.perf_counter() - start, "training": training}


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "lists":
        print(json.dumps(lists(Path(sys.argv[2]), json.loads(sys.argv[3]))))
    else:
        main()
