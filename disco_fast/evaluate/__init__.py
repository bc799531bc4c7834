"""The quality of colors, on photographs whose own are known: as in the paper's Table 3."""
