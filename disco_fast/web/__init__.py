"""``disco-fast web``: a page on which a photograph gets its colours, and other ones."""
