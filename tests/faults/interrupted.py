"""A job that works until it is ended, for a process of its own: python -m faults.interrupted FOLDER MARK."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from conftest import DAY, FAST

from metarec_spark import config, job
from metarec_spark.job import Job, Result
from metarec_spark.runtime import logs
from metarec_spark.warehouse.storage import file_uri


def main(folder: Path, mark: Path) -> None:
    settings = config.parse(
        {"warehouse": file_uri(folder), "spark": {"master": "local[1]", "conf": FAST | {"spark.driver.memory": "1g"}}}
    )

    def wait(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        mark.touch()
        time.sleep(600)
        yield from batches

    def work(running: Job) -> Result:
        running.warehouse.ensure("withheld")
        process = running.spark.sparkContext._gateway.proc.pid
        mark.with_suffix(".java").write_text(str(process))
        with running.step("extract"):
            running.spark.range(1).mapInPandas(wait, "id long").collect()
        return Result()

    logs.start("nightly", DAY)
    sys.exit(job.run("nightly", settings, DAY, work))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
