"""One rank, from a snapshot to a model folder."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
from model.factories import PLAIN
from safetensors import safe_open
from training.factories import changed, settings, spec

from metarec_spark.model import artifact
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.unordered import UnorderedWeights
from metarec_spark.model.manifest import DomainSettings
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training import loop
from metarec_spark.training.distributed import SingleProcess
from metarec_spark.training.spec import TrainSpec
from metarec_spark.training.worker import train
from metarec_spark.warehouse.storage import atomic_write, list_names

FOUND = DomainSettings(
    params=TransitionParams(**PLAIN | {"backward": 0.7, "history": 12}), fusion=Fusion(transitions=8.0, sharpness=3.0)
)
GIVEN = [[3.0, 4.0], [0.0, 2.0, 0.0], [], [1.0, 0.0]]


def trained(folder, **how) -> artifact.ModelArtifact:
    train(spec(folder, settings(epochs=1, stacking_pairs=100), **how), SingleProcess())
    return artifact.load(folder / "model")


def test_given_vectors_reach_the_model(tmp_path):
    found = trained(tmp_path, given=GIVEN)
    expected = np.zeros((20, 5), np.float32)
    expected[[0, 0, 1, 3], [0, 1, 3, 0]] = 0.6, 0.8, 1.0, 1.0
    np.testing.assert_allclose(found.catalogue.vectors, expected)
    content = expected @ found.model.projection.detach().numpy()
    assert np.abs(content[[0, 1, 3]]).sum(1).min() > 0.1


@pytest.mark.parametrize("given", [(), GIVEN])
def test_the_same_seed_gives_the_same_file(tmp_path, given):
    files = [trained(tmp_path / name, given=given, model={"id_dropout": 0.5, "dropout": 0.2}).folder for name in ("one", "two")]
    assert files[0].joinpath("model.safetensors").read_bytes() == files[1].joinpath("model.safetensors").read_bytes()
    without = trained(tmp_path / "three", given=given, model={"dropout": 0.2})
    assert (without.item_vectors != artifact.load(files[0]).item_vectors).any()


@pytest.mark.parametrize("weight", [2.0, 0.0])
def test_a_night_without_validation_fits_the_signals_that_its_inherited_settings_weigh(tmp_path, weight):
    weighed = FOUND.model_copy(update={"unordered": UnorderedWeights(factors=weight), "seen_allowed": True})
    file = spec(tmp_path, settings(epochs=1), inherited={"books": weighed})
    for part in (file.parent / "snapshot" / "validation").iterdir():
        part.unlink()
    train(changed(file, manifest={"exclude_seen": "auto"}), SingleProcess())
    found = artifact.load(tmp_path / "model")
    assert found.manifest.tuned["books"] == weighed and not found.manifest.tuned["films"].seen_allowed
    assert [len(signals.factors) for signals in found.unordered] == ([10, 10] if weight else [])
    assert (found.terms[0].item_factors is not None) == bool(weight)


def test_the_metrics_are_those_of_the_epoch_that_is_kept(tmp_path, monkeypatch):
    def fitted(*args, **how):
        state = loop.fit(*args, **how)
        state.best, state.kept_epoch = 0.99, 1
        return state

    monkeypatch.setattr("metarec_spark.training.worker.fit", fitted)
    train(spec(tmp_path, settings(epochs=2)), SingleProcess())
    metrics = artifact.read_manifest(tmp_path / "model").metrics
    kept = metrics.history[0]
    assert (metrics.kept_epoch, metrics.loss) == (1, kept.loss)
    assert metrics.validation_ndcg == kept.validation_ndcg < 0.99


@pytest.mark.parametrize("method", ["joint", "reptile", "fomaml"])
def test_a_recurrent_model_with_a_generator_and_token_init_is_trained_and_read_back(tmp_path, method):
    more = settings(epochs=2, token_init=True, method=method)
    train(spec(tmp_path, more, model={"state": "recurrent", "generator": 4, "id_dropout": 0.3}), SingleProcess())
    found = artifact.load(tmp_path / "model")
    losses = [epoch.loss for epoch in found.manifest.metrics.history]
    assert losses[1] < losses[0] and found.model.generator_out.abs().sum() > 0
    assert np.isfinite(found.item_vectors).all()


def test_what_a_domain_inherits_is_its_result_without_validation_and_another_takes_the_configuration(tmp_path):
    file = spec(tmp_path, settings(epochs=1), inherited={"books": FOUND})
    for part in (tmp_path / "snapshot" / "validation").iterdir():
        part.unlink()
    train(file, SingleProcess())
    manifest = artifact.read_manifest(tmp_path / "model")
    assert manifest.tuned == {"books": FOUND, "films": DomainSettings(params=TransitionParams(**PLAIN), fusion=Fusion())}
    assert list(manifest.validated_settings) == ["books"]


def test_a_snapshot_elsewhere_gives_the_same_model_and_the_checkpoint_lies_there(tmp_path, caplog):
    file, place = spec(tmp_path, settings(epochs=2)), f"memory://{tmp_path}/run"
    with atomic_write(place) as draft:
        shutil.copytree(tmp_path, draft)
        changed(draft / "spec.json", snapshot=f"{place}/snapshot", model=f"{place}/model")
    train(file, SingleProcess())
    train(f"{place}/spec.json", SingleProcess())
    assert list_names(place) == ["checkpoint.safetensors", "model", "snapshot", "spec.json"]
    one, other = artifact.load(tmp_path / "model"), artifact.load(f"{place}/model")
    assert one.manifest.sha256 == other.manifest.sha256
    assert [epoch.sequences for epoch in other.manifest.metrics.history] == [30, 30]
    with caplog.at_level(logging.INFO, "metarec_spark"):
        train(f"{place}/spec.json", SingleProcess())
    assert "resuming after epoch 2 of 2" in caplog.text


def test_a_refit_goes_on_from_its_twin_or_is_trained_anew_and_takes_over_what_the_twin_found(tmp_path):
    file, twin = spec(tmp_path, settings(epochs=3, learning_rate=0.05)), str(tmp_path / "model")
    train(file, SingleProcess())
    measured = artifact.load(twin)
    changes = {}
    for name, how in (("on", {"start": twin}), ("anew", {"stop_after": measured.manifest.metrics.kept_epoch})):
        folder = tmp_path / name
        manifest = measured.manifest.model_copy(update={"refitted": True})
        given = {"model": str(folder / "model"), "manifest": manifest, "twin": twin, **how}
        TrainSpec.read(file).model_copy(update=given).write(folder / "spec.json")
        shutil.rmtree(tmp_path / "snapshot" / "validation", ignore_errors=True)  # a refit does not read it
        train(folder / "spec.json", SingleProcess())
        serves = artifact.load(folder / "model")
        assert (folder / "model" / "twin" / "model.safetensors").read_bytes() == (
            tmp_path / "model" / "model.safetensors"
        ).read_bytes()
        assert serves.manifest.tuned == measured.manifest.tuned
        assert serves.manifest.metrics.history == measured.manifest.metrics.history
        assert serves.manifest.metrics.seconds > measured.manifest.metrics.seconds
        changes[name] = np.abs(serves.item_vectors - measured.item_vectors).max()
    assert changes["anew"] == 0, "the same training again, since the snapshot is the same"
    assert changes["on"] > 0
    with safe_open(tmp_path / "on" / "checkpoint.safetensors", "np") as checkpoint:
        state = json.loads(checkpoint.metadata()["state"])
    assert [epoch["validation_ndcg@10"] for epoch in state["history"]] == [None, None], "two epochs, without validation"
