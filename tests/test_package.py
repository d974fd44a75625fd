"""What the package holds that other people install: its files, licence and metadata."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (file,) = folder.glob("*.whl")
    return file


def names(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as file:
        return set(file.namelist())


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        return HeaderParser().parsestr(file.read(name).decode())


def test_the_wheel_holds_the_package_with_the_tables_contracts_and_nothing_else(wheel: Path):
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "metarec_spark").rglob("*") if path.suffix in (".py", ".j2")}
    contracts = {f"metarec_spark/schemas/{path.name}" for path in (ROOT / "schemas").glob("*.json")}
    inside = {name for name in names(wheel) if ".dist-info/" not in name}
    assert inside == package | contracts | {"metarec_spark/py.typed"}
    assert contracts and not [name for name in names(wheel) if PurePosixPath(name).parts[0] in ("tests", "benchmarks", "jobs")]


def test_the_zip_for_spark_submit_holds_the_modules_and_contracts_of_the_wheel(wheel: Path, tmp_path: Path):
    subprocess.run([sys.executable, ROOT / "deploy" / "zip.py", tmp_path / "package.zip"], check=True)
    inside = {name for name in names(wheel) if ".dist-info/" not in name and not name.endswith("py.typed")}
    assert names(tmp_path / "package.zip") == inside


def test_the_metadata_names_licence_python_and_command(wheel: Path):
    about = metadata(wheel)
    assert (about["Name"], about["License-Expression"], about["Requires-Python"]) == (
        "metarec-spark",
        "Apache-2.0",
        "<3.12,>=3.11",
    )
    assert "Typing :: Typed" in about.get_all("Classifier") and about["Description-Content-Type"] == "text/markdown"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names(wheel))
    with zipfile.ZipFile(wheel) as file:
        (points,) = [name for name in file.namelist() if name.endswith("entry_points.txt")]
        assert "metarec = metarec_spark.cli:main" in file.read(points).decode()


def test_the_licence_is_the_whole_apache_licence():
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_the_build_tool_that_tests_use_is_the_one_that_installs_use():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (required,) = project["build-system"]["requires"]
    assert required in project["dependency-groups"]["dev"]


def test_hooks_before_a_commit_run_local_tools_alone():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repository["repo"] for repository in repositories} == {"local"}
    tools = {hook["entry"].split()[0] for repository in repositories for hook in repository["hooks"]}
    assert tools == {".venv/bin/ruff", ".venv/bin/mypy"}
