"""The configuration file: what it accepts, and errors that name key, value, expectation and nearest known key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metarec_spark import config
from metarec_spark.config import Config
from metarec_spark.config.document import sections
from metarec_spark.errors import ConfigError

EXAMPLE = """
warehouse = "file:///data/metarec"      # any URI Spark can write: file, hdfs, s3a, abfss, gs

[[sources]]                              # any number; Parquet, JSON lines, CSV, Delta; folders and globs
path = "/data/logs/shop/*.parquet"
format = "parquet"
domain = "shop"                          # where the source has no domain column
columns = { user_id = "uid", item_id = "sku", event_time = "ts" }
[[items]]                                # optional item information
path = "/data/items.parquet"
format = "parquet"

[split]
protocol = "leave_one_out"               # leave_one_out | temporal (hold out the last days) | none: measure nothing
[features]
max_length = 50                          # newest events kept per user
min_user_events = 1
[train]
processes = 2                            # Horovod ranks; 1 = in this process, without Horovod
launcher = "local"                       # local: this host | spark: on the executors
method = "joint"                         # joint | reptile | fomaml
epochs = "auto"                          # early stopping on the validation split where there is one
seed = 0
[recommend]
top_n = 100
exclude_seen = true
mode = "auto"                            # auto | full | incremental
users = "active"                         # active: lists where a user has events | all: in every domain
"""


def parsed(**tables: object) -> Config:
    return config.parse({"warehouse": "/data"} | tables)


def written(folder: Path, text: str = 'warehouse = "/data"\n') -> Path:
    file = folder / "metarec.toml"
    file.write_text(text)
    return file


def test_the_designs_example_is_accepted(tmp_path: Path):
    read = config.load(written(tmp_path, EXAMPLE))
    assert read.warehouse == "file:///data/metarec"
    assert read.sources[0].columns == {"user_id": "uid", "item_id": "sku", "event_time": "ts"}
    assert read.items[0].path == "/data/items.parquet"
    assert (read.train.processes, read.train.epochs, read.recommend.top_n) == (2, "auto", 100)


def test_a_configuration_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        parsed().train.seed = 1


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"features": {"max_lenght": 5}},
            "unknown key 'features.max_lenght', did you mean 'max_length'?; known keys are max_length, min_user",
        ),
        ({"featurs": {}}, "unknown key 'featurs', did you mean 'features'?; known keys are warehouse, sources"),
        ({"platforms": {"alias": {"a": "b", "b": "c"}}}, "platforms.alias: 'a' = 'b': 'b' has an alias itself"),
        (
            {"platforms": {"alias": {"store": "shop"}}, "recommend": {"min_score": {"store": 1.0}}},
            "recommend.min_score: 'store' is an alias of 'shop': use that name here",
        ),
        ({"zzz": 1}, "unknown key 'zzz'; known keys are"),
        ({"sources": [{"path": "/a"}, {"path": "/b", "pth": "/b"}]}, "unknown key 'sources.1.pth', did you mean 'path'?"),
        ({"items": [{"path": "/a", "day_column": "ds"}]}, "unknown key 'items.0.day_column'"),
        ({"sources": [{"format": "csv"}]}, "'sources.0.path' is missing and has no default"),
        ({"train": {"seed": "one"}}, "train.seed = 'one': expected a valid integer"),
        ({"train": {"seed": True}}, "train.seed = True: expected a valid integer"),
        ({"recommend": {"exclude_seen": 1}}, "recommend.exclude_seen: expected true, false or auto, or one of them"),
        (
            {"recommend": {"exclude_seen": {"shop": "no"}}},
            "recommend.exclude_seen: expected true, false or auto, or one of them",
        ),
        ({"features": {"max_length": 0}}, "features.max_length = 0: expected greater than or equal to 1"),
        ({"model": {"dropout": 1.0}}, "model.dropout = 1.0: expected less than 1"),
        (
            {"split": {"protocol": "leave_two_out"}},
            "split.protocol = 'leave_two_out': expected 'none', 'leave_one_out' or 'temporal'",
        ),
        ({"train": {"epochs": 0}}, "train.epochs = 0: expected 'auto' or a whole number from 1"),
        ({"train": {"epochs": "many"}}, "train.epochs = 'many': expected 'auto' or a whole number from 1"),
        ({"model": {"dim": 64, "heads": 3}}, "model: heads = 3 does not divide dim = 64"),
        ({"evaluate": {"cutoffs": [10, 5]}}, "evaluate.cutoffs: cutoffs must be ascending"),
        ({"evaluate": {"cutoffs": []}}, "evaluate.cutoffs: cutoffs must be ascending"),
        ({"maintain": {"retention_days": 6}}, "maintain.retention_days = 6: expected greater than or equal to 7"),
        (
            {"sources": [{"path": "/a", "columns": {"userid": "u"}}]},
            "no column 'userid' to map, did you mean 'user_id'?; columns are user_id",
        ),
        ({"items": [{"path": "/a", "columns": {"titel": "t"}}]}, "no column 'titel' to map, did you mean 'title'?"),
        ({"warehouse": "data/metarec"}, "warehouse: 'data/metarec' is relative; give an absolute path"),
        ({"warehouse": 5}, "warehouse = 5: expected a valid string"),
        ({"sources": {"path": "/a"}}, "sources = {'path': '/a'}: expected a valid list"),
    ],
)
def test_an_error_names_key_value_and_expectation(tables: dict, message: str):
    with pytest.raises(ConfigError) as error:
        parsed(**tables)
    assert message in str(error.value)


def test_all_errors_are_reported_at_once():
    with pytest.raises(ConfigError, match="train.seed") as error:
        parsed(train={"seed": -1}, features={"late_days": -1})
    assert "features.late_days" in str(error.value)


def test_a_warehouse_is_one_uri_however_it_is_spelled():
    assert parsed(warehouse="/data/x/").warehouse == parsed(warehouse="file:///data/x").warehouse == "file:///data/x"
    assert parsed(warehouse="s3a://bucket/x").warehouse == "s3a://bucket/x"


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.seed=7", "train", "seed", 7),
        ("train.epochs=auto", "train", "epochs", "auto"),
        ("train.epochs = 3", "train", "epochs", 3),
        ("recommend.exclude_seen=false", "recommend", "exclude_seen", False),
        ("transitions.gap_decay=1", "transitions", "gap_decay", 1.0),
        ('features.event_types=["click"]', "features", "event_types", ["click"]),
        ("spark.master=local[4]", "spark", "master", "local[4]"),
        ("spark.conf.spark.driver.memory=4g", "spark", "conf", {"spark.driver.memory": "4g"}),
    ],
)
def test_overrides_are_read_as_toml_or_else_as_text(tmp_path: Path, override: str, section: str, key: str, value: object):
    read = config.load(written(tmp_path), [override])
    assert getattr(getattr(read, section), key) == value


def test_overrides_win_over_the_file_and_the_last_one_over_others(tmp_path: Path):
    file = written(tmp_path, 'warehouse = "/data"\n[train]\nseed = 1\npatience = 9\n')
    read = config.load(file, ["train.seed=2", "train.seed=3", "warehouse=/other"])
    assert (read.train.seed, read.train.patience, read.warehouse) == (3, 9, "file:///other")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.seed", "--set train.seed: expected section.key=value"),
        ("=1", "--set =…: expected section.key=value"),
        ("train..seed=1", "expected section.key=value"),
        ("warehouse.path=/x", "warehouse is not a section"),
        ("train.sede=1", "unknown key 'train.sede', did you mean 'seed'?"),
        ("train.seed=one", "train.seed = 'one': expected a valid integer"),
    ],
)
def test_a_wrong_override_is_an_error(tmp_path: Path, override: str, message: str):
    with pytest.raises(ConfigError) as error:
        config.load(written(tmp_path), [override])
    assert message in str(error.value)


@pytest.mark.parametrize("override", ["warehouse.key=s3cret", "=s3cret", "spark.conf=s3cret", "spark.conf={ a = [ 's3cret' ] }"])
def test_an_error_about_an_override_does_not_repeat_its_value_since_it_may_be_a_secret(tmp_path: Path, override: str):
    with pytest.raises(ConfigError) as error:
        config.load(written(tmp_path), [override])
    assert "s3cret" not in str(error.value)


def test_an_error_about_spark_settings_does_not_repeat_their_values():
    with pytest.raises(ConfigError, match="spark.conf") as error:
        parsed(spark={"conf": {"spark.hadoop.key": ["s3cret"]}})
    assert "s3cret" not in str(error.value)


def test_the_error_of_a_missing_file_says_what_to_give(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file; give one with --config FILE\.toml"):
        config.load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"warehouse = \nx = 1\n", "not valid TOML: .*line 1"), (b"\xff\xfe", "cannot be read"), (b"", "'warehouse' is missing")],
)
def test_a_broken_file_is_an_error(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"broken.toml: {message}"):
        config.load(file)


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
SECTIONS = st.sampled_from([*Config.model_fields, "tarin", ""])
KEYS = st.sampled_from(sorted({key for section in sections() for key in section.keys})) | TEXT


@given(raw=st.dictionaries(SECTIONS, VALUES | st.dictionaries(KEYS, VALUES, max_size=3), max_size=4))
def test_any_configuration_is_accepted_or_refused_with_a_message(raw: dict):
    try:
        read = config.parse({"warehouse": "/data"} | raw)
    except ConfigError as error:
        assert str(error).startswith("configuration: ") and "pydantic" not in str(error)
    else:
        assert Config.model_validate_json(read.model_dump_json()) == read


@given(override=TEXT | st.builds("{}.{}={}".format, SECTIONS, KEYS, TEXT))
def test_any_override_is_accepted_or_refused_with_a_message(override: str):
    try:
        config.parse(config.overridden({"warehouse": "/data"}, [override]))
    except ConfigError as error:
        assert str(error).startswith(("configuration: ", "--set "))


def test_a_configuration_in_a_models_manifest_is_read_again():
    made = config.parse({"warehouse": "file:///w"})
    assert type(made).model_validate(made.model_dump(mode="json")) == made
