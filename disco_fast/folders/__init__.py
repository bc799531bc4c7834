"""``disco-fast colorize``: picture files and folders of any number of them."""
