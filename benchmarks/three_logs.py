"""The night's run on three real logs in one warehouse, read back without Spark and checked list by list.

python benchmarks/three_logs.py [--data ../shared/data] [--out warehouse/three_logs] [--epochs 25]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from metarec_spark.warehouse.storage import file_uri

LOGS = ("beauty", "sports", "toys")
DAY = "2014-07-23"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("warehouse/three_logs"))
    parser.add_argument("--epochs", type=int, default=25)
    options = parser.parse_args()
    missing = [str(options.data / log) for log in LOGS if not (options.data / log / "events.parquet").exists()]
    if missing:
        sys.exit(f"this benchmark needs the logs {', '.join(missing)}; they are not there")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "three_logs.toml"
    file.write_text(configuration(options.data.absolute(), options.out.absolute(), options.epochs), encoding="utf-8")
    start = time.monotonic()
    night = subprocess.run(["metarec", "nightly", "--config", file, "--ds", DAY], stdout=subprocess.PIPE, text=True, check=True)
    print(
        json.dumps(
            {
                "nightly_seconds": round(time.monotonic() - start, 1),
                "model": json.loads(night.stdout.splitlines()[-1])["model_id"],
            }
        )
    )
    print(json.dumps(check(options.data, options.out / "tables", top_n=100)))


def configuration(data: Path, out: Path, epochs: int) -> str:
    lines = [f"warehouse = {json.dumps(file_uri(out / 'tables'))}"]
    for log in LOGS:
        lines += ["[[sources]]", f"path = {json.dumps(file_uri(data / log / 'events.parquet'))}"]
        lines += ["[[items]]", f"path = {json.dumps(file_uri(data / log / 'items.parquet'))}"]
    return "\n".join([*lines, "[split]", 'protocol = "none"', "[train]", f"epochs = {epochs}", "[recommend]", "top_n = 100", ""])


def check(data: Path, tables: Path, top_n: int) -> dict[str, int]:
    """Hold every list of ``recommendations``, read by delta-rs, against the logs themselves."""
    table = DeltaTable(str(tables / "recommendations")).to_pyarrow_table()
    events = pa.concat_tables(
        pq.read_table(data / log / "events.parquet", columns=["user_id", "domain", "item_id"]) for log in LOGS
    )
    pairs = events.group_by(["user_id", "domain"]).aggregate([])
    items = table["items"].combine_chunks()
    sizes = pc.list_value_length(items)
    flat = pa.table(
        {
            "user_id": table["user_id"].combine_chunks().take(pc.list_parent_indices(items)),
            "domain": table["domain"].combine_chunks().take(pc.list_parent_indices(items)),
            "item_id": pc.struct_field(pc.list_flatten(items), "item_id"),
        }
    )
    keys = ["user_id", "domain", "item_id"]
    return {
        "pairs_in_the_logs": pairs.num_rows,
        "lists": table.num_rows,
        "lists_of_pairs_in_the_logs": pairs.join(
            table.select(["user_id", "domain"]), ["user_id", "domain"], join_type="inner"
        ).num_rows,
        "lists_of_exactly_top_n": pc.sum(pc.equal(sizes, top_n)).as_py(),
        "items": flat.num_rows,
        "items_twice_in_a_list": flat.num_rows - flat.group_by(keys).aggregate([]).num_rows,
        "items_seen": flat.join(events, keys, join_type="left semi").num_rows,
    }


if __name__ == "__main__":
    main()
