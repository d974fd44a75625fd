"""Imports go one way, heavy dependencies have one home, files stay short: read from the sources, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "metarec_spark"
LONGEST = 350
STAGES = (
    "features",
    "model",
    "training",
    "transfer",
    "evaluation",
    "scoring",
    "feedback",
    "forgetting",
    "maintenance",
    "synthetic",
)
FOUNDATION = ("tables", "contracts", "config", "sections", "columns", "errors")

Importer = Callable[[str], bool]


def modules(folder: str) -> dict[str, Path]:
    """Dotted name → file, of every module in a folder."""
    files = sorted((ROOT / folder).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(tree: ast.AST) -> set[str]:
    """Every module that may be imported by a source, at its top or in a function; ``from a import b`` gives a and a.b."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be read"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, *roots: str) -> bool:
    """Whether a dotted name is one of the roots or below one."""
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def arrows(of: dict[str, Path]) -> list[tuple[str, str]]:
    return [(name, target) for name, file in of.items() for target in sorted(imports(ast.parse(file.read_text())))]


def ours(*names: str) -> tuple[str, ...]:
    return tuple(f"{PACKAGE}.{name}" for name in names)


def is_run(target: str) -> bool:
    """Whether an import is of a stage's run module, or of a name in one."""
    return any(within(target, *ours(f"{stage}.run")) for stage in STAGES)


ARROWS = arrows(modules(PACKAGE))


def test_the_reader_of_imports_sees_lazy_and_nested_ones():
    source = "import a.b\ndef f():\n    from c import d\n    import horovod.torch as hvd\n"
    assert imports(ast.parse(source)) == {"a.b", "c", "c.d", "horovod.torch"}
    assert within("torch.nn", "torch") and not within("torchvision", "torch")
    assert is_run("metarec_spark.features.run.extract") and not is_run("metarec_spark.features.runs")


def test_jobs_import_only_the_command_line():
    wrong = [(job, target) for job, target in arrows(modules("jobs")) if not within(target, "sys", *ours("cli"))]
    assert not wrong


def test_nothing_imports_jobs():
    assert not [arrow for arrow in ARROWS if within(arrow[1], "jobs")]


@pytest.mark.parametrize(
    ("importers", "forbidden"),
    [
        (("model",), ("pyspark", "delta", *ours("tables", "contracts", "session", "features"))),
        (("features",), ("torch", *ours("model", "training", "evaluation", "scoring", "feedback", "forgetting", "maintenance"))),
        (("scoring.topn", "scoring.ranking"), ("pyspark", "pyarrow", *ours("model", "features", "tables"))),
        (FOUNDATION, ours(*STAGES, "cli", "nightly", "demo", "job")),
        (("synthetic",), ours("features", "model", "training", "evaluation", "scoring")),
    ],
    ids=[
        "model knows no Spark",
        "features know no torch",
        "top-N knows no Spark and no model",
        "tables know no stage",
        "generator knows no stage",
    ],
)
def test_no_arrow_points_back(importers: tuple[str, ...], forbidden: tuple[str, ...]):
    assert not [arrow for arrow in ARROWS if within(arrow[0], *ours(*importers)) and within(arrow[1], *forbidden)]


@pytest.mark.parametrize(
    ("dependency", "home"),
    [
        ("delta", "tables"),
        ("petastorm", "training.loader"),
        ("horovod", "training.distributed"),
        ("fsspec", "storage"),
        ("typer", "cli"),
        ("tomllib", "config"),
    ],
)
def test_a_heavy_dependency_has_one_home(dependency: str, home: str):
    assert {importer for importer, target in ARROWS if within(target, dependency)} == {f"{PACKAGE}.{home}"}


def test_only_entry_points_and_stages_import_a_stages_run():
    entries = ours("cli", "nightly", "demo", "evaluation.benchmark")
    wrong = [arrow for arrow in ARROWS if is_run(arrow[1]) and arrow[0] not in entries and not arrow[0].endswith(".run")]
    assert not wrong


def test_every_stage_is_known_here():
    assert sorted(STAGES) == sorted(folder.parent.name for folder in (ROOT / PACKAGE).glob("*/__init__.py"))


def test_nothing_reads_files_that_can_carry_code():
    assert not [arrow for arrow in ARROWS if within(arrow[1], "pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal")]
    for name, file in modules(PACKAGE).items():
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            called, keywords = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert called != "torch.load" or keywords.get("weights_only") == "True", f"{name}:{call.lineno}"
            assert called not in ("eval", "exec"), f"{name}:{call.lineno}"
            assert "allow_pickle" not in keywords, f"{name}:{call.lineno}"


def test_files_are_short():
    files = [file for folder in (PACKAGE, "jobs", "tests") for file in modules(folder).values()]
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}
    assert not {file: lines for file, lines in lengths.items() if lines >= LONGEST}
