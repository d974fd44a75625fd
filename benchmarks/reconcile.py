"""Is every row of a log accounted for? A log of two sources, of which a twentieth is broken, is extracted, and rows are counted.

python benchmarks/reconcile.py [--events 10000000] [--share 0.05] [--out warehouse/reconcile]

The log is a generated one, of which rows are broken on purpose, in each way as often; its own copies, bots and broken rows stay in
it. What was read is counted from the files by Spark, what became of it from ``quality``, and both from the tables themselves.
Exit code 1: a row is missing, or was counted twice.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import processes
from extract import LAST_DAY, generated, opened
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark.warehouse.storage import file_uri
from metarec_spark.warehouse.tables import Warehouse

# What is broken → column and value. A row of a source that says when it arrived has no time in the future but one after that.
BROKEN = {
    "null_user": (c.USER_ID, " "),
    "null_item": (c.ITEM_ID, None),
    "null_domain": (c.DOMAIN, ""),
    "long_id": (c.USER_ID, "x" * 2000),
    "bad_time": (c.EVENT_TIME, None),
    "future_time": (c.EVENT_TIME, "2200-01-01"),
    "unknown_type": (c.EVENT_TYPE, None),
}
SOURCES = ("odd", "even")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--share", type=float, default=0.05, help="share of the rows that is broken")
    parser.add_argument("--out", type=Path, default=Path("warehouse/reconcile"))
    options = parser.parse_args()
    out = options.out.absolute()
    spark = opened(out)
    log, broken = generated(out, options.events), out / f"broken-{options.events}-{options.share}"
    if not (broken / "done").exists():
        shutil.rmtree(broken, ignore_errors=True)
        for number, source in enumerate(SOURCES):
            part = spark.read.parquet(file_uri(log / "events")).where(F.abs(F.xxhash64(c.USER_ID, c.DOMAIN)) % 2 == number)
            damaged(part, options.share).write.partitionBy("ds").parquet(file_uri(broken / source))
        (broken / "done").touch()
    shutil.rmtree(out / "run", ignore_errors=True)
    (out / "run").mkdir()
    sources = "".join(f'[[sources]]\npath = {json.dumps(file_uri(broken / source))}\nday_column = "ds"\n' for source in SOURCES)
    config = out / "run" / "metarec.toml"
    config.write_text(
        f'warehouse = {json.dumps(file_uri(out / "run" / "tables"))}\n{sources}[spark]\nmaster = "local[2]"\n', encoding="utf-8"
    )
    spark.stop()
    ended = processes.run(["metarec", "extract", "--config", config, "--ds", LAST_DAY], out / "run" / "log")
    print(f"{ended.result['rows_in']} rows read, {ended.result['rows_out']} kept, {ended.seconds:.0f} s\n")
    sys.exit(0 if reconciled(opened(out), broken, out / "run" / "tables", options.share) else 1)


def damaged(rows: DataFrame, share: float) -> DataFrame:
    """Rows of which a share is broken, each in one way; ``broken`` says in which."""
    drawn = F.pmod(F.xxhash64(F.lit("broken"), *rows.columns), F.lit(1_000_000)) / 1e6
    way = F.when(drawn < share, F.floor(drawn / share * len(BROKEN)))
    rows = rows.withColumn("broken", F.coalesce(*[F.when(way == number, kind) for number, kind in enumerate(BROKEN)]))
    for kind, (name, value) in BROKEN.items():
        broken, intact = F.lit(value).cast(rows.schema[name].dataType), F.col(name)
        rows = rows.withColumn(name, F.when(F.col("broken") == kind, broken).otherwise(intact))
    return rows


def reconciled(spark: SparkSession, broken: Path, tables: Path, share: float) -> bool:
    """Print what each source's files hold, and what became of it; whether both are the same."""
    warehouse, whole = Warehouse(spark, file_uri(tables)), True
    rows = {(row.source, row.outcome): row.n for row in counts(warehouse.read(c.QUALITY), "outcome", F.sum("rows"))}
    stored = {
        (row.source, "kept"): row.n for row in counts(warehouse.read(c.EVENTS).withColumn("kept", F.lit(0)), "kept", F.count("*"))
    }
    stored |= {(row.source, row.reason): row.n for row in counts(warehouse.read(c.REJECTED_EVENTS), c.REASON, F.count("*"))}
    print(
        "| source | in the files | broken on purpose | kept | rejected | kept + rejected - in the files |\n|---|---|---|---|---|---|"
    )
    for number, source in enumerate(SOURCES):
        files = spark.read.parquet(file_uri(broken / source))
        read, damaged_rows = files.count(), files.where(F.col("broken").isNotNull()).count()
        of_source = {outcome: n for (name, outcome), n in rows.items() if name == f"{number}:parquet"}
        events, rejected = of_source.pop("kept"), sum(of_source.values())
        print(
            f"| {source} | {read:,} | {damaged_rows:,} ({damaged_rows / read:.2%}) | {events:,} | {rejected:,} | {events + rejected - read} |"
        )
        whole &= events + rejected == read and rejected >= damaged_rows > 0.9 * share * read
    print(f"\nrejected: {dict(sorted(((key[1], n) for key, n in stored.items() if key[1] != 'kept'), key=str))}")
    same = rows == stored
    print(f"the tables events and rejected_events {'hold these rows' if same else f'hold others: {stored}'}")
    return whole and same


def counts(table: DataFrame, by: str, count: F.Column) -> list:
    return table.groupBy(c.SOURCE, by).agg(count.alias("n")).collect()


if __name__ == "__main__":
    main()
