"""``disco-fast video``: films, in colors that stay from frame to frame."""
