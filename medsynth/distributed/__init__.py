"""All that runs on Ray: sessions, indexing and generation."""
