"""README.md is true: its commands exist, its configuration is valid, its snippets run, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import typer
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark import config
from metarec_spark.cli import app
from metarec_spark.columns import ALL
from metarec_spark.job import Job

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands
WAREHOUSE = "file:///data/metarec"
DS = date(2024, 1, 15)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def shell_lines() -> list[list[str]]:
    """The words of every command in a bash block; variables set before a command are left out."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [[word for place, word in enumerate(line) if not (re.match(r"[A-Z_]+=", word) and place < 3)] for line in words]


def table_after(heading: str) -> list[str]:
    """What stands between backticks in the first column of the table under ``heading``."""
    section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)


@pytest.mark.parametrize("words", [line for line in shell_lines() if line[0] == "metarec"], ids=" ".join)
def test_a_metarec_line_names_an_existing_command_and_options_that_it_takes(words: list[str]) -> None:
    command = COMMANDS[words[1]]
    context = command.make_context(words[1], words[2:])
    assert context.params["ds"].date() == DS
    for override in context.params["set_"] or []:
        config.parse(config.overridden({"warehouse": WAREHOUSE}, [override]))


@pytest.mark.parametrize("words", [line for line in shell_lines() if line[0] == "make"], ids=" ".join)
def test_a_make_line_names_an_existing_target(words: list[str]) -> None:
    planned = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize("words", [line for line in shell_lines() if line[0].startswith("deploy/")], ids=" ".join)
def test_a_script_line_names_an_existing_script_and_arguments_that_its_job_takes(words: list[str]) -> None:
    script = ROOT / words[0]
    assert script.exists()
    if script.stem == "standalone":
        assert words[1:] in (["start"], ["stop"])
    else:
        COMMANDS[script.stem].make_context(script.stem, words[1:])


def test_every_kind_of_line_is_covered() -> None:
    assert {words[0].split("/")[0] for words in shell_lines()} == {"make", "metarec", "deploy", "source", "export"}


@pytest.mark.parametrize("example", blocks("toml"))
def test_a_configuration_example_is_valid(example: str) -> None:
    assert config.parse({"warehouse": WAREHOUSE} | tomllib.loads(example)).warehouse == WAREHOUSE


def test_the_commands_table_lists_every_command() -> None:
    assert {name.removeprefix("metarec ") for name in table_after("Commands")} == set(COMMANDS)


def test_the_tables_table_lists_every_table() -> None:
    assert set(table_after("Tables")) == set(ALL)


def test_every_link_leads_to_a_file() -> None:
    targets = re.findall(r"\]\(([^)#]+)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.fixture
def recommendations(spark: SparkSession, job: Callable[..., Job]) -> str:
    """A warehouse with lists of two days; the example's day has three."""
    made = job("recommend", ds=DS)
    rows = [("ada", "shop", ["s1", "s2"]), ("ada", "video", ["v1"]), ("bob", "shop", ["s2", "s1"])]
    for day, lists in ((date(2024, 1, 14), rows[:1]), (DS, rows)):
        frame = spark.createDataFrame(lists, "user_id string, domain string, ids array<string>").select(
            F.lit(day).alias("ds"),
            "user_id",
            "domain",
            F.expr("transform(ids, id -> named_struct('item_id', id, 'score', 0.5F))").alias("items"),
            F.lit("m1").alias("model_id"),
            F.lit("model").alias("kind"),
        )
        made.warehouse.replace_days(c.RECOMMENDATIONS, frame, "ds", day, day, made.commit())
    return made.warehouse.root


@pytest.mark.parametrize(("tool", "lines_of_ada"), [("to_pandas(partitions", 3), ("duckdb.sql", 2), ("spark.read", 3)])
def test_a_reading_snippet_shows_the_lists_of_its_day(
    tool: str, lines_of_ada: int, recommendations: str, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = [block for block in blocks("python") if tool in block]
    exec(compile(snippet.replace(WAREHOUSE, recommendations), "README.md", "exec"), {"spark": spark})
    output = capsys.readouterr().out
    assert [word for word in ("ada", "bob", "s1", "s2", "v1") if not re.search(rf"\b{word}\b", output)] == [], output
    assert len(re.findall(r"\bada\b", output)) == lines_of_ada


def test_every_python_block_is_run() -> None:
    assert len(blocks("python")) == 3
