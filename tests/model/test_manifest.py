"""The manifest: what is written is what is read, and the names of older formats are still understood."""

from __future__ import annotations

import json
from typing import Any

import pytest
from model.factories import DOMAINS, MANIFEST, PLAIN, saved
from pydantic import ValidationError

from metarec_spark.errors import DataError
from metarec_spark.model import artifact
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.pair_ranker import PairRanker
from metarec_spark.model.manifest import DomainSettings, Epoch, Manifest, TrainingMetrics, ValidationNdcg
from metarec_spark.model.transitions import TransitionParams

PARAMS = TransitionParams(**PLAIN)
FOUND = DomainSettings(params=PARAMS, fusion=Fusion(encoder=0.0, transitions=1.0, sharpness=3.0), stacked=True)
OLD_SETTINGS = {"lending": PLAIN, "fusion": {"base": 0.0, "transfer": 1.0, "sharpness": 3.0}}
OLD_EPOCH = {
    "loss": 2.0, "loss_of": [2.0, None], "validation_ndcg@10": 0.25, "validation_ndcg@10_of": [0.25, None],
    "seconds": 1.5, "sequences": 30.0, "steps": 4,
}  # fmt: skip


def old(version: int, **values: Any) -> dict[str, Any]:
    """The values of a manifest as formats 3 to 6 named them."""
    new = MANIFEST.to_json()
    for name in ("inherited", "training_events", "metrics"):
        del new[name]
    metrics = {
        "epochs": 3, "kept_epoch": 2, "validation_ndcg@10": 0.25, "loss": 2.0, "seconds": 4.0, "wall_seconds": 5.0, "cpu_seconds": 6.0,
        "history": [OLD_EPOCH], "validation": {"books": {"base": 0.1, "transfer": 0.2, "fused": 0.3}, "films": {"transfer": 0.2}},
    }  # fmt: skip
    tuned = {"books": OLD_SETTINGS | {"stacked": True}, "films": OLD_SETTINGS}
    return new | {"format": version, "tuned": tuned, "metrics": metrics, "learnt_events": 7} | values


@pytest.mark.parametrize("version", [3, 4, 5, 6])
def test_the_names_of_older_formats_are_read(version):
    found = Manifest.from_json(old(version))
    assert found.format == version
    assert found.tuned == {"books": FOUND, "films": FOUND.model_copy(update={"stacked": False})}
    assert found.metrics.validation["books"] == ValidationNdcg(encoder=0.1, transitions=0.2, ensemble=0.3)
    assert found.metrics.validation["films"] == ValidationNdcg(transitions=0.2)
    (epoch,) = found.metrics.history
    assert (epoch.loss_by_domain, epoch.validation_ndcg, epoch.validation_ndcg_by_domain) == ([2.0, None], 0.25, [0.25, None])
    assert (found.metrics.validation_ndcg, found.training_events, found.inherited) == (0.25, 7, {})
    inherited = Manifest.from_json(old(version, inherited={"films": OLD_SETTINGS}))
    assert inherited.inherited["films"].fusion == FOUND.fusion


def test_configuration_keys_of_older_versions_are_read():
    train = {name: value for name, value in MANIFEST.to_json()["train"].items() if name != "spectral_init"}
    for values in (
        old(6, train=train | {"spectral_start": False}),
        MANIFEST.to_json() | {"train": train | {"spectral_start": False}},
    ):
        assert not Manifest.from_json(values).train.spectral_init


def test_a_model_of_an_older_format_is_loaded(tmp_path):
    file = saved(tmp_path) / "manifest.json"
    checksums = json.loads(file.read_text())["sha256"]
    file.write_text(json.dumps(old(5, sha256=checksums)))
    loaded = artifact.load(tmp_path)
    assert loaded.fusion == [FOUND.fusion] * 2 and loaded.stacked == [True, False]


def test_a_pair_ranker_that_read_other_features_is_not_loaded(tmp_path):
    file = saved(tmp_path, pair_ranker=PairRanker()) / "manifest.json"
    checksums = json.loads(file.read_text())["sha256"]
    file.write_text(json.dumps(old(6, sha256=checksums)))
    assert artifact.load(tmp_path).pair_ranker
    file.write_text(json.dumps(old(5, sha256=checksums)))
    with pytest.raises(DataError, match="a pair ranker of format 5, which read other features: adapt again"):
        artifact.load(tmp_path)


def test_what_is_written_is_read():
    epoch = Epoch.model_validate({"loss": None, "loss_by_domain": [], "validation_ndcg": 1 / 3, "validation_ndcg_by_domain": [],
                                  "seconds": 0.1, "sequences": 1, "steps": 1})  # fmt: skip
    metrics = TrainingMetrics(epochs=1, validation_ndcg=1 / 3, history=[epoch], validation={"books": ValidationNdcg(encoder=0.1)})
    made = MANIFEST.model_copy(update={"tuned": {"books": FOUND}, "inherited": {"films": FOUND}, "metrics": metrics})
    written = json.loads(json.dumps(made.to_json()))
    assert Manifest.from_json(written) == made
    assert written["metrics"]["validation_ndcg@10"] == 1 / 3, "the cutoff is said"
    assert "history" not in made.metrics.summary()


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"tuned": {"books": {}}}, "tuned.books.params: Field required"), ({"colour": 1}, "colour: Extra inputs"), ({"items": "many"}, "items: ")],
)  # fmt: skip
def test_a_value_that_is_missing_unknown_or_of_another_type_is_an_error_that_names_it(tmp_path, changed, said):
    file = saved(tmp_path) / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(DataError, match=f"manifest.json, {said}.*restore it or train again"):
        artifact.read_manifest(tmp_path)


def test_it_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        MANIFEST.items = 5


def test_settings_are_inherited_if_they_were_found_on_validation_events_or_inherited_before():
    tuned = {
        name: FOUND.model_copy(update={"fusion": Fusion(transitions=n)})
        for n, name in enumerate(("measured", "inherited", "both", "configured"))
    }
    ndcg = {name: ValidationNdcg(ensemble=0.2 if name in ("measured", "both") else None) for name in tuned}
    made = MANIFEST.model_copy(
        update={
            "tuned": tuned,
            "metrics": TrainingMetrics(validation=ndcg),
            "inherited": dict.fromkeys(("inherited", "both", "gone"), FOUND),
        }
    )
    assert made.validated_settings == {name: tuned[name] for name in ("measured", "inherited", "both")}


def test_a_search_starts_from_what_is_inherited_or_configured():
    inherited, configured = MANIFEST.model_copy(update={"inherited": {DOMAINS[1]: FOUND}}).initial_settings[::-1]
    assert inherited == FOUND.model_copy(update={"stacked": False}), "whether a network stacks is decided anew"
    assert configured == DomainSettings(params=PARAMS, fusion=Fusion())
