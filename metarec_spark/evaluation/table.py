"""The table that a person reads after an evaluation, on standard error."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarec_spark import columns as c
from metarec_spark.evaluation.approval import Headlines, best_baseline
from metarec_spark.runtime.logs import plain

_SHOWN = (c.MODEL, c.ENCODER, c.TRANSITIONS_TUNED)


def show(headlines: Headlines, model_id: str) -> None:
    """Print NDCG@10 and HR@10 of the model, its parts and the best baseline by platform."""
    console = Console(stderr=True)
    table = Table(title=f"test, full ranking: NDCG@10 / HR@10 of {model_id}")
    table.add_column("platform")
    for column in ("pairs", *_SHOWN, "best baseline"):
        table.add_column(column.replace("_", " "), justify="right")
    for domain in sorted({domain for domain, _ in headlines}):
        baseline = best_baseline(headlines, domain)
        shown = [headlines[domain, scorer] for scorer in (*_SHOWN, baseline)]
        cells = [f"{headline.ndcg:.4f} / {headline.hit_rate:.4f}" for headline in shown]
        cells[-1] += f" {baseline.replace('_', ' ')}"
        table.add_row(Text(plain(domain)), str(shown[0].pairs), *cells)
    Console(stderr=True, width=None if console.is_terminal else 110).print(table)
