"""``disco-fast web``: a page on which a photograph gets its colors, and other ones."""
