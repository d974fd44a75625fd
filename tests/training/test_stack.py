"""A stacking is learnt on held-out pairs, and used where it ranks no worse."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model.factories import PLAIN, catalogue, contexts, model
from safetensors.torch import load_file
from training.factories import changed, settings, spec, walks
from training.ranks import as_threads

from metarec_spark.model import artifact
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.ensemble.stacking import Stacking
from metarec_spark.model.held_out import HeldOutEvents
from metarec_spark.model.manifest import ValidationNdcg
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training import stacking
from metarec_spark.training.distributed import SingleProcess
from metarec_spark.training.stacking import stack
from metarec_spark.training.tuning import Tuned
from metarec_spark.training.worker import train

NAMES = ["books", "films"]
TUNED = [Tuned(TransitionParams(**PLAIN), Fusion(transitions=1.0), ValidationNdcg())] * 2


def held(domain: int, next_of) -> HeldOutEvents:
    """Users with one or two events; ``next_of`` says what follows the newest."""
    draw = np.random.default_rng(domain)
    newest = draw.choice(np.arange(domain, 20, 2), 400)
    before = draw.choice(np.arange(domain, 20, 2), 400)
    users = contexts([[int(of)] if of == other else [int(other), int(of)] for of, other in zip(newest, before, strict=True)])
    return HeldOutEvents(domain, users, np.array([next_of(int(of), draw) for of in newest]), np.arange(1, 401))


def of_items():
    """Of what follows an item, the plain fusion prefers the usual one."""
    follows = np.zeros((20, 20))
    for item in range(20):
        follows[item, (item + 2) % 20], follows[item, (item + 4) % 20] = 9.0, 3.0
    return catalogue(transitions=follows)


def stacked(*parts: HeldOutEvents):
    of = of_items()
    return stack(model(of), of, list(parts), TUNED, SingleProcess(), seed=0, names=NAMES)


def test_a_stacking_is_used_where_it_learnt_what_the_plain_fusion_cannot(caplog, monkeypatch):
    monkeypatch.setattr(stacking, "MIN_DECIDING", 80)
    caplog.set_level("INFO", "metarec_spark")
    network, used = stacked(held(0, lambda of, _: (of + 4) % 20), held(1, lambda of, draw: int(draw.choice(range(1, 20, 2)))))
    assert used[0] and not network.training
    plain, found = (float(word.rstrip(",")) for word in caplog.text.split("platform books: h NDCG@10 ")[1].split()[:3:2])
    assert found > plain + 0.05


@pytest.mark.parametrize(("weight", "used"), [(0.1, True), (-5.0, False)])
def test_where_it_ranks_worse_the_plain_fusion_stays(weight, used):
    of, network = of_items(), Stacking().eval()
    torch.nn.init.constant_(network.linear.weight, weight)  # of all that speaks for a linked item
    made = model(of)
    part = stacking._Part(made, made.catalogue_vectors(), of, held(0, lambda of, _: (of + 2) % 20), TUNED[0])
    assert stacking._no_worse([part], network, 2, SingleProcess(), NAMES) == [used, False]


def test_nothing_is_trained_if_no_domain_has_enough_deciding_events(caplog, monkeypatch):
    caplog.set_level("INFO", "metarec_spark")
    assert stacked() == (None, [False, False])
    monkeypatch.setattr(stacking, "_Part", None)  # which would be needed to train
    assert stacked(held(0, lambda of, _: (of + 4) % 20)) == (None, [False, False])
    assert not caplog.records


def test_a_domain_with_too_few_deciding_events_takes_no_part(caplog, monkeypatch):
    monkeypatch.setattr(stacking, "MIN_DECIDING", 80)
    caplog.set_level("INFO", "metarec_spark")
    few = held(1, lambda of, _: (of + 4) % 20).take(np.arange(395))
    alone, used = stacked(held(0, lambda of, _: (of + 4) % 20))
    beside = stacked(held(0, lambda of, _: (of + 4) % 20), few)
    assert beside[1] == used == [True, False] and "platform films" not in caplog.text
    assert all(torch.equal(value, alone.state_dict()[name]) for name, value in beside[0].state_dict().items())


def test_the_events_that_decide_do_not_train(monkeypatch):
    monkeypatch.setattr(stacking, "MIN_DECIDING", 80)
    part, other = held(0, lambda of, _: (of + 4) % 20), held(0, lambda of, _: (of + 4) % 20)
    other.target[other.pair % 5 == 0] = 0
    one, two = (stacked(of)[0].state_dict() for of in (part, other))
    assert all(torch.equal(one[name], two[name]) for name in one)


def walks_that_skip(folder, **how):
    """A snapshot whose held-out targets all lie two items further on than f and g say, to where g knows a weaker link."""
    file = spec(folder, settings(epochs=1, stacking_pairs=5000, **how), sequences=walks(5000, 5), files=2)
    (links,) = (folder / "snapshot" / "transitions").iterdir()
    item = np.repeat(np.arange(20), 2)
    signals = {"forward": np.tile([9.0, 3.0], 20), "backward": np.zeros(40), "similarity": np.zeros(40)}
    signals = {name: pa.array(of, pa.float32()) for name, of in signals.items()}
    pq.write_table(pa.table({"item_idx": item, "successor": (item + np.tile([1, 3], 20)) % 20, **signals}), links)
    for part in (folder / "snapshot" / "validation").iterdir():
        table = pq.read_table(part)
        later = pa.array((table["target"].to_numpy() + 2) % 20, pa.int32())
        pq.write_table(table.set_column(table.column_names.index("target"), "target", later), part)
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    file = walks_that_skip(tmp_path_factory.mktemp("one"))
    train(file, SingleProcess())
    return artifact.load(file.parent / "model")


def test_train_saves_the_stacking_and_where_it_is_used(trained):
    assert any(trained.stacked) and trained.stacking.out.weight.abs().sum() > 0


def test_ranks_learn_the_stacking_together(tmp_path, trained):
    as_threads(2, partial(train, walks_that_skip(tmp_path, processes=2)))
    found = artifact.load(tmp_path / "model")
    assert any(found.stacked)
    assert not torch.equal(found.stacking.linear.weight, trained.stacking.linear.weight), "each rank has its own batches"
    one, two = (of.stacking.linear.weight.detach().flatten() for of in (trained, found))
    assert torch.cosine_similarity(one, two, dim=0) > 0.8


def test_a_night_without_validation_inherits_the_stacking(tmp_path, trained, caplog):
    inherited = {"films": trained.manifest.tuned["films"]}

    def night(name: str, **how):
        file = spec(tmp_path / name, settings(epochs=1, **{"stacking_pairs": 1000} | how), inherited=inherited)
        for part in (file.parent / "snapshot" / "validation").iterdir():
            part.unlink()
        train(changed(file, previous=str(trained.folder)), SingleProcess())
        return artifact.load(file.parent / "model")

    found = night("one")
    assert found.stacked == [False, True]
    assert all(torch.equal(value, trained.stacking.state_dict()[name]) for name, value in found.stacking.state_dict().items())
    assert night("none", stacking_pairs=0).stacking is None
    weights = trained.folder / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1])
    try:
        assert night("damaged").stacked == [False, False]
    finally:
        weights.write_bytes(kept)
    assert "no stacking is inherited, f and g are fused plainly: model " in caplog.text
    assert "stacking.base" in load_file(weights)
