"""Items that are newer than the model: what they are recommended by, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model.factories import catalogue, contexts, saved
from training.warehouses import DAY, NEXT, event, job_at, next_day, rows_of, walkers, write_log

from metarec_spark.config.sections import ItemSource
from metarec_spark.evaluation.evaluate import evaluate
from metarec_spark.features.extract import extract
from metarec_spark.model import artifact
from metarec_spark.model.scorer import Scorer
from metarec_spark.scoring import new_items
from metarec_spark.scoring.batch import contexts_of
from metarec_spark.scoring.recommend import inputs, recommend
from metarec_spark.training.train import train
from metarec_spark.warehouse.storage import file_uri, local_path


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> artifact.ModelArtifact:
    """Items 0 … 19, with one or two of the tokens 100, 101 and 102, the even ones with a given vector; item 3 leads to item 4."""
    follows = np.zeros((20, 20))
    follows[3, 4] = 1.0
    vectors = np.random.default_rng(0).standard_normal((20, 2)) * (np.arange(20) % 2 == 0)[:, None]
    tokens = [(item, 100 + item % 3, 1.0) for item in range(20)] + [(0, 101, 0.5)]
    folder = saved(tmp_path_factory.mktemp("own"), catalogue(tokens=tokens, transitions=follows, vectors=vectors))
    loaded = artifact.load(folder)
    return replace(loaded, manifest=loaded.manifest.model_copy(update={"vector_widths": [2]}))


@pytest.fixture(scope="module")
def both(own, tmp_path_factory) -> tuple[artifact.ModelArtifact, list[str | None]]:
    """With 21 by its tokens, 22 by its vector, and 24, of the other domain, by what it resembles."""
    folder = tmp_path_factory.mktemp("new_items")
    parts = {
        "items": {"item_idx": [24, 21, 22], "item_id": ["x", "y", "z"], "domain": [1, 0, 0]},
        "tokens": {"item_idx": [21, 21, 21], "token": [102, 101, 100], "weight": pa.array([0.6, 0.1, 0.8], pa.float32())},
        "vectors": {"item_idx": [22], "vector": pa.array([[3.0, 4.0]], pa.list_(pa.float32()))},
        "transitions": {
            "item_idx": [24, 24, 24, 22],
            "successor": [3, 22, 23, 24],
            "similarity": pa.array([0.5, 0.25, 1.0, 0.25], pa.float32()),
        },
    }
    for name, columns in parts.items():
        folder.joinpath(name).mkdir()
        pq.write_table(pa.table(columns), folder / name / "part.parquet")
    found, ids = new_items.with_new_items(own, folder)
    return found, ids.to_pylist()


def test_new_items_stand_after_the_models_items_by_their_index(own, both):
    found, ids = both
    assert ids == [*own.item_ids().to_pylist(), None, "y", "z", None, "x"]
    assert found.catalogue.domain[20:].tolist() == [-1, 0, 0, -1, 1]
    assert [items[-2:].tolist() for items in found.catalogue.of_domain] == [[21, 22], [19, 24]]
    assert found.catalogue.events[20:].tolist() == [0] * 5


def test_their_vectors_are_their_content(own, both):
    found, _ = both
    token, projection = own.model.token.weight.detach(), own.model.projection.detach()
    # Two tokens, the most that an item of the model has.
    by_tokens = own.model.normalized(0.8 * token[1] + 0.6 * token[3])
    by_vector = own.model.normalized(torch.tensor([0.6, 0.8]) @ projection)
    np.testing.assert_allclose(found.item_vectors[21], by_tokens, atol=1e-6)
    np.testing.assert_allclose(found.item_vectors[22], by_vector, atol=1e-6)
    assert not found.item_vectors[[20, 23, 24]].any()


def test_likeness_leads_both_ways_and_only_to_items_that_there_are(own, both):
    part = both[0].catalogue.successors
    pairs = {
        (item, int(part.indices[at])): (part.forward[at], part.backward[at], part.similarity[at])
        for item in range(25)
        for at in range(part.indptr[item], part.indptr[item + 1])
    }
    alike = {(24, 3): 0.5, (3, 24): 0.5, (24, 22): 0.25, (22, 24): 0.25}
    assert pairs == {(3, 4): (1, 0, 0), (4, 3): (0, 1, 0)} | {pair: (0, 0, value) for pair, value in alike.items()}


def test_the_models_own_items_and_users_stay_as_they_were(own, both):
    found, _ = both
    np.testing.assert_array_equal(found.item_vectors[:20], own.item_vectors)
    user = contexts([[3, 8, 1], [2]])
    torch.testing.assert_close(found.model.encode(user), own.model.encode(user), rtol=0, atol=0)
    before, after = Scorer(own).transition_scores(user, 0), Scorer(found).transition_scores(user, 0)
    np.testing.assert_array_equal(after[:, :10].numpy(), before.numpy())


def test_an_event_on_a_new_item_is_context(own, both):
    found, _ = both
    with_it, without = found.model.encode(contexts([[3, 22]])), found.model.encode(contexts([[3]]))
    assert not torch.allclose(with_it, without)


ATTRIBUTES = {"books": ["even", "odd"], "films": ["light", "dark"]}
KNOWN = {"books": {f"b{i}" for i in range(10)}, "films": {f"f{i}" for i in range(10)}}


def write_items(file: Path, *rows: tuple) -> None:
    """(domain, item, attribute, vector) or (domain, item, attribute, vector, title)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    domain, item, attribute, vector, title = zip(*((*row, None)[:5] for row in rows), strict=True)
    columns = {"domain": domain, "item_id": item, "title": pa.array(title, pa.string())}
    columns |= {"attributes": [[a] if a else [] for a in attribute], "content": pa.array(vector, pa.list_(pa.float32()))}
    pq.write_table(pa.table(columns), file)


@pytest.fixture(scope="module")
def at(spark, tmp_path_factory):
    """A job of a day, on a warehouse with a model of DAY and items of NEXT."""
    folder = tmp_path_factory.mktemp("day")

    def make(name: str, ds=NEXT, **sections):
        job = job_at(spark, folder, name, ds, **sections)
        return replace(job, config=job.config.model_copy(update={"items": [ItemSource(path=file_uri(folder / "items"))]}))

    write_log(folder / "log" / "1.parquet", walkers())
    items = [(domain, item, ATTRIBUTES[domain][int(item[1]) % 2], None) for domain in KNOWN for item in sorted(KNOWN[domain])]
    given = [("films", f"f{i}", None, [float(i), 1.0]) for i in range(5)]
    write_items(folder / "items" / "1.parquet", *items[:10], *given, *items[15:])
    extract(make("extract", DAY))
    train(make("train", DAY))
    evaluate(make("evaluate", DAY))
    write_log(folder / "log" / "2.parquet", [*next_day(), event("reader", "books", "b-even", NEXT)])
    write_items(
        folder / "items" / "2.parquet",
        ("books", "b-even", "even", None),
        ("books", "b-odd word", "nobody knows it", None),
        ("books", "b-pair 1", "two have it", None),
        ("books", "b-pair 2", "two have it", None),
        ("books", "b-like a game", None, None, "Dragons"),
        ("games", "g-like a book", None, None, "Dragons"),
        ("films", "f-vector", None, [3.0, 1.0]),
        ("films", "f-wide", None, [3.0, 1.0, 2.0]),
        ("games", "g-new", "even", [3.0, 1.0]),
    )
    extract(make("extract"))
    return make


def lists(job) -> dict:
    recommend(job)
    rows = job.warehouse.read("recommendations").where(f"ds = DATE'{NEXT}'").collect()
    return {(row["user_id"], row["domain"]): row for row in rows}


EVERYTHING = {"users": "all", "top_n": 30, "exclude_seen": False}


def test_new_items_with_content_or_likeness_are_recommended_and_no_others(at):
    found = lists(at("recommend", recommend=EVERYTHING))
    expected = {"books": KNOWN["books"] | {"b-even", "b-pair 1", "b-pair 2"}, "films": KNOWN["films"] | {"f-vector"}}
    for (_, domain), row in found.items():
        assert {item["item_id"] for item in row["items"]} == expected[domain]
    assert {domain for _, domain in found} == set(expected)


def test_an_event_on_a_new_item_counts_and_one_on_an_unknown_item_does_not(at):
    found = lists(at("recommend", recommend=EVERYTHING))
    assert (found["reader", "books"]["kind"], found["reader", "films"]["kind"]) == ("model", "cold")
    assert found["new", "books"]["kind"] == "popularity"
    assert "b-even" not in {item["item_id"] for item in lists(at("recommend"))["reader", "books"]["items"]}


def test_lists_are_the_sorted_scores_of_model_and_new_items(at):
    job = at("recommend", recommend=EVERYTHING)
    found = lists(job)
    model = job.warehouse.read("models").first()
    folder = local_path(job.warehouse.path(model["path"]))
    versions = {name: job.warehouse.version(name) for name in ("items", "item_content", "item_transitions")}
    manifest = artifact.read_manifest(folder)
    with new_items.write_new_items(job, folder, versions) as added:
        both, ids = new_items.with_new_items(artifact.load(folder), added.folder)
        users = inputs(job.warehouse.read("user_sequences"), manifest, manifest.domains, added, everywhere=True)
        batch = users.where("length > 0").toArrow().combine_chunks().to_batches()[0]
    scorer, context = Scorer(both), contexts_of(batch)
    hidden, lent = scorer.hidden(context), 0.0
    for place, domain in enumerate(manifest.domains):
        scores = scorer.ensemble_scores(scorer.encoder_scores(hidden, place), context, place).numpy()
        items = both.catalogue.of_domain[place]
        lent += scorer.untuned_transition_scores(context, place)[:, items >= manifest.items].sum()
        for user, row in zip(batch["user_id"].to_pylist(), scores, strict=True):
            order = np.lexsort((items, -row))
            shown = found[user, domain]["items"]
            np.testing.assert_allclose([item["score"] for item in shown], row[order], rtol=1e-4, atol=1e-4)
            assert {item["item_id"] for item in shown[:3]} <= {ids[int(items[at])].as_py() for at in order[:4]}
    assert lent > 0


def test_again_the_same_and_the_models_folder_stays_as_it_is(at):
    job = at("recommend")
    folder = local_path(job.warehouse.path(job.warehouse.read("models").first()["path"]))
    files = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    first = recommend(job)
    rows = rows_of(job, "recommendations")
    assert recommend(at("recommend")).details.scored_users == 0, "nothing new is known of them"
    assert rows_of(job, "recommendations") == rows
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == files
    assert first.details.new_items == [4]
    assert not list(folder.parent.parent.joinpath("_new_items").iterdir())


def test_everyone_is_scored_if_another_item_was_added(at):
    recommend(at("recommend"))
    job = at("extract")
    write_items(Path(urlparse(job.config.items[0].path).path) / "3.parquet", ("books", "b-late", "even", None))
    extract(job)
    again = recommend(at("recommend")).details
    assert again.new_items == [5] and again.scored_users > 30
