"""Log lines: as text for people, as one JSON object each for machines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import date

import pytest

from metarec_spark.runtime import logs
from metarec_spark.runtime.logs import context, log, start, step


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Put logging back as it was."""
    root, level = logging.getLogger(), log.level
    handlers, of_root = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(of_root)
    log.setLevel(level)
    context.form = "text"
    start("tests", None)
    root.handlers[:] = handlers


@pytest.mark.parametrize("form", ["text", "json"])
def test_each_record_is_one_line_with_job_day_and_step(capsys: pytest.CaptureFixture[str], form: logs.Form):
    context.form = form
    start("nightly", date(2024, 1, 10))
    context.run_id = "r1"
    log.info("begun")
    with step("train"):
        log.info('%d "rows"\nread', 3, extra={"seconds": 1.5, "rows_in": 3, "other": 1})
    log.debug("not shown")
    lines = capsys.readouterr().err.splitlines()
    if form == "text":
        assert [line.split(" INFO ")[1] for line in lines if " INFO " in line] == [
            "nightly 2024-01-10: begun",
            'nightly 2024-01-10 train: 3 "rows"\\nread',
        ]
        return
    said = [json.loads(line) for line in lines]
    assert all(line.pop("time").startswith("20") for line in said)
    same = {"level": "INFO", "run_id": "r1", "job": "nightly", "ds": "2024-01-10"}
    assert said == [
        same | {"step": None, "message": "begun"},
        same | {"step": "train", "message": '3 "rows"\nread', "seconds": 1.5, "rows_in": 3},
    ]


def test_control_characters_are_spelled_out(capsys: pytest.CaptureFixture[str]):
    start("train", None)
    log.info("domains %s", "shop\n2026 INFO forged\x1b[2J\r\u202e\x9b, music é")
    assert capsys.readouterr().err.endswith(" INFO train: domains shop\\n2026 INFO forged\\x1b[2J\\r\\u202e\\x9b, music é\n")


def test_an_error_and_its_traceback_are_one_object_and_the_step_stays(capsys: pytest.CaptureFixture[str]):
    context.form = "json"
    start("nightly", date(2024, 1, 10))
    try:
        with step("train"):
            raise ValueError("no")
    except ValueError:
        log.exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["step"], said["message"], said["level"]) == ("train", "failed", "ERROR")
    assert said["traceback"].startswith("Traceback") and said["traceback"].endswith("ValueError: no")
    start("nightly", date(2024, 1, 11))
    assert context.step is None


def test_an_exceptions_text_is_escaped_too(capsys: pytest.CaptureFixture[str]):
    start("train", None)
    try:
        raise ValueError("no \x1b[2J\r2026 INFO forged\u202e")
    except ValueError:
        log.exception("failed")
    shown = capsys.readouterr().err
    assert "ValueError: no \\x1b[2J\\r2026 INFO forged\\u202e" in shown and not set("\x1b\r\u202e") & set(shown)


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_shown_in_no_line(capsys: pytest.CaptureFixture[str], form: logs.Form):
    context.form = form
    start("train", None)
    logs.hide(["hunter2", "", "hunter2-and-more"])
    try:
        raise ValueError("key hunter2-and-more was refused")
    except ValueError:
        log.exception("with %s", "hunter2")
    finally:
        context.secrets.clear()
    assert "hunter2" not in (shown := capsys.readouterr().err) and shown.count("***") == 3
