"""A corpus on storage: its rows, shards, manifest, card and report, and how it is read."""
