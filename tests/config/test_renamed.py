"""Old keys and values of the configuration are still read, with one warning that names the new ones."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from metarec_spark import config
from metarec_spark.config import renamed
from metarec_spark.config.document import sections
from metarec_spark.config.loader import Config
from metarec_spark.config.renamed import OLD_KEYS, OLD_VALUES, REMOVED_KEYS
from metarec_spark.errors import ConfigError


def load(folder: Path, text: str, *overrides: str) -> Config:
    file = folder / "metarec.toml"
    file.write_text(f'warehouse = "/data"\n{text}\n')
    return config.load(file, list(overrides))


def test_old_keys_are_read_with_one_warning_that_names_the_new_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        read = load(tmp_path, "[train]\nspectral_start = false\ntoken_start = true", "adapt.events=7")
    assert (read.train.spectral_init, read.train.token_init, read.adapt.training_events) == (False, True, 7)
    (warning,) = caplog.messages
    assert "train.spectral_start is now train.spectral_init" in warning
    assert "adapt.events is now adapt.training_events" in warning


def test_a_removed_key_is_ignored_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        load(tmp_path, '[train]\nreader_pool = "process"')
    (warning,) = caplog.messages
    assert "train.reader_pool has no effect: Petastorm always reads in the rank itself" in warning


def test_a_configuration_of_new_names_is_read_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    load(tmp_path, "[train]\nspectral_init = false", "adapt.training_events=7")
    assert not caplog.messages


@pytest.mark.parametrize("in_file", ["spectral_start", "spectral_init"])
@pytest.mark.parametrize("in_override", ["spectral_start", "spectral_init"])
def test_an_override_wins_whichever_name_it_and_the_file_use(tmp_path: Path, in_file: str, in_override: str):
    read = load(tmp_path, f"[train]\n{in_file} = true", f"train.{in_override}=false")
    assert read.train.spectral_init is False


def test_a_key_that_is_given_by_both_names_is_an_error(tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"metarec\.toml: train\.spectral_start is the old name of .*remove train\.spectral_start"
    ):
        load(tmp_path, "[train]\nspectral_start = true\nspectral_init = true")


def test_old_values_are_read_in_a_list_and_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setitem(OLD_VALUES, "recommend.users", {"everyone": "all"})
    monkeypatch.setitem(OLD_VALUES, "features.event_types", {"look": "view"})
    read = config.parse({"warehouse": "/d", "recommend": {"users": "everyone"}, "features": {"event_types": ["look", "buy"]}})
    assert (read.recommend.users, read.features.event_types) == ("all", ["view", "buy"])
    assert "recommend.users: 'everyone' is now 'all'; features.event_types: 'look' is now 'view'" in caplog.messages[-1]


def test_wrong_tables_are_left_to_the_check_of_types():
    raw = {"train": 5, "adapt": {"modes": 3}, "recommend": None}
    assert renamed.renamed(raw, "x") == raw


def test_every_new_name_is_a_key_of_the_same_section_and_no_old_name_is():
    known = {f"{part.heading.strip('`[]')}.{key}" for part in sections() for key in part.keys}
    assert set(OLD_KEYS.values()) <= known and not OLD_KEYS.keys() & known and OLD_VALUES.keys() <= known
    assert not REMOVED_KEYS.keys() & known
    assert all(old.partition(".")[0] == new.partition(".")[0] for old, new in OLD_KEYS.items())
