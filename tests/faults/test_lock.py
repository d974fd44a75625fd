"""Jobs at once: they take turns on a warehouse of files, and what Delta refuses is told in one line."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from faults.company import DAY, NEXT, Company, Work
from faults.contents import contents, differences

from metarec_spark import job
from metarec_spark.cli import main
from metarec_spark.config import Config
from metarec_spark.job import Job, Result
from metarec_spark.warehouse.tables import Warehouse

EXTRACT, LATER = (Work(("extract",), day, "", "") for day in (DAY, NEXT))


@pytest.mark.usefixtures("spark")
def test_two_days_at_once_end_as_one_after_the_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The first in a process of its own, the other in this."""
    company, undisturbed = Company(tmp_path / "at once"), Company(tmp_path / "in turn")
    first = company.start(EXTRACT)
    assert first.until_logged("reading 7 new or changed files"), first.end()[2]
    with pytest.raises(SystemExit) as ended:
        main(company.arguments(LATER))
    assert [ended.value.code or 0, first.end()[0]] == [0, 0]
    assert "waiting for extract of 2024-01-10" in capfd.readouterr().err
    for work in (EXTRACT, LATER):
        with pytest.raises(SystemExit):
            main(undisturbed.arguments(work))
    assert differences(contents(undisturbed.tables), contents(company.tables)) == []


@pytest.mark.usefixtures("spark")
def test_a_commit_of_another_writer_in_between_is_told_in_one_line(
    settings: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go on"

    def slowly(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        begun.touch()
        while not go_on.exists():
            time.sleep(0.01)
        yield from batches

    def write(of: Job, slow: bool) -> Result:
        rows = of.spark.sql("SELECT 1 AS item_idx, 'shop' AS domain, 'i' AS item_id, 'blocked' AS reason")
        rows = rows.mapInPandas(slowly, rows.schema) if slow else rows
        Warehouse(of.spark, of.config.warehouse).replace_all("withheld", rows, of.commit())
        return Result()

    def both(of: Job) -> Result:
        write(of, slow=False)

        def other() -> None:
            while not begun.exists():
                time.sleep(0.01)
            write(of, slow=False)
            go_on.touch()

        thread = threading.Thread(target=other)
        thread.start()
        try:
            return write(of, slow=True)
        finally:
            thread.join()

    assert job.run("recommend", settings(), DAY, both) == 1
    said = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
    assert said.startswith(
        f"another run or program wrote to file:{tmp_path}/warehouse while recommend of 2024-01-10 did: [DELTA_"
    )
    assert said.endswith("run it again when the other has ended") and "\n" not in said
    assert caplog.messages[-1] == said and "Traceback" not in caplog.text
