"""What is said of errors that come from elsewhere."""

from __future__ import annotations

import pytest

from metarec_spark.errors import first_line


def test_of_an_error_in_a_python_worker_the_line_says_what_was_raised(spark):
    def fail(batches):
        raise ValueError("of 3 columns, got 2")
        yield from batches

    with pytest.raises(Exception, match="of 3 columns") as raised:
        spark.range(1).mapInPandas(fail, "id long").collect()
    assert first_line(raised.value) == "ValueError: of 3 columns, got 2"


def test_of_any_other_error_the_line_is_the_first():
    assert [first_line(ValueError(said)) for said in ("one\ntwo", "")] == ["one", ""]
