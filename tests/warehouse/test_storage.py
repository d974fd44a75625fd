"""Files beside the tables: written whole, or not at all; read here, wherever they lie."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from metarec_spark.errors import ConfigError, DataError
from metarec_spark.warehouse.storage import (
    atomic_write,
    exists,
    file_uri,
    list_names,
    local_copy,
    local_path,
    read_bytes,
    read_json,
    remove,
    scratch_folder,
    sibling,
    uri,
    write_json,
)


@pytest.fixture(params=["here", "elsewhere"])
def place(request, tmp_path) -> str | Path:
    """A folder's place, on this machine's file system and on another."""
    return tmp_path / "ware house+100%" if request.param == "here" else elsewhere()


def elsewhere() -> str:
    return f"memory://{uuid.uuid4().hex}/ware house+100%"


def write(place: str | Path, **files: str) -> None:
    with atomic_write(place) as draft:
        draft.mkdir()
        for name, text in files.items():
            (draft / name).write_text(text)


def test_readers_see_the_old_file_until_the_new_one_is_whole(place):
    file = f"{place}/new/file.json"
    write_json(file, {"version": 1})
    with atomic_write(file) as draft:
        draft.write_text('{"version":')
        assert read_json(file) == {"version": 1}
        draft.write_text('{"version": 2}')
    assert read_json(file) == {"version": 2}
    assert list_names(f"{place}/new") == ["file.json"]


def test_what_fails_half_way_leaves_the_old_file(place):
    file = f"{place}/file.json"
    write_json(file, {"version": 1})
    with pytest.raises(RuntimeError), atomic_write(file) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert read_json(file) == {"version": 1}


def test_a_folder_comes_whole_and_takes_the_place_of_one_that_is_there(place):
    with atomic_write(f"{place}/model") as draft:
        (draft / "part").mkdir(parents=True)
        (draft / "part" / "file").write_text("1")
        assert not exists(f"{place}/model")
    assert read_bytes(f"{place}/model/part/file") == b"1" and list_names(f"{place}/model") == ["part"]
    write(f"{place}/model", file="2")
    assert (list_names(f"{place}/model"), list_names(place)) == (["file"], ["model"])
    remove(f"{place}/model")
    assert not exists(f"{place}/model") and list_names(f"{place}/model") == []
    remove(f"{place}/model")


def test_what_lies_here_is_not_copied(tmp_path):
    for place in (tmp_path, str(tmp_path), file_uri(tmp_path), f"file:{tmp_path}"):
        assert (local_copy(place), local_path(place), uri(place)) == (
            tmp_path,
            tmp_path,
            place if "//" in str(place) else file_uri(tmp_path),
        )
    assert sibling(tmp_path / "one", "other/two") == str(tmp_path / "other" / "two")


def test_what_lies_elsewhere_is_copied_once_until_it_changes():
    place = elsewhere()
    write(place, one="1", two="2")
    copy = local_copy(place)
    assert local_path(place) is None and uri(place) == place
    assert {file.name: file.read_text() for file in copy.iterdir()} == {"one": "1", "two": "2"}
    assert local_copy(place) == copy and local_copy(f"{place}/two").read_text() == "2"
    assert [file.name for file in local_copy(place, ["one", "three"]).iterdir()] == ["one"]
    write(place, one="11")
    assert {file.name: file.read_text() for file in local_copy(place).iterdir()} == {"one": "11"}


def test_a_place_elsewhere_that_holds_nothing_is_an_error():
    with pytest.raises(DataError, match=r"memory://.*: there is nothing: .* Run the job that writes it again"):
        local_copy(elsewhere())


@pytest.mark.parametrize(("place", "why"), [("s3a://bucket/models", "Install s3fs"), ("nowhere://models", "not known: nowhere")])
def test_a_file_system_that_nothing_here_reads_is_an_error_that_says_what_to_do(place, why):
    with pytest.raises(ConfigError, match=f"{place}: Spark writes there, but Python .*{why}.*Install .* or set warehouse to"):
        exists(place)


@pytest.mark.parametrize("executor", [False, True])
def test_copies_go_with_their_process_or_lie_where_spark_removes_them_with_its_executor(tmp_path, executor):
    local = tmp_path / "blockmgr-1"
    local.mkdir()
    source = """if True:
        from metarec_spark.warehouse.storage import local_copy, atomic_write
        with atomic_write("memory://a/b") as draft:
            draft.write_text("text")
        print(local_copy("memory://a/b"))
    """
    environment = os.environ | {"TMPDIR": str(tmp_path)} | ({"SPARK_LOCAL_DIRS": f"{local},/other"} if executor else {})
    said = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True)
    copy = Path(said.stdout.strip())
    assert copy.is_relative_to(local / "metarec" if executor else tmp_path)
    assert copy.exists() == executor and [file.name for file in tmp_path.iterdir()] == ["blockmgr-1"]


def test_a_scratch_folder_goes_and_takes_with_it_what_killed_runs_left(spark, tmp_path):
    parent = tmp_path / "ware house+100%"
    for name, days in (("old", 3), ("running", 1)):
        (parent / name).mkdir(parents=True)
        (parent / name / "file").write_text("left")
        os.utime(parent / name, (time.time() - 86_400 * days,) * 2)
    with scratch_folder(spark, file_uri(parent)) as uri:
        folder = local_path(uri)
        assert folder.parent == parent and not folder.exists()
        folder.mkdir()
        assert {path.name for path in parent.iterdir()} == {"running", folder.name}
    assert [path.name for path in parent.iterdir()] == ["running"]
