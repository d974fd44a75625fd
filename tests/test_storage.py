"""Small files: written whole, or not at all."""

from __future__ import annotations

import pytest

from metarec_spark.storage import read_json, whole, write_json


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
