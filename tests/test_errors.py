"""What is said of errors that come from elsewhere."""

from __future__ import annotations

import pytest

from metarec_spark.errors import first_line, unreadable


def test_of_an_error_in_a_python_worker_the_line_says_what_was_raised(spark):
    def fail(batches):
        raise ValueError("of 3 columns, got 2")
        yield from batches

    with pytest.raises(Exception, match="of 3 columns") as raised:
        spark.range(1).mapInPandas(fail, "id long").collect()
    assert first_line(raised.value) == "ValueError: of 3 columns, got 2"


def test_of_any_other_error_the_line_is_the_first():
    assert [first_line(ValueError(said)) for said in ("one\ntwo", "")] == ["one", ""]


@pytest.mark.parametrize("cause", ["Permission denied", "No space left on device", "Read-only file system"])
def test_a_table_that_the_machine_keeps_from_being_written_is_not_called_damaged(cause):
    assert unreadable(Exception(f"java.io.FileNotFoundException: /w/events/_delta_log/0.json ({cause})")) is None
    assert "table events cannot be read" in unreadable(Exception("not JSON: /w/events/_delta_log/0.json"))
