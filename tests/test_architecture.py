"""Imports go one way, heavy dependencies have one home, files stay short: read from the sources, nothing is run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "metarec_spark"
LONGEST = 350

MAY_IMPORT: dict[str, str] = {
    # Names, errors, configuration: what everything stands on.
    "columns": "",
    "errors": "",
    "config": "columns errors",
    # What a process needs to start, and everything that is read and written.
    "runtime": "columns config errors",
    "warehouse": "columns errors",
    "job": "columns config errors runtime warehouse",
    "registry": "columns config errors job model warehouse",
    # Stages, in the order of the data flow. None of them stands in a circle.
    "synthetic": "columns errors warehouse",
    "sources": "columns config errors runtime warehouse",
    "features": "columns config errors job runtime sources warehouse",
    "inspection": "columns config errors features job runtime sources warehouse",
    "model": "columns config errors runtime warehouse",
    "training": "columns config errors features job model registry runtime warehouse",
    "scoring": "columns config errors features job model registry runtime sources warehouse",
    "evaluation": "columns config errors features job model registry runtime scoring warehouse",
    "transfer": "columns config errors features job model registry runtime training warehouse",
    "operations": "columns config errors evaluation features job model registry runtime scoring warehouse",
    # What people and schedulers start.
    "nightly": "columns config errors evaluation features job operations registry runtime scoring training",
    "doctor": "config errors job runtime training warehouse",
    "demo": "columns config errors features job nightly runtime synthetic transfer warehouse",
    "cli": "columns config demo doctor errors evaluation features inspection job nightly operations runtime scoring synthetic training transfer warehouse",
}
"""Room → the rooms that it may import. A room is a module or folder directly in the package; all else fails."""
JOB_FILES = {
    "features.extract": "cli demo nightly",
    "training.train": "cli nightly",
    "evaluation.evaluate": "cli nightly",
    "scoring.recommend": "cli nightly",
    "transfer.adapt": "cli demo",
    "inspection.inspect": "cli",
    "operations.feedback": "cli",
    "operations.maintain": "cli",
    "operations.promote": "cli",
    "operations.forget": "cli",
    "synthetic.generate": "cli demo",
}
"""Job file → who may import it: a job's file is nobody's library."""
NO_SPARK = (
    *("model", "training.loop", "training.state", "training.reader", "training.batches", "training.meta", "training.optimizer"),
    *("training.tuning", "training.stacking", "training.validation", "training.spec", "training.worker"),
    *("scoring.topn", "scoring.topn_kernels"),
)


def modules(folder: str) -> dict[str, Path]:
    """Dotted name → file, of every module in a folder."""
    files = sorted((ROOT / folder).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(tree: ast.AST) -> set[str]:
    """Every module that may be imported by a source, at its top or in a function; ``from a import b`` gives a and a.b."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute, so that they can be read"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, *roots: str) -> bool:
    """Whether a dotted name is one of the roots or below one."""
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def arrows(files: dict[str, Path]) -> list[tuple[str, str]]:
    """(importing module, imported name) of every import."""
    return [(name, target) for name, file in files.items() for target in sorted(imports(ast.parse(file.read_text())))]


def ours(*names: str) -> tuple[str, ...]:
    return tuple(f"{PACKAGE}.{name}" for name in names)


def room(module: str) -> str:
    """The part of the package that a module belongs to; empty for the package itself."""
    return [*module.split("."), ""][1]


MODULES = modules(PACKAGE)
ARROWS = arrows(MODULES)
ROOM_ARROWS = {
    (room(a), room(b)) for a, b in ARROWS if within(b, PACKAGE) and room(a) and room(b) in MAY_IMPORT and room(a) != room(b)
}


def test_the_reader_of_imports_sees_lazy_and_nested_ones():
    source = "import a.b\ndef f():\n    from c import d\n    import horovod.torch as hvd\n"
    assert imports(ast.parse(source)) == {"a.b", "c", "c.d", "horovod.torch"}
    assert within("torch.nn", "torch") and not within("torchvision", "torch")
    assert room("metarec_spark.features.extract") == "features" and room("metarec_spark") == ""


def test_every_room_is_in_the_table():
    assert sorted(MAY_IMPORT) == sorted({room(module) for module in MODULES} - {""})


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_room_imports_only_what_the_table_allows(name: str):
    assert {target for source, target in ROOM_ARROWS if source == name} <= set(MAY_IMPORT[name].split())


def test_the_table_has_no_circle():
    above = {name: set(allowed.split()) for name, allowed in MAY_IMPORT.items()}
    while above:
        lowest = [name for name, allowed in above.items() if not allowed & above.keys()]
        assert lowest, f"these import each other: {sorted(above)}"
        above = {name: allowed for name, allowed in above.items() if name not in lowest}


@pytest.mark.parametrize("job", JOB_FILES)
def test_a_job_file_is_nobodys_library(job: str):
    importers = {
        source.removeprefix(f"{PACKAGE}.") for source, target in ARROWS if within(target, *ours(job)) and source not in ours(job)
    }
    assert importers <= set(JOB_FILES[job].split())


def test_only_the_registry_touches_the_table_of_models():
    users = {module for module, file in MODULES.items() if "c.MODELS" in file.read_text()}
    assert users == {f"{PACKAGE}.registry"}


def test_jobs_import_only_the_command_line():
    wrong = [(job, target) for job, target in arrows(modules("jobs")) if not within(target, "sys", *ours("cli"))]
    assert not wrong


def test_nothing_imports_jobs_tests_or_benchmarks():
    assert not [arrow for arrow in ARROWS if within(arrow[1], "jobs", "tests", "benchmarks")]


@pytest.mark.parametrize(
    ("importers", "forbidden"),
    [(NO_SPARK, ("pyspark", "delta")), (("features",), ("torch",)), (("scoring.topn", "model.ranking"), ("pyarrow",))],
    ids=["model and ranks know no Spark", "features know no torch", "ranking knows no files"],
)
def test_a_room_stays_free_of_a_dependency(importers: tuple[str, ...], forbidden: tuple[str, ...]):
    assert not [arrow for arrow in ARROWS if within(arrow[0], *ours(*importers)) and within(arrow[1], *forbidden)]


@pytest.mark.parametrize(
    ("dependency", "home"),
    [
        ("delta", "warehouse.tables"),
        ("petastorm", "training.reader"),
        ("horovod", "training.distributed"),
        ("fsspec", "warehouse.storage"),
        ("typer", "cli"),
        ("tomllib", "config.loader"),
        ("sklearn", "transfer.predictor"),
    ],
)
def test_a_heavy_dependency_has_one_home(dependency: str, home: str):
    assert {importer for importer, target in ARROWS if within(target, dependency)} == {f"{PACKAGE}.{home}"}


def test_nothing_reads_files_that_can_carry_code():
    assert not [arrow for arrow in ARROWS if within(arrow[1], "pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal")]
    for name, file in MODULES.items():
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            called, keywords = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert called != "torch.load" or keywords.get("weights_only") == "True", f"{name}:{call.lineno}"
            assert called not in ("eval", "exec"), f"{name}:{call.lineno}"
            assert "allow_pickle" not in keywords, f"{name}:{call.lineno}"


def test_files_are_short():
    files = [file for folder in (PACKAGE, "jobs", "tests", "benchmarks") for file in modules(folder).values()]
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}
    assert not {file: lines for file, lines in lengths.items() if lines >= LONGEST}
