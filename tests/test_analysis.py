"""Anchors in the user's hands: placed, recolored, moved, added, removed, written and read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import disco_fast
from disco_fast import Analysis, Anchor, Colorizer, reference
from disco_fast.anchors import (
    EXPLAINED,
    FEWEST,
    MOST,
    bin_of,
    count_anchors,
    from_json,
    rgb_of,
    shown,
    to_json,
    unexplained,
)
from disco_fast.color import N_BINS, bin_centers
from disco_fast.io.images import read_image
from disco_fast.model.readout import TEMPERATURE

PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "photographs"


def photograph(name: str) -> Tensor:
    """[3,H,W] uint8, a third of its size."""
    pixels = torch.from_numpy(read_image(PHOTOGRAPHS / f"{name}.jpg").pixels).permute(2, 0, 1)
    return pixels[:, ::3, ::3].contiguous()


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def image() -> Tensor:
    return photograph("chelsea")


@pytest.fixture(scope="module")
def analysis(colorizer: Colorizer, image: Tensor) -> Analysis:
    return colorizer.analyze(image)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "gray"])
def test_untouched_it_gives_what_a_full_run_gives(precision: str, kind: str, image: Tensor):
    try:
        colorizer = Colorizer(device="cpu", precision=precision)
    except ValueError as error:
        pytest.skip(str(error))
    picture = image if kind == "uint8" else image / 255
    if kind == "gray":
        picture = picture[:1]
    settings = {"n_anchors": 6, "seed": 3, "working_size": 128}
    analysis = colorizer.analyze(picture, **settings)
    result = analysis.colorize()
    assert torch.equal(result, colorizer.colorize(picture, **settings))
    assert result.dtype == picture.dtype


def test_the_backbone_never_runs_again(analysis: Analysis):
    network = analysis._engine.network
    ran: list[str] = []
    hooks = [
        getattr(network, name).register_forward_hook(lambda *_, name=name: ran.append(name))
        for name in ("segnet", "repnet", "enhanceNet")
    ]
    analysis.colorize([anchor.recolored("#c03030") for anchor in analysis.anchors])
    for hook in hooks:
        hook.remove()
    assert ran == ["enhanceNet"]


def test_changed_anchors_give_the_pixels_of_a_full_run_with_them(
    colorizer: Colorizer, analysis: Analysis, image: Tensor
):
    changed = [analysis.anchors[0].recolored("#20a040"), *analysis.anchors[2:]]
    changed.append(analysis.anchor((5, 9), (40, 60, 200)))
    own = analysis.colorize(changed)
    afresh = colorizer.analyze(image).from_json(analysis.to_json(changed))
    assert torch.equal(own, colorizer.analyze(image).colorize(afresh))
    # The network as published, step by step, with these anchors.
    network = disco_fast.load_checkpoint(disco_fast.checkpoints.COMPACT)
    lightness, gray = analysis._mode.read(image[None], torch.device("cpu"))
    with torch.inference_mode():
        superpixels = network.superpixels(gray)
        index = torch.tensor([[anchor.superpixel for anchor in changed]])
        bins = torch.tensor([[anchor.bin for anchor in changed]])
        ab = network.generate(gray, superpixels, index, bins).ab
    published = analysis._mode.paint(lightness, ab, torch.uint8)[0]
    assert (own.int() - published.int()).abs().max() <= 1  # the prepared network rounds elsewhere


def test_from_scratch(colorizer: Colorizer, analysis: Analysis, image: Tensor):
    height, width = image.shape[1:]
    pairs = [((2.5, 3), "#c03030"), ((width - 1, height - 1), (20, 40, 220))]
    red, blue = analysis.resolved(pairs)
    assert red.superpixel == 0
    assert blue.superpixel == analysis.superpixels.tokens.shape[1] - 1
    given = colorizer.colorize(image, anchors=pairs)
    assert torch.equal(given, analysis.colorize([red, blue]))
    assert not torch.equal(given, analysis.colorize())
    corner = given[:, :8, :8].float().mean(dim=(1, 2)) - image[:, :8, :8].float().mean(dim=(1, 2))
    assert corner[0] > corner[2] + 10  # redder than it was, and less blue


def test_what_is_known_of_an_anchor(analysis: Analysis, image: Tensor):
    assert len(analysis.anchors) == 8
    assert len({anchor.superpixel for anchor in analysis.anchors}) == 8
    engine = analysis._engine
    logits = engine.network.mid_word_prj(analysis.superpixels.color_tokens[0]) + engine.offset()
    for anchor in analysis.anchors:
        again = analysis.anchor(anchor.pixel)
        assert again == anchor  # so its point lies in its superpixel, and its color is its own
        probabilities = logits[anchor.superpixel].softmax(dim=0)
        assert len(anchor.palette) == 10
        for swatch in anchor.palette:
            assert swatch.probability == pytest.approx(float(probabilities[swatch.bin]))
        falling = [swatch.probability for swatch in anchor.palette]
        assert falling == sorted(falling, reverse=True)
        assert falling[0] == pytest.approx(float(probabilities.max()))
        mean = reference.mean_bins(logits[anchor.superpixel], bin_centers("cpu"), TEMPERATURE)
        assert anchor.bin == mean
        swatch = anchor.palette[0]
        assert anchor.recolored(swatch).rgb == swatch.rgb
        assert anchor.recolored(anchor.palette[4]).bin == anchor.palette[4].bin
        mask, cluster = analysis.mask(anchor), analysis.cluster(anchor)
        assert mask.shape == cluster.shape == image.shape[1:]
        x, y = anchor.pixel
        assert mask[int(y), int(x)]
        assert bool((cluster | ~mask).all())  # a superpixel is within its cluster
        inside = analysis._lightness[0, 0][mask].mean()
        assert anchor.lightness == pytest.approx(float(inside), abs=5)  # measured at another size
    union = torch.stack([analysis.cluster(anchor) for anchor in analysis.anchors])
    assert bool((union.sum(dim=0) == 1).all())  # every pixel belongs to one cluster


def test_segments_are_those_of_the_hard_assignment(analysis: Analysis):
    sizes = reference.superpixel_size(analysis.superpixels.association, 16)[0, 0].flatten()
    counted = torch.bincount(analysis._segments.flatten(), minlength=len(sizes)) / 256
    assert torch.equal(counted, sizes)


@pytest.mark.parametrize("shape", [(16, 16), (1, 40), (37, 53), (200, 3), (300, 500)])
def test_places_of_any_picture_lead_back(colorizer: Colorizer, shape: tuple[int, int]):
    draws = torch.Generator().manual_seed(shape[1])
    picture = torch.randint(0, 256, (1, *shape), dtype=torch.uint8, generator=draws)
    analysis = colorizer.analyze(picture, working_size=96)
    assert analysis.from_json(analysis.to_json()) == tuple(
        replace(analysis.anchor(a.pixel), bin=a.bin) for a in analysis.from_json(analysis.to_json())
    )
    for anchor in analysis.anchors:
        if (analysis._segments == anchor.superpixel).any():
            assert analysis.anchor(anchor.pixel).superpixel == anchor.superpixel


def test_json_keeps_everything(analysis: Analysis):
    changed = [analysis.anchors[3].recolored("#19f"), *analysis.anchors[:2]]
    read = analysis.from_json(analysis.to_json(changed))
    assert [(a.superpixel, a.bin) for a in read] == [(a.superpixel, a.bin) for a in changed]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, "not so many levels"),
        ('{"anchors": ' + "[" * 200_000, "not so many levels"),
        ('{"width": ' + "9" * 401 + ', "anchors": []}', 'expected a number for "width"'),
        ('{"anchors": [{"x": ' + "9" * 401 + ', "y": 1, "color": "#fff"}]}', 'number for "x"'),
        ('{"anchors": [{"x": ' + "9" * 9999 + "}]}", "not JSON"),
        ('{"anchors": [{"x": 1e999, "y": 1, "color": "#fff"}]}', 'number for "x"'),
        ('{"anchors": [{"x": NaN, "y": 1, "color": "#fff"}]}', 'number for "x"'),
        ('{"anchors": [{"x": 1, "y": 1, "color": [Infinity, 0, 0]}]}', "color: expected"),
        ('{"anchors": [{"x": 1, "y": 1, "color": [NaN, 0, 0]}]}', "color: expected"),
        ('{"anchors": [{"x": 1, "y": 1, "color": {"a": 1}}]}', "color: expected"),
        ('{"anchors": [{"x": 1, "y": 1, "color": null}]}', "color: expected"),
        ('{"anchors": [{"x": 1, "y": 1, "ab": [1e400, 0]}]}', 'number for "a"'),
        ('{"anchors": [{"x": 1, "y": 1, "color": "' + "f" * 9999 + '"}]}', "color: expected"),
        ('{"version": ' + "9" * 4000 + "}", "expected version 1"),
        ("\0" * 100, "not JSON"),
        ("null", "expected a JSON object"),
        ('{"anchors": 3}', "a list of objects"),
    ],
)
def test_json_of_anything_is_refused_by_a_sentence(text: str, message: str):
    with pytest.raises(ValueError, match=f"anchors: .*{message}") as refused:
        from_json(text, 9, 9)
    assert len(str(refused.value)) < 250


def test_json_of_a_windows_editor(analysis: Analysis):
    text = analysis.to_json()
    assert analysis.from_json("\ufeff" + text) == analysis.from_json(text)


def test_json_is_counted_before_it_is_read(analysis: Analysis):
    entry = {"x": "no number"}
    with pytest.raises(ValueError, match=r"anchors: expected at most .*, got 5000"):
        analysis.from_json(json.dumps({"anchors": [entry] * 5000}))


def test_json_of_every_bin(analysis: Analysis):
    for bin_number in range(N_BINS):
        anchor = replace(analysis.anchors[0], bin=bin_number)
        assert from_json(to_json([anchor], 9, 9), 9, 9)[0][1] == bin_number


def test_json_by_hand_and_for_another_size(analysis: Analysis):
    width, height = analysis.size
    text = {"width": 10, "height": 10, "anchors": [{"x": 5, "y": 2.5, "color": "#ff0000"}]}
    (anchor,) = analysis.from_json(json.dumps(text))
    assert anchor.pixel == (width / 2, height / 4)
    assert anchor.bin == bin_of("#ff0000")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        ('{"format": "x"}', 'whose "format" is'),
        ('{"version": 9, "anchors": []}', "expected version 1, got 9"),
        ('{"anchors": 3}', "a list of objects"),
        ('{"anchors": []}', "expected at least one"),
        ('{"anchors": [{"x": 1, "color": "#fff"}]}', 'anchor 0: expected a number for "y"'),
        ('{"anchors": [{"x": 1, "y": NaN, "color": "#fff"}]}', 'a number for "y", got nan'),
        ('{"anchors": [{"x": 1, "y": 1}]}', 'anchor 0: expected a "color"'),
        ('{"anchors": [{"x": 1, "y": 1, "color": "blue"}]}', "anchor 0: color: expected"),
        ('{"anchors": [{"x": 1, "y": 1, "ab": [1]}]}', 'two numbers in "ab"'),
        ('{"anchors": [{"x": 1, "y": 99999, "color": "#fff"}]}', "a point within"),
        ('{"width": 0, "anchors": []}', 'a number for "width", got 0'),
    ],
)
def test_json_that_is_none(analysis: Analysis, text: str, message: str):
    with pytest.raises(ValueError, match=message):
        analysis.from_json(text)


def test_colors_as_users_give_them():
    assert rgb_of("#c03030") == rgb_of("C03030") == rgb_of((192, 48, 48)) == (192, 48, 48)
    assert rgb_of("#19f") == (0x11, 0x99, 0xFF)
    numbers = ((1, 2), (1, 2, 300), (1, 2, -1), (1, 2, 0.5))
    for wrong in ("", "#12", "#1234567", "red", "#٣٣٣", *numbers):
        with pytest.raises(ValueError, match="color: expected"):
            rgb_of(wrong)
    # A bin within sRGB, shown and read again, is that bin.
    for lightness in (40.0, 60.0):
        for number in range(N_BINS):
            rgb = shown(lightness, [number])[0]
            if min(rgb) > 0 and max(rgb) < 255:
                assert bin_of(rgb) == number


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([], "expected at least one"),
        ([((1, 1), "#fff"), ((2, 2), "#000")], "are in one superpixel"),
        ([((-1, 1), "#fff")], "expected a point within"),
        ([((1, 1), "#ff")], "color: expected"),
        ([Anchor(10**6, (1, 1), 0, (), 3)], "is of another picture"),
    ],
)
def test_refusals(analysis: Analysis, anchors: list, message: str):
    with pytest.raises(ValueError, match=message):
        analysis.colorize(anchors)


def test_only_one_picture_is_analyzed(colorizer: Colorizer, image: Tensor):
    with pytest.raises(ValueError, match="expected one image"):
        colorizer.analyze(image[None])
    with pytest.raises(ValueError, match="anchors: expected one image"):
        colorizer.colorize(torch.stack([image, image]), anchors=[((1, 1), "#fff")])
    with pytest.raises(ValueError, match="variants: expected 1 with anchors"):
        colorizer.colorize(image, anchors=[((1, 1), "#fff")], variants=2)


def test_one_anchors_color_is_its_clusters(colorizer: Colorizer):
    for name in ("china", "coffee", "flower", "chelsea"):
        analysis = colorizer.analyze(photograph(name))
        before = analysis.colorize().float()
        own, others = [], []
        for place, anchor in enumerate(analysis.anchors):
            away = next(b for b in range(N_BINS) if torch.dist(_ab(b), _ab(anchor.bin)) > 60)
            changed = list(analysis.anchors)
            changed[place] = replace(anchor, bin=away)
            change = (analysis.colorize(changed).float() - before).abs().mean(dim=0)
            cluster = analysis.cluster(anchor)
            own.append(float(change[cluster].mean()))
            others.append(float(change[~cluster].mean()))
        assert sum(own) > 3 * sum(others), name


def _ab(number: int) -> Tensor:
    return bin_centers("cpu")[number]


# ---- variants -----------------------------------------------------------------------------------


def test_three_variants_are_the_published_ones_and_more_are_drawn(
    colorizer: Colorizer, analysis: Analysis, image: Tensor
):
    published = colorizer.colorize(image, variants=3)
    many = colorizer.colorize(image, variants=5)
    assert many.shape == (5, *image.shape)
    # Alone each rounds otherwise than three together.
    assert (many[:3].int() - published.int()).abs().float().mean() < 0.01
    sets = analysis.variants(5)
    assert [a.bin for a in sets[0]] == [a.bin for a in analysis.anchors]
    assert sets[3] != sets[4]
    assert analysis.variants(4) == sets[:4]
    assert torch.equal(many[4], analysis.colorize(sets[4]))
    assert analysis.variants(1) == [analysis.anchors]


def test_the_temperature(analysis: Analysis):
    def mean_rank(temperature: float) -> float:
        drawn = analysis.variants(40, temperature)[3:]
        rows = [analysis._probability[a.superpixel] for anchors in drawn for a in anchors]
        bins = [a.bin for anchors in drawn for a in anchors]
        ranks = [int((row > row[number]).sum()) for row, number in zip(rows, bins, strict=True)]
        return sum(ranks) / len(ranks)

    cold, mild, hot = (mean_rank(t) for t in (0.01, 1.0, 5.0))
    assert cold < 0.1 < mild < hot  # near 0 only ties are open


# ---- the number of anchors ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["china", "coffee", "flower", "rocket"])
def test_the_fewest_anchors_that_explain_the_tokens(colorizer: Colorizer, name: str):
    analysis = colorizer.analyze(photograph(name), n_anchors="auto")
    tokens, count = analysis.superpixels.color_tokens, len(analysis.anchors)
    spread = float(tokens[0].var(dim=0, correction=0).sum()) * tokens.shape[1]
    shares = [1 - unexplained(tokens, k, 0) / spread for k in range(FEWEST, count + 1)]
    assert count == MOST or shares[-1] >= EXPLAINED
    assert all(share < EXPLAINED for share in shares[:-1])


def test_plain_pictures_get_fewer_anchors_than_busy_ones():
    draws = torch.Generator().manual_seed(0)
    counts = []
    for colors in (3, 8, 40):
        centers = torch.randn(colors, 64, generator=draws)
        noise = 0.02 * torch.randn(240, 64, generator=draws)
        counts.append(count_anchors((centers[torch.arange(240) % colors] + noise)[None], seed=0))
    assert counts[0] == 3
    assert counts[0] < counts[1] <= 8
    assert counts[2] == MOST


def test_few_superpixels_have_few_anchors(colorizer: Colorizer):
    draws = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (1, 32, 32), dtype=torch.uint8, generator=draws)
    analysis = colorizer.analyze(picture, n_anchors="auto", working_size=32)
    assert analysis.superpixels.tokens.shape[1] == 4
    assert len(analysis.anchors) in (3, 4)


def test_a_uniform_picture(colorizer: Colorizer):
    picture = torch.full((1, 64, 64), 90, dtype=torch.uint8)
    result = colorizer.colorize(picture.expand(3, -1, -1), n_anchors="auto")
    assert result.shape == (3, 64, 64)


def test_each_picture_of_a_batch_finds_its_own_number(colorizer: Colorizer):
    pictures = [photograph(name)[:, :96, :96] for name in ("chelsea", "china", "rocket")]
    together = colorizer.colorize(torch.stack(pictures), n_anchors="auto", variants=2)
    assert together.shape == (3, 2, 3, 96, 96)
    for picture, found in zip(pictures, together, strict=True):
        analysis = colorizer.analyze(picture, n_anchors="auto")
        assert FEWEST <= len(analysis.anchors) <= MOST
        assert torch.equal(found[0], analysis.colorize())


# ---- colors of a reference ---------------------------------------------------------------------


def test_colors_of_itself(colorizer: Colorizer):
    picture = photograph("flower")
    analysis = colorizer.analyze(picture)
    hinted = analysis.colorize(analysis.anchors_from(analysis)).float()
    error = (hinted - picture).abs().mean()
    assert error < (analysis.colorize().float() - picture).abs().mean()


def test_a_gray_reference_gives_no_colors(colorizer: Colorizer, analysis: Analysis):
    for gray in (torch.zeros(1, 32, 32), torch.full((3, 32, 32), 0.5)):
        with pytest.raises(ValueError, match="reference: expected a picture in color"):
            analysis.anchors_from(colorizer.analyze(gray))


def test_another_pictures_colors(colorizer: Colorizer, analysis: Analysis):
    tinted = torch.zeros(3, 64, 64, dtype=torch.uint8)
    tinted[0], tinted[2] = 60, 220
    hinted = analysis.anchors_from(colorizer.analyze(tinted))
    assert {anchor.bin for anchor in hinted} == {bin_of((60, 0, 220))}


# ---- the documents ------------------------------------------------------------------------------


@pytest.mark.parametrize("document", ["README.md", "docs/anchors.md"])
def test_the_documents_show_how(colorizer: Colorizer, document: str):
    pixels = read_image(PHOTOGRAPHS / "chelsea.jpg").pixels
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    text = (PHOTOGRAPHS.parents[1] / document).read_text()
    recipe = text.split("# Anchors\n")[1].split("```python\n")[1].split("```")[0]
    known = {"colorizer": colorizer, "disco_fast": disco_fast, "image": image}
    exec(recipe, known | {"reference": photograph("flower")}, found := {})
    assert found["color"].shape == image.shape
    if "many" in recipe:
        assert found["many"].shape == (12, *image.shape)
