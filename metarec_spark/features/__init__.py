"""From logs to tables: clean events, items, sequences, transitions, content."""
