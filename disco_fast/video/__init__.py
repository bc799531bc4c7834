"""``disco-fast video``: films, in colours that stay from frame to frame."""
