"""Rules on items: excluded items, capped groups and least scores, all applied before a list is cut to its length."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training.warehouses import NEXT, WAREHOUSE, copied, job_at, rows_of, stages

from metarec_spark.errors import DataError
from metarec_spark.scoring.recommend import recommend


@pytest.fixture(scope="module")
def folder(spark, tmp_path_factory):
    return copied(stages(spark, tmp_path_factory).evaluated, tmp_path_factory.mktemp("rules"))


@pytest.fixture(scope="module")
def free(spark, folder) -> dict:
    """The lists without any rule, as long as they can be."""
    return night(spark, folder, recommend={"top_n": 10, "mode": "full"})[1]


def night(spark, folder, **sections) -> tuple[int, dict]:
    """Users scored, and (user, domain) → [(item, score)] of NEXT."""
    job = job_at(spark, folder, "recommend", NEXT, **sections)
    scored = recommend(job).details.scored_users
    rows = job.warehouse.read("recommendations").where(f"ds = DATE'{NEXT}'").collect()
    return scored, {(row["user_id"], row["domain"]): [tuple(item) for item in row["items"]] for row in rows}


def items_file(to: Path, domain: str, *items: str, **columns: list) -> dict:
    """A file that names items, as a section of the configuration."""
    pq.write_table(pa.table({"item_id": list(items), **columns}), to)
    return {"path": f"file://{to}", "domain": domain}


def test_lists_without_blocked_items_are_filled_with_what_comes_next(spark, folder, free, tmp_path):
    block = [items_file(tmp_path / "sold out", "books", "b1", "b2", "unknown")]
    _, found = night(spark, folder, block=block, recommend={"mode": "full"})
    assert {user for (user, domain), items in free.items() if domain == "books" and {"b1", "b2"} & dict(items[:5]).keys()}
    for (user, domain), items in free.items():
        offered = [item for item in items if domain != "books" or item[0] not in ("b1", "b2")]
        assert found[user, domain] == offered[:5]
    assert [row[1:] for row in rows_of(job_at(spark, folder, "recommend"), "withheld")] == [
        ("books", "b1", "blocked"),
        ("books", "b2", "blocked"),
    ]


def test_if_an_allow_list_names_a_domain_its_other_items_are_excluded(spark, folder, free, tmp_path):
    allow = [items_file(tmp_path / "catalogue", "books", "b1", "b2", "b3", listed=["true", "false", "true"])]
    _, found = night(
        spark, folder, allow=allow, block=[items_file(tmp_path / "block", "books", "b3")], recommend={"mode": "full"}
    )
    for (user, domain), items in free.items():
        assert found[user, domain] == ([i for i in items if i[0] == "b1"] if domain == "books" else items[:5])
    withheld = {row[2]: row[3] for row in rows_of(job_at(spark, folder, "recommend"), "withheld")}
    assert withheld.pop("b3") == "blocked"
    assert set(withheld) == {f"b{i}" for i in (0, 2, 4, 5, 6, 7, 8, 9)} | {"b-new"}
    assert set(withheld.values()) == {"not_allowed"}


def test_lists_that_leave_a_domain_nothing_are_refused(spark, folder, tmp_path):
    version = job_at(spark, folder, "recommend").warehouse.version("recommendations")
    block = [items_file(tmp_path / "all", "films", *(f"f{i}" for i in range(10)))]
    with pytest.raises(DataError, match=r"\[\[allow\]\] and \[\[block\]\] exclude every item of {'films': 10} .*correct them"):
        night(spark, folder, block=block)
    with pytest.raises(DataError, match="exclude every item of {'books': 10}"):  # b-new is no item that a list could hold
        night(spark, folder, allow=[items_file(tmp_path / "new", "books", "b-new")])
    with pytest.raises(DataError, match=r"allow\[0\] .*: no row, so no domain to allow items of"):
        pq.write_table(pa.table({name: pa.array([], pa.string()) for name in ("item_id", "domain")}), tmp_path / "none")
        night(spark, folder, allow=[{"path": f"file://{tmp_path}/none"}])
    assert job_at(spark, folder, "recommend").warehouse.version("recommendations") == version
    withheld = rows_of(job_at(spark, folder, "recommend"), "withheld")
    with pytest.raises(DataError, match=r"cap\[0\] .*nowhere: .*no such file"):
        night(
            spark,
            folder,
            block=[items_file(tmp_path / "one", "films", "f1")],
            cap=[{"path": f"file://{tmp_path}/nowhere", "at_most": 1}],
        )
    assert rows_of(job_at(spark, folder, "recommend"), "withheld") == withheld, "all files are opened before any rule holds"
    with pytest.raises(DataError, match="exclude every item of {'films': 10}"):
        night(spark, folder, allow=[items_file(tmp_path / "empty", "films")])
    with pytest.raises(DataError, match=r"block\[0\] .*nowhere: .*no such file"):
        night(spark, folder, block=[{"path": f"file://{tmp_path}/nowhere", "domain": "films"}])


def test_a_flag_that_cannot_be_read_keeps_the_item_out_and_a_list_that_fits_nothing_is_told(spark, folder, tmp_path, caplog):
    block = items_file(tmp_path / "block", "books", "b1", "b2", "b3", listed=["yes", "no", "sold out"])
    part = items_file(tmp_path / "part", "books", "b1", "nobody", "knows")
    allow = items_file(tmp_path / "allow", "films", "f1", "f2", listed=["true", "?"])
    _, found = night(spark, folder, block=[block, items_file(tmp_path / "other", "shopp", "b1"), part], allow=[allow])
    offered = {
        domain: {item for (_, of), items in found.items() if of == domain for item, _ in items} for domain in ("books", "films")
    }
    assert not offered["books"] & {"b1", "b3"} and "b2" in offered["books"]
    assert offered["films"] == {"f1"}
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [message for message in said if "block[0]" in message and "in 1 rows; taken as True" in message]
    assert [message for message in said if "allow[0]" in message and "in 1 rows; taken as False" in message]
    assert [message for message in said if "block[1]" in message and "none of its 1 rows names an item that is known" in message]
    assert [message for message in said if "block[2]" in message and "2 of its 3 rows name no item that is known" in message]


def test_a_list_holds_no_more_items_of_a_group_than_its_cap(spark, folder, free, tmp_path):
    odd = [["odd", "all"] if i % 2 else ["all"] for i in range(10)]
    cap = items_file(tmp_path / "books", "books", *(f"b{i}" for i in range(10)), attributes=odd)
    caps = [cap | {"columns": {"group": "attributes"}, "at_most": 1}]
    _, found = night(spark, folder, cap=caps, recommend={"mode": "full"})
    for (user, domain), items in free.items():
        assert found[user, domain] == items[: 1 if domain == "books" else 5]
    caps = [items_file(tmp_path / "odd", "books", *(f"b{i}" for i in range(1, 10, 2)), group=["odd"] * 5) | {"at_most": 1}]
    _, found = night(spark, folder, cap=caps, recommend={"mode": "full"})
    for (user, domain), items in free.items():
        first = next((item for item in items if int(item[0][-1]) % 2), None)
        allowed = [item for item in items if domain == "films" or item == first or int(item[0][-1]) % 2 == 0]
        assert found[user, domain] == allowed[:5]


def test_items_below_the_least_score_are_left_out_but_of_lists_by_popularity(spark, folder, free):
    scores = sorted(score for (user, domain), items in free.items() if domain == "films" for _, score in items)
    least = scores[len(scores) // 2]
    _, found = night(spark, folder, recommend={"mode": "full", "min_score": {"films": least, "books": 1e6}})
    for (user, domain), items in free.items():
        if domain == "films":
            assert found[user, domain] == [item for item in items[:5] if item[1] >= least]
    listed = {user for (user, domain), items in found.items() if domain == "books" and items}
    assert listed == {"new"}, "no usable history: by popularity"


def test_reused_lists_are_those_of_a_full_run_under_all_rules(spark, folder, tmp_path):
    cap = items_file(tmp_path / "odd", "books", *(f"b{i}" for i in range(1, 10, 2)), group=[1] * 5) | {"at_most": 2}
    sections = {"cap": [cap], "allow": [items_file(tmp_path / "allow", "films", *(f"f{i}" for i in range(8)))]}
    rules = {"min_score": {"films": 0.0}, "users": "all"}
    everyone, before = night(spark, folder, **sections, recommend=rules | {"mode": "full"})
    assert night(spark, folder, **sections, recommend=rules) == (0, before)
    block = [items_file(tmp_path / "block", "books", "b4")]
    scored, found = night(spark, folder, **sections, block=block, recommend=rules)
    assert 0 < scored < everyone
    assert found == night(spark, folder, **sections, block=block, recommend=rules | {"mode": "full"})[1]


def test_a_night_scores_those_whose_lists_a_new_rule_changes(spark, folder, tmp_path):
    def of(*blocked: str, **section) -> tuple[int, dict]:
        return night(spark, folder, block=[items_file(tmp_path / "block", "books", *blocked)], recommend=section)

    everyone, before = of("b1", mode="full")
    assert of("b1") == (0, before)
    hit = {user for (user, domain), items in before.items() if domain == "books" and "b2" in dict(items)}
    assert 0 < len(hit) < everyone
    scored, found = of("b1", "b2")
    assert scored == len(hit)
    assert found == of("b1", "b2", mode="full")[1]
    assert of("b2")[0] == everyone, "b1 is eligible again"
    assert not list((folder / WAREHOUSE / "_rules").iterdir())
