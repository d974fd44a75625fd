"""Reading source files: logs, catalogues and lists of every format become rows with our columns.

events, items and lists are what others call. Below them: opening (by format) → text (dialects, records, worker) or parquet →
group (files that are alike) → values, instants and times, which bring the columns of a group to what they mean.
"""
