"""What events mean: dislikes, and events that are context alone, from sequences to what is predicted."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

from features.factories import event_rows, item_rows, sequence_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from metarec_spark.config.sections import Features, Split, Transitions
from metarec_spark.features.behaviour import unmatched
from metarec_spark.features.catalogue import catalogue_items
from metarec_spark.features.encoding import encoded
from metarec_spark.features.sequences import sequences
from metarec_spark.features.split import held_out, pairs
from metarec_spark.features.transitions import transitions
from metarec_spark.training.manifest import KnownNames
from metarec_spark.training.snapshot import training_sequences
from metarec_spark.warehouse.storage import file_uri

DS = date(2024, 1, 10)
VIEWS = Features(context_types={"a": ["view"]})
KNOWN = KnownNames(domains=["a", "b"], event_types=["buy", "view"], items=100, max_length=8, context_types=VIEWS.context_types)
Event = tuple[int, str, str]


def typed(spark: SparkSession, **users: list[Event]) -> DataFrame:
    """Rows of ``user_sequences`` from user = [(item, domain, type), …], a minute apart; views make no item a seen one."""
    rows = sequence_rows(spark, **{user: [(item, domain) for item, domain, _ in events] for user, events in users.items()})
    types = {user: [event_type for *_, event_type in events] for user, events in users.items()}
    seen = {user: sorted({i for i, d, t in events if (d, t) != ("a", "view")}) for user, events in users.items()}
    given_rows = spark.createDataFrame(
        [(user, types[user], seen[user]) for user in users], "user_id string, event_type array<string>, seen_items array<int>"
    )
    return rows.drop("event_type", "seen_items").join(given_rows, "user_id").select(*rows.columns)


def views_and_purchases(text: str) -> list[Event]:
    """``v1 b2 V3`` is a view of item 1 and a purchase of item 2 on platform a, and a view of item 3 on platform b."""
    kinds = {"v": ("a", "view"), "b": ("a", "buy"), "V": ("b", "view"), "B": ("b", "buy")}
    return [(int(word[1:]), *kinds[word[0]]) for word in text.split()]


# Text → its targets, positions of its training events, and of the events that may precede a test target.
SPLITS = {
    # The views after a target may be of what was bought: they tell of it.
    "v1 b1 v2 v3 b3 v3 b4 v4 v5": ({("a", "test", 6), ("a", "validation", 4)}, [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]),
    "v1 v2 v3": (set(), [0, 1, 2], [0, 1, 2]),
    "v1 b2 v2": ({("a", "test", 1)}, [0], [0]),
    # A view is context on platform a alone.
    "V1 b2 V3 v2": ({("a", "test", 1), ("b", "test", 2), ("b", "validation", 0)}, [], [0]),
}


def test_what_is_held_out_is_no_view_and_what_follows_it_is_hidden(spark: SparkSession):
    rows = typed(spark, **{text: views_and_purchases(text) for text in SPLITS})
    found = held_out(rows, Split(protocol="leave_one_out"), DS, VIEWS).collect()
    assert {
        row.user_id: ({tuple(target) for target in row.targets}, row.train_positions, row.test_context) for row in found
    } == SPLITS
    found = held_out(rows, Split(protocol="temporal", test_days=1), DS, VIEWS).collect()
    firsts = {"v1 b1 v2 v3 b3 v3 b4 v4 v5": {1}, "v1 v2 v3": set(), "v1 b2 v2": {1}, "V1 b2 V3 v2": {0, 1}}
    assert {row.user_id: {target["position"] for target in row.targets} for row in found} == firsts


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=3)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.sampled_from(["view", "buy"])), max_size=12), min_size=8
    )
)
def test_splits_and_pairs_against_plain_python(spark: SparkSession, histories: list[list[Event]]):
    users = {f"u{number}": events for number, events in enumerate(histories) if events}
    if not users:
        return
    frame = held_out(typed(spark, **users), Split(protocol="leave_one_out"), DS, VIEWS)
    found = {(row.user_id, row.target_domain, row.split): row for row in pairs(frame, VIEWS.context_types).collect()}
    expected = {}
    for user, events in users.items():
        is_view = [(domain, event_type) == ("a", "view") for _, domain, event_type in events]
        ends = {d: [p for p, e in enumerate(events) if e[1] == d and not is_view[p]][::-1] for d in "ab"}
        first = {d: {"test": ends[d][0], "validation": ends[d][min(1, len(ends[d]) - 1)]} for d in "ab" if ends[d]}
        for domain, positions in ends.items():
            for split, position in zip(("test", "validation"), positions, strict=False):
                last = {d: first[d]["test" if split == "test" else "validation"] for d in first}
                allowed = [p for p, e in enumerate(events) if p < last.get(e[1], len(events))]
                training = [p for p, e in enumerate(events) if p < (first[e[1]]["validation"] if e[1] in first else len(events))]
                context = [p for p in allowed if p < position]
                own = {events[p][0] for p in context if not is_view[p]}
                in_domain = sum(events[p][1] == domain and not is_view[p] for p in training)
                expected[user, domain, split] = events[position][0], [events[p][0] for p in context], own, in_domain
    assert found.keys() == expected.keys()
    for key, (target, context, own, in_domain) in expected.items():
        row = found[key]
        assert (row.target, row.item_idx, row.repeat, row.train_events) == (target, context, target in own, in_domain), key
        assert own - {target} <= set(row.seen) and target not in row.seen, key


def test_views_and_dislikes_in_sequences(spark: SparkSession):
    rows = event_rows(
        spark,
        *[("u", "a", item, f"2024-01-0{day} 12:00:00") for day, item in enumerate(["i", "j", "k", "l"], 1)],
        ("u", "b", "i", "2024-01-05 12:00:00"),
    )
    types = F.expr("CASE item_id WHEN 'i' THEN 'view' WHEN 'j' THEN 'down' WHEN 'l' THEN 'rate' ELSE 'buy' END")
    rows = rows.withColumns({"event_type": types, "value": F.expr("CASE item_id WHEN 'l' THEN 2.0 END")})
    items = item_rows(spark, *[("a", item) for item in "ijkl"], ("b", "i"))
    meant = Features(dislike_types={"a": ["down"]}, dislike_below={"a": 3.0}, context_types=VIEWS.context_types)
    (found,) = sequences(rows, items, meant).collect()
    assert found.item_idx == [0, 2, 4], "without the dislikes, by type and by value"
    assert (found.seen_items, found.events) == ([1, 2, 3, 4], 5), "a view is seen where it is no context"


def test_the_model_reads_views_and_learns_to_predict_purchases(spark: SparkSession):
    users = typed(spark, u=views_and_purchases("v1 b2 v3"), looks=views_and_purchases("b1 v2"), B=views_and_purchases("V1 V2"))
    found = {row.user_id: row for row in encoded(users, **vars(KNOWN)).collect()}
    assert (found["u"].event_type, found["B"].event_type) == ([~2, 1, ~2], [2, 2])
    nothing = held_out(users, Split(protocol="none"), DS)
    assert sorted(row.user_id for row in training_sequences(nothing, KNOWN).collect()) == ["B", "u"]
    without_context = replace(KNOWN, context_types={})
    assert len(training_sequences(nothing, without_context).collect()) == 3
    items = item_rows(spark, *[("a", str(n)) for n in range(4)])
    rows = catalogue_items(items, nothing, KNOWN.domains, KNOWN.context_types).collect()
    assert {row.item_idx: row.train_events for row in rows} == {0: 0, 1: 2, 2: 2, 3: 0}


def test_a_view_has_successors_and_is_nobodys(spark: SparkSession, tmp_path: Path):
    nothing = spark.createDataFrame([], "item_idx int, domain string, tokens array<string>, weights array<float>")
    plain = Transitions(gap_decay=0.0, backward=0.0, popularity_damping=0.0, source_damping=0.0)
    users = typed(spark, u=views_and_purchases("v1 b2 v3 b4"))
    found = transitions(users, nothing, plain, file_uri(tmp_path / "items"), VIEWS.context_types).collect()
    counts = {(row.item_idx, s.item_idx): (s.forward, s.backward) for row in found for s in row.successors}
    assert counts == {(1, 2): (1, 0), (1, 4): (1, 0), (2, 4): (1, 0), (3, 4): (1, 0)}, "what comes earlier weighs nothing here"


def test_names_that_no_event_has_are_told():
    meant = Features(dislike_below={"b": 1.0, "films": 3.0}, context_types={"a": ["view", "vew"], "shp": ["view"]})
    lost = ["dislike_below: platform 'films'", "context_types: platform 'shp'", "context_types.a: type 'vew'"]
    assert unmatched(meant, ["a", "b"], ["buy", "view"]) == lost
    assert unmatched(VIEWS, ["a", "b"], ["buy", "view"]) == []
