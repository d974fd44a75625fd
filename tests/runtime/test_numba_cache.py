"""Compiled functions are cached for later processes, wherever the package lies, in a folder that nobody else can write."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import metarec_spark

PACKAGE = Path(metarec_spark.__file__).parent
CALL = """
import numpy as np
from metarec_spark.runtime import numba_cache
assert ".zip" in numba_cache.__file__
for kind in (np.float32, np.float64):
    assert numba_cache.product(np.arange(3, dtype=kind), np.arange(3, dtype=kind)) == 5
print(sum(numba_cache.product.stats.cache_hits.values()))
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "metarec_spark" / "compiled"


def zipped(folder: Path, more: str = "") -> Path:
    """The package, in a zip; ``more`` is added to the module of the loops."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "metarec_spark.zip", "w") as file:
        for name in ("__init__", "errors", "runtime/__init__", "runtime/cache", "runtime/numba_cache"):
            text = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
            file.writestr(f"metarec_spark/{name}.py", text + (more if name == "runtime/numba_cache" else ""))
    return folder / "metarec_spark.zip"


def taken_from_cache(package: Path, cache: Path) -> int:
    """How many of two compiled forms of a loop a new process finds in the cache."""
    environment = os.environ | {"PYTHONPATH": str(package), "XDG_CACHE_HOME": str(cache.parent.parent)}
    ended = subprocess.run([sys.executable, "-c", CALL], env=environment, cwd=package.parent, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout)


def test_a_zip_in_another_place_does_not_compile_again(tmp_path, cache):
    assert taken_from_cache(zipped(tmp_path / "one"), cache) == 0
    assert cache.stat().st_mode & 0o777 == 0o700
    assert taken_from_cache(zipped(tmp_path / "other"), cache) == 2


def test_another_source_is_compiled_anew_and_takes_no_files_away(tmp_path, cache):
    taken_from_cache(zipped(tmp_path / "one"), cache)
    assert taken_from_cache(zipped(tmp_path / "other", "\n# another\n"), cache) == 0
    assert taken_from_cache(zipped(tmp_path / "one"), cache) == 2


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_left_alone(tmp_path, cache, mode):
    package = zipped(tmp_path / "one")
    taken_from_cache(package, cache)
    kept = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    cache.chmod(mode)
    assert taken_from_cache(package, cache) == 0
    assert kept == {file: file.stat().st_mtime_ns for file in cache.iterdir()}


def test_a_folder_that_is_a_link_is_left_alone(tmp_path, cache):
    cache.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    cache.symlink_to(tmp_path / "elsewhere")
    assert taken_from_cache(zipped(tmp_path / "one"), cache) == 0
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_files_that_were_left_in_part_are_made_again(tmp_path, cache, suffix):
    package = zipped(tmp_path / "one")
    taken_from_cache(package, cache)
    for file in cache.glob(f"*.{suffix}"):
        file.write_bytes(file.read_bytes()[:40])
    assert taken_from_cache(package, cache) < 2
    assert taken_from_cache(package, cache) == 2


def test_where_nothing_can_be_kept_loops_are_compiled_all_the_same(tmp_path, cache):
    cache.parent.parent.write_text("no folder")
    assert taken_from_cache(zipped(tmp_path / "one"), cache) == 0
