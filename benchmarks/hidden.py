"""What lists are worth on events that no part of training has seen: each user's newest event is hidden before everything.

protocol.py --hide measures the model that serves and its twin on these events, each pair of lists for the same user.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from metarec_spark.job import Job
from metarec_spark.model import artifact
from metarec_spark.model.held_out import HeldOutEvents, rank
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import ndcg
from metarec_spark.model.scorer import Scorer
from metarec_spark.scoring.batch import contexts_of
from metarec_spark.scoring.recommend import inputs

HIDDEN = "hidden.parquet"


def hide(log: Path, folder: Path) -> Path:
    """Write a log without the newest event of each user and domain who has others, and these events into ``HIDDEN``; the folder."""
    if (folder / HIDDEN).exists():
        return folder
    events = pq.read_table(log / "events.parquet")
    order = pc.sort_indices(events, [(name, "ascending") for name in ("user_id", "domain", "event_time", "item_id")])
    events = events.take(order)
    user, domain = (events[name].to_pandas().to_numpy() for name in ("user_id", "domain"))
    same = (user[1:] == user[:-1]) & (domain[1:] == domain[:-1])  # as the event before
    newest = np.append(~same, True) & np.append(False, same)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(events.filter(pa.array(~newest)), folder / "events.parquet")
    pq.write_table(events.filter(pa.array(newest)), folder / HIDDEN)
    if (log / "items.parquet").exists():
        pq.write_table(pq.read_table(log / "items.parquet"), folder / "items.parquet")
    return folder


def hidden_events(job: Job, folder: str, logs: list[Path]) -> list[HeldOutEvents]:
    """Hidden events of each domain after all that a model's tables hold of the users, in the order of users."""
    manifest = artifact.read_manifest(folder)
    hidden = pa.concat_tables(pq.read_table(log / HIDDEN, columns=["user_id", "domain", "item_id"]) for log in logs)
    users = inputs(job.warehouse.read("user_sequences"), manifest, manifest.domains, None, everywhere=False).toArrow()
    items = job.warehouse.read("items").select("item_idx", "item_id", "domain").toArrow()
    row = pa.table({"user_id": users["user_id"], "row": pa.array(np.arange(len(users)))})
    hidden = hidden.join(items, ["item_id", "domain"]).join(row, "user_id", join_type="inner").sort_by("row")
    contexts, events = contexts_of(users.combine_chunks().to_batches()[0]), []
    for domain, name in enumerate(manifest.domains):
        own = hidden.filter(pc.equal(hidden["domain"], name))
        target, user = own["item_idx"].fill_null(-1).to_numpy().astype(np.int64), own["row"].to_numpy()
        events.append(HeldOutEvents(domain, contexts.take(torch.from_numpy(user)), target, user))
    return events


def measured(folder: str, events: HeldOutEvents) -> np.ndarray:
    """NDCG@10 of a model's lists for each hidden event; an item that the model does not know counts 0."""
    model = artifact.load(folder)
    scorer, values = Scorer(model), np.zeros(len(events.target))
    known = np.flatnonzero((events.target >= 0) & (events.target < model.manifest.items) & (events.contexts.length.numpy() > 0))

    def scores(block: PackedSequences, _: Tensor) -> Iterator[Tensor]:
        encoder = scorer.encoder_scores(scorer.hidden(block), events.domain)
        yield scorer.ensemble_scores(encoder, block, events.domain)

    values[known] = ndcg(rank(events.take(known), model.catalogue.of_domain[events.domain], scores)[0])
    return values


def difference(serves: np.ndarray, twin: np.ndarray) -> str:
    """Mean paired difference and its standard error."""
    paired = (serves - twin).tolist()
    return f"{mean(paired):+.4f} ± {stdev(paired) / len(paired) ** 0.5:.4f}"
