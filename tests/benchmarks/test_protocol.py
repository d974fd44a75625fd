"""The benchmark's memory and its table; the runs themselves are those of the commands that it calls."""

from __future__ import annotations

import pytest
from protocol import Options, _configuration, _fingerprint, benchmark, table

from metarec_spark.errors import ConfigError


def row(seed: int, ndcg: float, *, run: str = "beauty", settings: str = "a", scorer: str = "model", cpu: float = 100.0) -> dict:
    measured = {"ndcg@10": str(ndcg), "hit_rate@10": "0.1", "cpu_seconds": str(cpu), "wall_seconds": "60"}
    return {
        "run": run,
        "seed": str(seed),
        "settings": settings,
        "domain": "beauty",
        "scorer": scorer,
        **measured,
        "model_id": "m",
    }


def test_the_table_has_mean_and_spread_over_seeds_and_what_is_published():
    lines = table([row(0, 0.06, cpu=90), row(1, 0.07, cpu=110), row(0, 0.05, scorer="encoder")])
    assert "| beauty | beauty | model | 0.0650 ± 0.0071 | 0.1000 | 100 ± 14 |" in lines
    assert "| beauty | beauty | encoder | 0.0500 | 0.1000 |  |" in lines
    assert any("published, ids alone | BSARec" in line for line in lines)


def test_runs_with_different_settings_are_told_apart():
    lines = table([row(0, 0.06), row(0, 0.07, settings="b")])
    assert [line for line in lines if "beauty (a) | model | 0.0600" in line]
    assert [line for line in lines if "beauty (b) | model | 0.0700" in line]


def test_a_run_is_known_by_its_log_and_its_settings_and_not_by_its_seed(tmp_path):
    logs = [tmp_path / part / "beauty" for part in ("one", "two")]
    for log in logs:
        log.mkdir(parents=True)
        (log / "events.parquet").write_bytes(b"rows of " + str(log).encode())

    def known(log, *overrides: str) -> str:
        made = _configuration("beauty", [log], Options([log], tmp_path, overrides=overrides))
        return _fingerprint(made, [log])

    first = known(logs[0])
    assert first == known(logs[0]) == known(logs[0], "train.seed=3")
    assert len({first, known(logs[1]), known(logs[0], "model.dim=64")}) == 3
    (logs[0] / "events.parquet").write_bytes(b"other rows")
    assert known(logs[0]) != first


def test_a_missing_log_is_an_error_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match=r"no events.parquet in it; give a folder"):
        benchmark(Options([tmp_path / "none"], tmp_path / "out"))
    assert not (tmp_path / "out").exists()
