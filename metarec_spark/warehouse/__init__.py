"""Everything that is read from and written to storage: table contracts, Delta tables, model folders, the lock."""
