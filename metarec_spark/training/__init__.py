"""From pinned tables to a model file: snapshot, reader, ranks, loop."""
