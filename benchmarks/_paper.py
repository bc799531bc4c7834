"""The paper's efficiency figures (section 5.5): one 256x256 image at a time on an NVIDIA V100."""

from _stages import ANCHORS, FEATURES, GENERATION

DEVICE = "NVIDIA V100"

# Figure 13: parameters in millions, multiply-accumulates ("FLOP") in G, time in ms.
FIGURE_13 = {
    FEATURES: (34.80, 71.84, 18.57),
    ANCHORS: (0.66, 0.27, 39.94),
    GENERATION: (7.60, 55.75, 14.23),
}

# Table 5: the same three for whole networks.
TABLE_5 = {
    "CIColor [2016]": (32.24, 41.78, 7.29),
    "UGColor [2017]": (34.19, 75.22, 15.88),
    "Deoldify [2019]": (218.22, 141.32, 29.85),
    "InstColor [2020]": (176.89, 526.09, 184.75),
    "ChromaGAN [2020]": (47.52, 18.85, 3.65),
    "ColTran [2021]": (70.71, 5782.0, 110708.47),
    "DISCO [2022]": (43.06, 127.86, 72.74),
}
