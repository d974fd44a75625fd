"""The model folder: what is saved is what is loaded, or an error."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from model.factories import MANIFEST, catalogue, contexts, model, saved
from safetensors import safe_open

from metarec_spark.errors import DataError
from metarec_spark.model import artifact


def test_a_loaded_model_gives_the_scores_of_the_saved_one(tmp_path):
    of = catalogue(transitions=np.eye(20, k=1))
    loaded = artifact.load(saved(tmp_path / "model", of, blocks=2))
    user, made = contexts([[3, 8, 1], [2]]), model(of, blocks=2)
    torch.testing.assert_close(loaded.model.encode(user), made.encode(user), rtol=0, atol=0)
    np.testing.assert_array_equal(loaded.item_vectors, made.catalogue_vectors().numpy())
    for name in ("indptr", "indices", "forward", "backward", "similarity"):
        np.testing.assert_array_equal(getattr(loaded.catalogue.successors, name), getattr(of.successors, name))
    for name in ("domain", "events", "tokens", "weights", "token_hashes"):
        np.testing.assert_array_equal(getattr(loaded.catalogue, name), getattr(of, name))
    assert loaded.item_ids().to_pylist() == [f"i{i}" for i in range(20)]
    assert (loaded.domains, loaded.max_length, loaded.untuned.history) == (MANIFEST.domains, 6, 2)
    assert [fusion.transitions for fusion in loaded.fusion] == [2.0, 2.0]
    assert not loaded.model.training


def test_given_vectors_are_saved_where_there_are_any(tmp_path):
    of = catalogue(vectors=np.random.default_rng(0).standard_normal((20, 3)))
    loaded = artifact.load(saved(tmp_path / "with", of))
    np.testing.assert_array_equal(loaded.catalogue.vectors, of.vectors)
    np.testing.assert_array_equal(loaded.item_vectors, model(of).catalogue_vectors().numpy())
    torch.testing.assert_close(loaded.model.encode(contexts([[3, 8]])), model(of).encode(contexts([[3, 8]])), rtol=0, atol=0)
    with safe_open(saved(tmp_path / "without") / "model.safetensors", framework="np") as file:
        assert not {"catalogue.vectors", "state.projection"} & set(file.keys())
    assert artifact.load(tmp_path / "without").catalogue.vectors.shape == (20, 0)


@pytest.mark.parametrize("name", ["model.safetensors", "items.parquet"])
def test_a_changed_byte_is_an_error(tmp_path, name):
    file = saved(tmp_path) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"{name} has sha256 .*restore it or train again"):
        artifact.load(tmp_path)


def test_a_missing_file_is_an_error(tmp_path):
    (saved(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model.safetensors has sha256 nothing"):
        artifact.load(tmp_path)


def test_a_folder_without_a_manifest_is_no_model(tmp_path):
    (saved(tmp_path) / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"no manifest.json; .* not a whole model"):
        artifact.load(tmp_path)


def test_another_format_is_not_read(tmp_path):
    file = saved(tmp_path) / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(DataError, match="format 99, this version reads 3 and 4"):
        artifact.load(tmp_path)


def test_the_folder_holds_numbers_and_text_and_nothing_pickled(tmp_path):
    files = sorted(file.name for file in saved(tmp_path).iterdir())
    assert files == ["items.parquet", "manifest.json", "model.safetensors"]
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert kinds <= {np.dtype(kind) for kind in ("float32", "int32", "int64")}
    assert (tmp_path / "items.parquet").read_bytes()[:4] == b"PAR1"


def test_saving_twice_gives_the_same_bytes(tmp_path):
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two")
    assert all((one / file.name).read_bytes() == file.read_bytes() for file in two.iterdir())
