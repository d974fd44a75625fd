"""Small files: written whole, or not at all."""

from __future__ import annotations

import os
import time

import pytest

from metarec_spark.storage import file_uri, local_path, read_json, scratch, whole, write_json


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    file = tmp_path / "new" / "file.json"
    write_json(file, {"version": 1})
    with whole(file) as draft:
        draft.write_text('{"version":')
        assert read_json(file) == {"version": 1}
        draft.write_text('{"version": 2}')
    assert read_json(file) == {"version": 2}
    assert list(file.parent.iterdir()) == [file]


def test_what_fails_half_way_leaves_the_old_file(tmp_path):
    file = tmp_path / "file.json"
    write_json(file, {"version": 1})
    with pytest.raises(RuntimeError), whole(file) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert read_json(file) == {"version": 1}


def test_a_scratch_folder_goes_and_takes_with_it_what_killed_runs_left(spark, tmp_path):
    parent = tmp_path / "ware house+100%"
    for name, days in (("old", 3), ("running", 1)):
        (parent / name).mkdir(parents=True)
        (parent / name / "file").write_text("left")
        os.utime(parent / name, (time.time() - 86_400 * days,) * 2)
    with scratch(spark, file_uri(parent)) as uri:
        folder = local_path(uri)
        assert folder.parent == parent and not folder.exists()
        folder.mkdir()
        assert {path.name for path in parent.iterdir()} == {"running", folder.name}
    assert [path.name for path in parent.iterdir()] == ["running"]
