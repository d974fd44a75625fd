"""The table that a person reads after an evaluation, on standard error."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarec_spark import columns as c
from metarec_spark.runtime.logs import plain


def show(values: dict[tuple[str, str], tuple[float, float, int]], model_id: str) -> None:
    """Print NDCG@10 and HR@10 of each domain and scorer, from (domain, scorer) → (NDCG@10, HR@10, pairs)."""
    table = Table(title=f"test, full ranking: NDCG@10 / HR@10 of {model_id}")
    table.add_column("domain")
    table.add_column("pairs", justify="right")
    for scorer in c.SCORERS:
        table.add_column(scorer, justify="right")
    for domain in sorted({domain for domain, _ in values}):
        cells = [f"{ndcg:.4f} / {hit_rate:.4f}" for ndcg, hit_rate, _ in (values[domain, scorer] for scorer in c.SCORERS)]
        table.add_row(Text(plain(domain)), str(values[domain, c.MODEL][2]), *cells)
    Console(stderr=True, width=None if Console(stderr=True).is_terminal else 110).print(table)
