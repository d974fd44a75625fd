"""Windows around events, and the successors that they add up to, against plain Python."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from metarec_spark.config.sections import Transitions
from metarec_spark.features import windows
from metarec_spark.features.neighbours import Items, distance_weights

ITEMS, MAX_GAP, DECAY = 30, 4, 0.7


def drawn(seed: int) -> list[list[int]]:
    """Sequences of few and many events, and of none."""
    draw = np.random.default_rng(seed)
    walks = [draw.integers(0, ITEMS, size).tolist() for size in (0, 1, 2, 40, 0, 7, 1, 3, 90)]
    return [*walks, [5] * 6]


def cut(sequences: list[list[int]], max_gap: int = MAX_GAP) -> list[pa.RecordBatch]:
    return list(windows.windows(pa.array(sequences, pa.list_(pa.int32())), max_gap))


def read(batches: list[pa.RecordBatch]) -> dict[int, list[tuple[list[int], list[int]]]]:
    """Item → (what stands before, what stands after) of each of its windows, sorted."""
    found = defaultdict(list)
    for batch in batches:
        items = batch["item_idx"].to_pylist()
        assert items == sorted(set(items)), "an item is once in a batch"
        for item, data in zip(items, batch[windows.WINDOWS].to_pylist(), strict=True):
            numbers = np.frombuffer(data, np.int32).tolist()
            while numbers:
                before, after, *numbers = numbers
                found[item].append((numbers[:before], numbers[before : before + after]))
                numbers = numbers[before + after :]
    return {item: sorted(of) for item, of in found.items()}


def by_hand(sequences: list[list[int]], max_gap: int) -> dict[int, list[tuple[list[int], list[int]]]]:
    found = defaultdict(list)
    for walk in sequences:
        for at, item in enumerate(walk):
            window = walk[max(0, at - max_gap) : at], walk[at + 1 : at + 1 + max_gap]
            if any(window):
                found[item].append(window)
    return {item: sorted(of) for item, of in found.items()}


@pytest.mark.parametrize("max_gap", [1, MAX_GAP, 10**9])
@pytest.mark.parametrize("largest", [1, 50, 1 << 22], ids=lambda size: f"at most {size} numbers")
def test_each_event_has_the_window_around_it(monkeypatch: pytest.MonkeyPatch, largest: int, max_gap: int):
    monkeypatch.setattr(windows, "_MAX_NUMBERS", largest)
    for seed in range(3):
        batches = cut(drawn(seed), max_gap)
        assert read(batches) == by_hand(drawn(seed), max_gap)
        assert len(batches) == 1 or largest < 1 << 22


def test_nothing_stands_near_single_events():
    assert cut([]) == cut([[], []]) == []
    assert read(cut([[1], [2], []])) == {}


def test_distance_weights_are_steps_that_add_up_exactly():
    weight = distance_weights(24, 0.25)
    assert weight[0] == 0 and weight[1] == 1
    assert weight[1:] == pytest.approx(np.arange(1, 25) ** -0.25, abs=2**-25)
    assert (weight * 2**24 == np.round(weight * 2**24)).all()
    many = np.random.default_rng(0).choice(weight, 10_000)
    assert many.cumsum()[-1] == many[::-1].cumsum()[-1] == np.sort(many).cumsum()[-1]


def known() -> Items:
    """Items that nothing but sequences makes alike."""
    index, none = np.arange(ITEMS, dtype=np.int32), sparse.csr_matrix((ITEMS, 1), dtype=np.float32)
    domain = pa.array(["ab"[item % 2] for item in index]).dictionary_encode()
    return Items(index, domain, np.ones(ITEMS), none, none.T.tocsr())


def summed(batches: list[pa.RecordBatch]) -> dict[tuple[int, int], tuple[float, float]]:
    settings = Transitions(max_gap=MAX_GAP, gap_decay=DECAY, backward=1.0, popularity_damping=0, source_damping=0)
    found = [row for batch in known().neighbours(batches, settings) for row in batch.to_pylist()]
    assert len(found) == len({row["item_idx"] for row in found}), "an item has one row"
    assert all(row["domain"] == "ab"[row["item_idx"] % 2] for row in found)
    return {(row["item_idx"], s["item_idx"]): (s["forward"], s["backward"]) for row in found for s in row["successors"]}


@pytest.mark.parametrize("rows", [1, 2, 7, 10_000])
def test_successors_are_summed_over_rows_and_batches(monkeypatch: pytest.MonkeyPatch, rows: int):
    sequences, weight = drawn(0), distance_weights(MAX_GAP, DECAY)
    expected = defaultdict(lambda: [0.0, 0.0])
    for walk in sequences:
        for first, later in ((i, j) for j in range(len(walk)) for i in range(max(0, j - MAX_GAP), j) if walk[i] != walk[j]):
            expected[walk[first], walk[later]][0] += weight[later - first]
            expected[walk[later], walk[first]][1] += weight[later - first]
    monkeypatch.setattr(windows, "_MAX_NUMBERS", 100)
    table = pa.Table.from_batches(cut(sequences)).sort_by("item_idx").combine_chunks()
    asked = pa.table({"item_idx": pa.array(range(ITEMS), pa.int32()), windows.WINDOWS: pa.array([b""] * ITEMS)})
    ordered = pa.concat_tables([asked, table]).sort_by("item_idx").combine_chunks()
    assert len(ordered) > 2 * ITEMS, "an item has several rows"
    found = summed(ordered.to_batches(max_chunksize=rows))
    assert found == {pair: tuple(np.float32(of)) for pair, of in expected.items()}


def test_an_item_without_neighbours_has_no_row():
    asked = pa.record_batch([pa.array([3, 4], pa.int32()), pa.array([b"", b""])], ["item_idx", windows.WINDOWS])
    assert summed([asked]) == {}
