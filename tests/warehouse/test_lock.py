"""The warehouse's lock: only its owner can take it, and nobody waits for ever."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import DAY  # isort: skip

from metarec_spark import job
from metarec_spark.config import Config
from metarec_spark.errors import Busy
from metarec_spark.job import Result
from metarec_spark.warehouse.lock import can_lock, warehouse_lock


def test_readers_cannot_take_the_lock(tmp_path: Path) -> None:
    (tmp_path / "_lock").touch(mode=0o644)
    umask = os.umask(0)
    try:
        with warehouse_lock(None, f"file:{tmp_path}", "nightly", 1):
            assert (tmp_path / "_lock").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(umask)


def test_the_lock_names_its_owner_and_is_free_after_the_block(tmp_path: Path) -> None:
    for owner in ("a long name of an owner", "nightly"):
        with warehouse_lock(None, f"file:{tmp_path}", owner, 1):
            assert (tmp_path / "_lock").read_text() == owner
            with pytest.raises(Busy, match=f"still in use by {owner} after 0 s"), warehouse_lock(None, str(tmp_path), "x", 0):
                pass


@pytest.mark.usefixtures("spark")
def test_a_wait_ends_with_code_5_and_nothing_is_done(
    settings: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "warehouse").mkdir()
    with (tmp_path / "warehouse" / "_lock").open("w") as lock:
        lock.write("feedback of 2024-01-09")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert job.run("extract", settings(lock={"timeout_seconds": 1}), DAY, lambda _: Result()) == 5
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (
        result["exit_code"] == 5 and "still in use by feedback of 2024-01-09 after 1 s (lock.timeout_seconds)" in result["error"]
    )
    assert caplog.messages[0].startswith("waiting for feedback of 2024-01-09 to end")
    assert sorted(path.name for path in (tmp_path / "warehouse").iterdir()) == ["_lock"]


def test_object_stores_have_no_lock() -> None:
    assert [can_lock(root) for root in ("file:/a", "/a", "hdfs://head/a", "s3a://bucket/a")] == [True, True, True, False]
    with warehouse_lock(None, "s3a://bucket/a", "nightly", 0):
        pass
