"""README.md and docs/ are true: commands exist, configurations are valid, snippets run, links lead somewhere, generated parts agree."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import ModuleType

import pytest
import typer
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from metarec_spark import columns as c
from metarec_spark import config
from metarec_spark.cli import app
from metarec_spark.columns import ALL
from metarec_spark.config.document import sections
from metarec_spark.job import Job

ROOT = Path(__file__).parent.parent
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
PAGES |= {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")}
README = PAGES["README.md"]
LONGEST_README = 150
COMMANDS = typer.main.get_command(app).commands
WAREHOUSE = "file:///data/metarec"
DS = date(2024, 1, 15)
SYSTEM = {"source", "export", "install", "umask"}
"""Commands of the shell or the system, which are not tried."""


def blocks(language: str, *pages: str) -> list[str]:
    """The code blocks of a language, of all pages or of some."""
    text = "\n".join(PAGES[page] for page in pages or sorted(PAGES))
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def shell_lines() -> list[list[str]]:
    """The words of every command in a bash block; variables set before a command are left out."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [[word for at, word in enumerate(line) if not (re.match(r"[A-Z_]+=", word) and at < 3)] for line in words]


def lines_of(command: str) -> list[list[str]]:
    return [words for words in shell_lines() if words[0].startswith(command)]


def in_backticks(page: str) -> list[str]:
    """What stands between backticks outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL))


def table_after(page: str, heading: str) -> list[str]:
    """What stands between backticks in the first column of the first table under a heading."""
    section = PAGES[page].split(f"# {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= LONGEST_README


@pytest.mark.parametrize("words", lines_of("metarec"), ids=" ".join)
def test_a_metarec_line_names_an_existing_command_and_options_that_it_takes(words: list[str]) -> None:
    command = COMMANDS[words[1]]
    context = command.make_context(words[1], words[2:])
    assert context.params.get("ds") is None or context.params["ds"].date() == DS
    for override in context.params.get("set_") or []:
        config.parse(config.overridden({"warehouse": WAREHOUSE}, [override]))


@pytest.mark.parametrize("words", lines_of("make"), ids=" ".join)
def test_a_make_line_names_an_existing_target(words: list[str]) -> None:
    planned = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize("words", lines_of("deploy/"), ids=" ".join)
def test_a_script_line_names_an_existing_script_and_arguments_that_its_job_takes(words: list[str]) -> None:
    script = ROOT / words[0]
    assert script.exists()
    if script.stem == "standalone":
        assert words[1:] in (["start"], ["stop"])
    else:
        COMMANDS[script.stem].make_context(script.stem, words[1:])


def test_every_kind_of_line_is_covered() -> None:
    kinds = {words[0].split("/")[0] for words in shell_lines()}
    assert kinds - SYSTEM == {"make", "metarec", "deploy", ".venv"}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_make_target_that_a_page_names_exists(page: str) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {name.split()[1] for name in in_backticks(page) if name.startswith("make ")} <= set(targets)


@pytest.mark.parametrize("example", blocks("toml"))
def test_a_configuration_example_is_valid(example: str) -> None:
    assert config.parse({"warehouse": WAREHOUSE} | tomllib.loads(example)).warehouse == WAREHOUSE


def test_the_commands_tables_list_every_command() -> None:
    assert {name.removeprefix("metarec ") for name in table_after("docs/commands.md", "Commands")} == set(COMMANDS)
    night = README.split("## What happens at night\n")[1].split("\n## ")[0]
    first_cells = " ".join(row.split(" | ")[0] for row in night.splitlines())
    assert {name.removeprefix("metarec ") for name in re.findall(r"`([^`]+)`", first_cells)} == set(COMMANDS)


def test_the_tables_table_lists_every_table() -> None:
    assert set(table_after("docs/tables.md", "Tables")) == set(ALL)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    wrong = []
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", PAGES[page]):
        path = (ROOT / page).parent / target if target else ROOT / page
        headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE) if path.suffix == ".md" else []
        if not path.exists() or (anchor and anchor not in map(slug, headings)):
            wrong.append(f"{target}#{anchor}")
    assert not wrong


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"CHANGELOG.md", "docs/bad-input.md", "docs/odd-input.md"}))
def test_a_path_that_a_page_names_exists(page: str) -> None:
    named = [name for name in in_backticks(page) if re.fullmatch(r"[\w.-]+(/[\w.-]+)+\.(py|sh|toml|conf|example|json)", name)]
    named += [name for name in in_backticks(page) if re.fullmatch(r"(deploy|jobs|benchmarks|tests|metarec_spark)/[\w/.]*", name)]
    assert [name for name in named if not any((root / name).exists() for root in (ROOT, ROOT / "metarec_spark"))] == []


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"CHANGELOG.md", "docs/bad-input.md", "docs/configuration.md"}))
def test_a_key_that_a_page_names_exists(page: str) -> None:
    keys = {part.heading.strip("`[]"): part.keys for part in sections() if not part.heading.startswith(("`[[", "`[spark]"))}
    named = [name.partition(" ")[0].split(".") for name in in_backticks(page) if re.match(r"[a-z_]+\.[a-z_]+( |$)", name)]
    assert [".".join(key) for key in named if key[0] in keys and key[1] not in [*keys[key[0]], "sh"]] == []


def test_a_benchmark_command_names_an_existing_script_and_options_that_it_has() -> None:
    commands = [shlex.split(text) for text in in_backticks("docs/benchmarks.md") if text.startswith("python benchmarks/")]
    assert len(commands) > 10
    for _, script, *words in commands:
        source = (ROOT / script).read_text()
        assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == [], script


def test_generated_parts_are_what_the_generator_writes() -> None:
    for path, text in generator().generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run python docs/generate.py"


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert [page for page in PAGES if page.startswith("docs/") and page.removeprefix("docs/") not in navigation] == []


@pytest.fixture
def recommendations(spark: SparkSession, job: Callable[..., Job]) -> str:
    """A warehouse with lists of two days; the example's day has three."""
    writer = job("recommend", ds=DS)
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
        writer.warehouse.replace_days(c.RECOMMENDATIONS, frame, "ds", [(day, day)], writer.commit())
    return writer.warehouse.root


@pytest.mark.parametrize(
    ("page", "tool", "lines_of_ada"),
    [
        ("README.md", "to_pandas(partitions", 3),
        ("docs/tables.md", "to_pandas(partitions", 3),
        ("docs/tables.md", "duckdb.sql", 2),
        ("docs/tables.md", "spark.read", 3),
    ],
)
def test_a_reading_snippet_shows_the_lists_of_its_day(
    page: str, tool: str, lines_of_ada: int, recommendations: str, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = [block for block in blocks("python", page) if tool in block]
    exec(compile(snippet.replace(WAREHOUSE, recommendations), page, "exec"), {"spark": spark})
    output = capsys.readouterr().out
    assert [word for word in ("ada", "bob", "s1", "s2", "v1") if not re.search(rf"\b{word}\b", output)] == [], output
    assert len(re.findall(r"\bada\b", output)) == lines_of_ada


def test_every_python_block_is_run() -> None:
    assert len(blocks("python")) == 4
