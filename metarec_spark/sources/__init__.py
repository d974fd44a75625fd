"""Reading source files: logs, catalogues and lists of every format become rows with our columns."""

from metarec_spark.sources.events import (
    ARRIVAL,
    LONGEST,
    PROBLEM,
    TIME_TEXT,
    blank,
    open_events,
    open_groups,
    open_items,
    open_list,
)
from metarec_spark.sources.files import SourceFile, list_files

__all__ = [
    "ARRIVAL",
    "LONGEST",
    "PROBLEM",
    "TIME_TEXT",
    "SourceFile",
    "blank",
    "list_files",
    "open_events",
    "open_groups",
    "open_items",
    "open_list",
]
