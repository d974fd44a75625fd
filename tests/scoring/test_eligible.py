"""Lists hold eligible items alone, and no more items of a group than its cap allows; against a list that is filled item by item."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from metarec_spark.model.ranking import local_indexes
from metarec_spark.scoring.eligible import EligibleItems, Groups
from metarec_spark.scoring.topn import ExactIndex

ITEMS = np.array([3, 4, 7, 8, 9, 12])
SCHEMA = pa.schema([("item_idx", pa.int32()), ("cap", pa.int32()), ("group", pa.string()), ("at_most", pa.int32())])


def rules(folder: Path, withheld: list[int], groups: list[tuple[int, int, str, int]]) -> Path:
    pq.write_table(pa.table({"item_idx": pa.array(withheld, pa.int32())}), folder / "withheld")
    pq.write_table(pa.table(list(map(list, zip(*groups, strict=True))) or [[]] * 4, schema=SCHEMA), folder / "group")
    return folder


def none(rows: int, columns: int) -> sparse.csr_matrix:
    return sparse.csr_matrix((rows, columns), dtype=np.float32)


def test_every_item_is_eligible_without_rules():
    eligible = EligibleItems(ITEMS, None)
    assert eligible.items.tolist() == ITEMS.tolist() and eligible.groups is None


def test_excluded_items_are_not_eligible_and_groups_hold_eligible_items_alone(tmp_path):
    eligible = EligibleItems(
        ITEMS, rules(tmp_path, [4, 9, 99], [(9, 0, "a", 1), (12, 0, "a", 1), (3, 0, "b", 1), (12, 1, "a", 2)])
    )
    assert eligible.local.tolist() == [0, 2, 3, 5]
    assert eligible.items.tolist() == [3, 7, 8, 12]
    groups = eligible.groups.of_item
    assert groups.sum(1).tolist() == [[1], [0], [0], [2]]
    assert groups.sum(0).tolist() == [[1, 1, 1]], "the same name under another cap is another group"
    assert sorted(eligible.groups.at_most[groups[3].indices]) == [1, 2]
    assert (eligible.groups.of_group != groups.T).nnz == 0
    assert eligible.columns(sparse.csr_matrix(np.arange(6)[None])).toarray().tolist() == [[0, 2, 3, 5]]


def test_groups_of_excluded_items_alone_are_none(tmp_path):
    assert EligibleItems(ITEMS, rules(tmp_path, [4], [(4, 0, "a", 1)])).groups is None


def test_a_capped_list_is_filled_with_what_comes_next(tmp_path):
    """The best five are of one group: the list goes on beyond them until it is full."""
    items = np.arange(40)
    eligible = EligibleItems(items, rules(tmp_path, [], [(i, 0, "a", 2) for i in range(36)]))
    index = ExactIndex((40.0 - items[:, None]).astype(np.float32))
    found, score = eligible.top_n(index, np.ones((1, 1), np.float32), 5, none(1, 40))
    assert found.tolist() == [[0, 1, 36, 37, 38]]
    assert score.tolist() == [[40, 39, 4, 3, 2]]
    short, score = eligible.top_n(index, np.ones((1, 1), np.float32), 8, none(1, 40))
    assert short.tolist() == [[0, 1, 36, 37, 38, 39, -1, -1]] and np.isneginf(score[0, 6:]).all()


def test_without_an_eligible_item_lists_are_empty(tmp_path):
    eligible = EligibleItems(ITEMS, rules(tmp_path, ITEMS.tolist(), [(4, 0, "a", 1)]))
    assert len(eligible.items) == 0 and eligible.groups is None
    index = ExactIndex(np.zeros((0, 1), np.float32))
    found, score = eligible.top_n(index, np.ones((2, 1), np.float32), 3, none(2, 0))
    assert found.tolist() == [[-1] * 3] * 2 and np.isneginf(score).all()
    assert local_indexes(eligible.items, np.array([3, 4])).tolist() == [-1, -1]


def test_what_is_searched_for_after_a_capped_list_is_bounded(tmp_path, monkeypatch):
    """A list that cannot be filled: full groups are left out, so few are asked for again, and users are taken a few at a time."""
    asked = []
    search = ExactIndex.search
    monkeypatch.setattr(
        ExactIndex, "search", lambda self, users, n, *rest: asked.append((len(users), n)) or search(self, users, n, *rest)
    )
    monkeypatch.setattr("metarec_spark.scoring.eligible._MARKS", 2 * 400)
    eligible = EligibleItems(np.arange(400), rules(tmp_path, [], [(i, 0, str(i % 4), 2) for i in range(400)]))
    found, _ = eligible.top_n(
        ExactIndex(-np.arange(400, dtype=np.float32)[:, None]), np.ones((3, 1), np.float32), 10, none(3, 400)
    )
    assert found.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, -1, -1]] * 3
    assert asked == [(2, 10), (2, 2), (1, 10), (1, 2)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_lists_are_those_of_filling_item_by_item(tmp_path_factory, data):
    draw = data.draw
    count, users, n = draw(st.integers(1, 30)), draw(st.integers(1, 4)), draw(st.integers(1, 12))
    groups = draw(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 1), st.sampled_from("abc")), unique=True))
    most = {0: draw(st.integers(1, 3)), 1: draw(st.integers(1, 3))}
    random = np.random.default_rng(draw(st.integers(0, 99)))
    vectors, queries = random.integers(-3, 4, (count, 4)), random.integers(-3, 4, (users, 4))
    seen = sparse.csr_matrix(random.random((users, count)) < 0.2, dtype=np.float32)
    extra = sparse.csr_matrix(
        np.where(random.random((users, count)) < 0.3, random.integers(-4, 5, (users, count)), 0), dtype=np.float32
    )
    folder = rules(tmp_path_factory.mktemp("rules"), [], [(item, cap, name, most[cap]) for item, cap, name in groups])
    eligible = EligibleItems(np.arange(count), folder)
    found, score = eligible.top_n(ExactIndex(vectors.astype(np.float32)), queries.astype(np.float32), n, seen, extra)
    truth = queries @ vectors.T + extra.toarray()
    for user in range(users):
        taken, expected = Counter(), []
        for item in np.lexsort((np.arange(count), -truth[user])):
            mine = [(cap, name) for of, cap, name in groups if of == item]
            if seen[user, item] or any(taken[group] >= most[group[0]] for group in mine) or len(expected) == n:
                continue
            taken.update(mine)
            expected.append(int(item))
        assert found[user].tolist() == expected + [-1] * (n - len(expected))
        assert score[user, : len(expected)].tolist() == pytest.approx(truth[user, expected].tolist())


def test_a_name_may_hold_any_character():
    table = pa.table([[0, 1], [0, 0], ["a\x00", "a"], [1, 1]], schema=SCHEMA)
    assert len(Groups.from_table(table, np.arange(2)).at_most) == 2
