"""A rank's share of a snapshot part: which files it has, and what is read of them."""

from __future__ import annotations

import shutil

import pyarrow.parquet as pq
import pytest
from petastorm.etl.dataset_metadata import UNISCHEMA_KEY
from training.factories import rows, shard, walks, written

from metarec_spark.errors import TrainingError
from metarec_spark.features.encoding import ARRAYS
from metarec_spark.training.reader import Shard, count_rows, read
from metarec_spark.warehouse.storage import atomic_write, local_copy


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "sequences", rows(walks(30)), files=4)


def rows_read(part: Shard) -> list[list[int]]:
    """Item arrays, in the order in which they are read."""
    return [row for group in read(part, [*ARRAYS], seed=1) for row in group["item_idx"].tolist()]


def test_fewer_files_than_ranks_is_an_error(folder):
    with pytest.raises(TrainingError, match=r"rank 4 of 5: .* has fewer files than ranks; lower train.processes"):
        list(read(shard(folder, 4, 5), ["length"]))


def test_rows_are_counted_from_the_footers(folder):
    assert count_rows(folder) == 30


def test_reading_leaves_standard_output_to_the_commands_result(folder, capfd):
    list(read(shard(folder), ["length"]))
    assert capfd.readouterr().out == ""


def test_a_rank_copies_the_files_of_its_share_alone_and_reads_the_rows_that_it_reads_here(tmp_path):
    folder, place = written(tmp_path / "many", rows(walks(60)), files=16), f"memory://{tmp_path}"
    with atomic_write(place) as draft:
        shutil.copytree(folder, draft)
    for rank in range(3):
        there = Shard.from_location(place, rank, 3)
        mine = sorted(file.name for file in folder.iterdir())[rank::3]
        assert there.folder != local_copy(place) and sorted(file.name for file in there.folder.iterdir()) == mine
        shards = (Shard.from_location(folder, rank, 3), there)
        one, other = [rows_read(shard) for shard in shards]
        assert one == other
    with pytest.raises(TrainingError, match=r"rank 17 of 20: memory://.* has fewer files than ranks; lower train.processes"):
        Shard.from_location(place, 17, 20)


def test_a_pickle_beside_the_rows_is_not_read(folder, tmp_path):
    schema = pq.read_schema(next(folder.glob("*.parquet")))
    pickled = f"cposix\nsystem\n(S'touch {tmp_path}/harmed'\ntR.".encode()
    pq.write_metadata(schema.with_metadata({UNISCHEMA_KEY: pickled}), folder / "_common_metadata")
    assert len(rows_read(shard(folder))) == 30
    assert not (tmp_path / "harmed").exists()
