"""The specification: what every op means, in plain PyTorch, on any device and in any float dtype.

It is also the published eager path. The steps are those of the paper's released program (nine
passes over the features to pool them, nine to spread them, a Python loop per image and per cluster
in K-Means, colours chosen for every superpixel where only the anchors' are used), so
`benchmarks/timing.py` times this module as the baseline, and every faster form is tested against
it.

Pixel tensors (features, association) may be half precision; superpixel tensors (tokens, weights,
sizes) are in `wide_dtype`, in which all sums are kept.

Shapes: N images, C channels, H x W pixels, h x w = P superpixels with H = h * cell_size and W = w *
cell_size, K clusters of D-dimensional points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-8  # keeps SP-Pooling finite for a superpixel that no pixel is associated with
SIZE_BONUS = 0.01  # weight of a superpixel's size against its membership in the anchor's cluster
TOP_BINS = 10  # diverse colours are taken from this many most probable bins
MAX_VARIANTS = 3  # there is no fourth unlike colour
COLOR_PARTS = 1024  # mean colours are rounded to such parts of a unit of ab


def neighbour_offsets() -> Iterator[tuple[int, int, int]]:
    """The nine candidates of a pixel as (slot, row offset, column offset), row-major."""
    return ((slot, slot // 3 - 1, slot % 3 - 1) for slot in range(9))


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums over pixels and of everything per superpixel: fp64 for fp64, else fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


# ---- SP-Pooling and SP-Diffusion -----------------------------------------------------------------


def sp_aggregate(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor]:
    """Association-weighted sums of features onto superpixels, per unit of cell area.

    Args:
        features: [N,C,H,W].
        association: [N,9,H,W], a pixel's weight for each of its nine candidate superpixels.
        cell_size: side S of a grid cell in pixels.

    Returns:
        (sums [N,C,h,w], weight [N,1,h,w]): the sums over the 3x3 cells around a superpixel of
        association x feature and of association alone, both divided by S^2. Candidates outside the
        grid are dropped.
    """
    n, _, height, width = features.shape
    rows, columns = height // cell_size, width // cell_size
    association = association.to(wide_dtype(association.dtype))
    features = features.to(association.dtype)
    stacked = torch.cat([features, features.new_ones(n, 1, height, width)], dim=1)
    total: Tensor | None = None
    for slot, dy, dx in neighbour_offsets():
        cells = F.avg_pool2d(stacked * association[:, slot : slot + 1], cell_size)
        padded = F.pad(cells, (1, 1, 1, 1))
        moved = padded[:, :, 1 - dy : 1 - dy + rows, 1 - dx : 1 - dx + columns]
        total = moved if total is None else total + moved
    assert total is not None
    # Copies, for the results of an op may not share memory.
    contiguous = torch.contiguous_format
    return total[:, :-1].clone(memory_format=contiguous), total[:, -1:].clone(
        memory_format=contiguous
    )


def sp_pool(features: Tensor, association: Tensor, cell_size: int) -> tuple[Tensor, Tensor]:
    """SP-Pooling (equation 1): a superpixel's token is the association-weighted mean of its pixels.

    Args and weight as in `sp_aggregate`.

    Returns:
        (pooled [N,C,h,w], weight [N,1,h,w]), pooled = sums / (weight + 1e-8).
    """
    sums, weight = sp_aggregate(features, association, cell_size)
    return sums / (weight + EPSILON), weight


def _overlap(offset: int, size: int) -> tuple[slice, slice]:
    """Along one axis: the cells whose neighbour at `offset` exists, and those neighbours."""
    return slice(max(0, -offset), size - max(0, offset)), slice(
        max(0, offset), size + min(0, offset)
    )


def _pixels(cells: slice, cell_size: int) -> slice:
    return slice(cells.start * cell_size, cells.stop * cell_size)


def _candidates(
    tokens: Tensor, cell_size: int
) -> Iterator[tuple[int, tuple[slice, slice], Tensor]]:
    """For each slot: the pixels that have this candidate, and its token at each of them."""
    rows, columns = tokens.shape[-2:]
    packed = tokens.contiguous()
    for slot, dy, dx in neighbour_offsets():
        own_rows, their_rows = _overlap(dy, rows)
        own_columns, their_columns = _overlap(dx, columns)
        # Only the own cell's tokens are spread in whatever layout they come: as published.
        theirs = tokens if slot == 4 else packed[:, :, their_rows, their_columns]
        if theirs.numel() == 0:
            continue
        spread = F.interpolate(theirs, scale_factor=float(cell_size), mode="nearest")
        yield slot, (_pixels(own_rows, cell_size), _pixels(own_columns, cell_size)), spread


def sp_diffuse(
    tokens: Tensor, association: Tensor, cell_size: int, lead: Tensor | None = None
) -> Tensor:
    """SP-Diffusion (equation 2): a pixel is the weighted mix of its nine candidate superpixels.

    Args:
        tokens: [N,C,h,w].
        association: [N,9,H,W]; weights of candidates outside the grid are ignored.
        cell_size: side of a grid cell in pixels.
        lead: [N,1,H,W] in the dtype of the association, put in front of the result's channels
            (RefineNet's input is L and the features), or None.

    Returns:
        features [N,C,H,W], or [N,1+C,H,W] with a lead, in the dtype and layout (contiguous or
        channels-last) of the association.
    """
    n, channels = tokens.shape[:2]
    features = torch.empty(
        (n, channels, *association.shape[-2:]),
        dtype=tokens.dtype,
        device=tokens.device,
        memory_format=layout_of(association),
    ).zero_()
    # All nine spread maps are held at once: as published, and its time is mostly their memory's.
    for slot, (y, x), spread in tuple(_candidates(tokens, cell_size)):
        features[:, :, y, x] += spread * association[:, slot : slot + 1, y, x]
    features = features.to(association.dtype)
    if lead is None:
        return features
    return torch.cat([lead, features], dim=1).contiguous(memory_format=layout_of(association))


def sp_correlate(features: Tensor, tokens: Tensor, offset: Tensor | None, cell_size: int) -> Tensor:
    """Dot products of a pixel's vector with its candidate tokens: the association's gradient.

    Args:
        features: [N,C,H,W].
        tokens: [N,C,h,w].
        offset: [N,1,h,w] added for each candidate, or None.
        cell_size: side of a grid cell in pixels.

    Returns:
        [N,9,H,W] in the dtype of `features`; zero for candidates outside the grid.
    """
    n, _, height, width = features.shape
    products = [tokens.new_zeros(n, 1, height, width) for _ in range(9)]
    for slot, (y, x), spread in _candidates(tokens, cell_size):
        products[slot][:, :, y, x] += (features[:, :, y, x] * spread).sum(1, keepdim=True)
    if offset is not None:
        for slot, (y, x), spread in _candidates(offset, cell_size):
            products[slot][:, :, y, x] += spread
    return torch.cat(products, dim=1).to(features.dtype)


def superpixel_size(association: Tensor, cell_size: int) -> Tensor:
    """Area won by each superpixel when every pixel joins its most probable candidate.

    Args:
        association: [N,9,H,W]. Candidates that tie for the maximum all win; a pixel with a NaN
            joins nobody.
        cell_size: side of a grid cell in pixels.

    Returns:
        [N,1,h,w] in units of one cell's area, so from 0 to 9.
    """
    association = association.to(wide_dtype(association.dtype))
    best = association.max(dim=1, keepdim=True)[0]
    one, zero = torch.ones_like(association), torch.zeros_like(association)
    winners = torch.where(association == best, one, zero)
    return sp_aggregate(torch.ones_like(winners[:, :1]), winners, cell_size)[1]


def sp_pool_with_size(
    features: Tensor, association: Tensor, cell_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`sp_pool` and `superpixel_size`, which need the same weights.

    Returns:
        (pooled [N,C,h,w], weight [N,1,h,w], size [N,1,h,w]).
    """
    size = superpixel_size(association, cell_size)
    return *sp_pool(features, association, cell_size), size


def layout_of(tensor: Tensor) -> torch.memory_format:
    """Channels-last if `tensor` is stored so and not in the ordinary order too, else contiguous."""
    channels_last = tensor.is_contiguous(memory_format=torch.channels_last)
    return (
        torch.channels_last
        if channels_last and not tensor.is_contiguous()
        else torch.contiguous_format
    )


# ---- K-Means -------------------------------------------------------------------------------------


def _refill(members: Tensor, points: Tensor, spare: Iterator[Tensor]) -> Tensor:
    """The cluster's members, or for an empty one the next of the points that lie farthest off."""
    return members if len(members) else points[next(spare)][None]


def _farthest_first(distance: Tensor) -> Iterator[Tensor]:
    """Indices by falling distance; a generator, so that nothing is sorted unless asked for."""
    yield from distance.sort(descending=True, stable=True)[1]


def _kmeans_image(
    points: Tensor, init: Tensor, max_iter: int, tol: float
) -> tuple[Tensor, Tensor, int]:
    centers = points[init]
    iteration = 0
    while True:
        iteration += 1
        distance = ((points[:, None] - centers[None]) ** 2).sum(dim=-1)
        labels = distance.argmin(dim=1)
        previous = centers.clone()
        spare = _farthest_first(distance.amin(dim=1))
        for cluster in range(len(centers)):
            members = torch.nonzero(labels == cluster).squeeze(1)
            chosen = _refill(torch.index_select(points, 0, members), points, spare)
            centers[cluster] = chosen.mean(dim=0)
        shift = (centers - previous).square().sum(dim=1).sqrt().sum()
        if shift**2 < tol or iteration >= max_iter:
            return labels, centers, iteration


def kmeans(
    points: Tensor, init: Tensor, max_iter: int = 20, tol: float = 1e-4
) -> tuple[Tensor, Tensor, Tensor]:
    """Lloyd's algorithm on each image by itself.

    Squared Euclidean distance; the first of several nearest centers wins. Stops when (sum over
    centers of the Euclidean shift)^2 < tol, after at least one update, or after `max_iter` updates.
    An empty cluster moves to the point that lies farthest from its own center (lowest index on
    ties); of several empty clusters in one update the first takes the farthest point, the next the
    second farthest. (The published program takes a random point.)

    Args:
        points: [N,P,D], floating.
        init: [N,K] int64, indices of the points that are the first centers.
        max_iter: at least 1.
        tol: bound on the squared total shift.

    Returns:
        (labels [N,P] int64, from the centers before the last update; centers [N,K,D]; iterations
        [N] int64).
    """
    if bool((init < 0).any()):
        raise IndexError(f"kmeans: expected init within 0..{points.shape[1] - 1}, got a negative")
    images = [_kmeans_image(p, i, max_iter, tol) for p, i in zip(points, init, strict=True)]
    labels, centers, iterations = zip(*images, strict=True)
    return (
        torch.stack(labels),
        torch.stack(centers),
        torch.tensor(iterations, dtype=torch.int64, device=points.device),
    )


_MASK = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """A bijective 32-bit integer hash (two rounds of xor-shift and multiply), held in int64."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def _random_words(seed: int, draw: int, count: int, device: torch.device) -> Tensor:
    """Counter-based generator: word i of a draw is a hash of (seed, draw, i), in 0..2^32-1."""

    def word(value: int) -> Tensor:
        return torch.tensor(value & _MASK, dtype=torch.int64, device=device)

    key = _mix(word(seed) ^ _mix(word((seed >> 32) + 0x9E3779B9)))
    key = _mix(key ^ word(draw + 0x85EBCA6B))
    return _mix(key ^ torch.arange(count, dtype=torch.int64, device=device))


def kmeans_init(points: Tensor, n_clusters: int, seed: int, method: str) -> Tensor:
    """First centers for K-Means: the same seed gives the same draws for every image.

    `"random"`: K different points with equal chances (the K smallest random words). `"k-means++"`:
    the first likewise, each next one with a chance proportional to its squared distance d^2 to the
    nearest center so far, drawn as an exponential race: argmin over points of -log(u) / d^2 with
    one uniform u per point. A race needs no running sum, so it gives the same winner in any order
    of evaluation.

    Args:
        points: [N,P,D], floating.
        n_clusters: K, 1..P.
        seed: any int64.
        method: "random" or "k-means++".

    Returns:
        [N,K] int64, different indices within an image.
    """
    n, count = points.shape[:2]
    words = _random_words(seed, 0, count, points.device)
    if method == "random":
        chosen = words.sort(stable=True)[1][:n_clusters]
        return chosen.expand(n, -1).clone()
    picks = [words.argmin().expand(n)]
    nearest = points.new_full((n, count), float("inf"), dtype=torch.float64)
    taken = torch.zeros(n, count, dtype=torch.bool, device=points.device)
    for draw in range(1, n_clusters):
        latest = picks[-1]
        taken[torch.arange(n, device=points.device), latest] = True
        center = points.gather(1, latest[:, None, None].expand(-1, 1, points.shape[2]))
        nearest = torch.minimum(nearest, (points - center).square().sum(-1).double())
        uniform = (_random_words(seed, draw, count, points.device).double() + 1) / 2.0**32
        race = -uniform.log() / nearest.clamp(
            min=1e-30
        )  # finite even where d = 0, so never an index twice
        picks.append(race.masked_fill(taken, float("inf")).argmin(dim=1))
    return torch.stack(picks, dim=1)


# ---- Anchors -------------------------------------------------------------------------------------


def select_anchors(labels: Tensor, sizes: Tensor, n_clusters: int) -> Tensor:
    """Anchor of a cluster: its largest superpixel.

    Argmax of (in the cluster) + 0.01 x size; the first maximum wins.

    Args:
        labels: [N,P] int64 in 0..K-1.
        sizes: [N,P] from `superpixel_size`.
        n_clusters: K.

    Returns:
        [N,K] int64 indices into the P superpixels.
    """
    member = F.one_hot(labels, n_clusters).to(sizes.dtype).transpose(1, 2)
    return (member + sizes[:, None] * SIZE_BONUS).argmax(dim=-1)


def diverse_bins(first: Tensor, ranked: Tensor, bin_centers: Tensor, variants: int) -> Tensor:
    """Up to three unlike colours of an anchor: a given one, and two of its most probable bins.

    Variant 1 is the given bin; 2 the one farthest from it in ab; 3 the one with the largest summed
    distance to both. First maximum wins; distances are fp64, in which those between whole numbers
    are equal where they should be, so that a tie is no matter of rounding.

    Args:
        first: [N,K] int64, the first colour of each anchor.
        ranked: [N,T,K] int64, the T most probable bins of each anchor, most probable first.
        bin_centers: [313,2] ab of the bins' centers.
        variants: V, 1..3.

    Returns:
        [N,V,K] int64 bins.
    """
    centers = bin_centers.double()
    ab = centers[ranked]
    chosen, distance = [first], torch.zeros_like(ab[..., 0])
    for _ in range(1, variants):
        last = centers[chosen[-1]][:, None]
        distance = distance + (ab - last).square().sum(dim=-1).sqrt()
        pick = distance.argmax(dim=1, keepdim=True)
        chosen.append(ranked.gather(1, pick)[:, 0])
    return torch.stack(chosen, dim=1)


def mean_bins(scores: Tensor, bin_centers: Tensor, temperature: float) -> Tensor:
    """The bin nearest to the annealed mean of a distribution (Zhang et al. 2016, section 2.3).

    The mean is taken in fp64 and rounded to 1/1024 of a unit of ab. So the distances between it and
    the bins' centers are exact, a mean in the middle between bins is so on every processor, and the
    first of those wins.

    Args:
        scores: [...,313], logarithms of probabilities that need not sum to 1.
        bin_centers: [313,2].
        temperature: more than 0; towards 0 the mean becomes the most probable bin's center.

    Returns:
        [...] int64.
    """
    centers = bin_centers.double()
    share = torch.softmax(scores.double() / temperature, dim=-1)
    mean = (share @ centers * COLOR_PARTS).round() / COLOR_PARTS
    return (mean[..., None, :] - centers).square().sum(dim=-1).argmin(dim=-1)


def encode_colors(ab: Tensor, bin_centers: Tensor) -> Tensor:
    """Most probable bin of each color [M,2] as int64 [M], by way of the published soft encoding.

    A color counts for its five nearest bins, by a Gaussian of 5 units; a bin's center is that bin.
    """
    distance, nearest = torch.cdist(bin_centers, ab).sort(dim=0)
    share = (-(distance[:5] ** 2) / (2 * 5**2)).exp()
    soft = ab.new_zeros(len(bin_centers), len(ab))
    soft.scatter_(0, nearest[:5], share / share.sum(dim=0))
    return soft.max(dim=0)[1]


def anchor_bins(
    logits: Tensor,
    anchor_index: Tensor,
    bin_centers: Tensor,
    variants: int,
    offset: Tensor | None = None,
    temperature: float = 0.0,
) -> Tensor:
    """Colour bins of the anchors.

    Like the published program, chooses colours for every superpixel and finds their bins again.

    Args:
        logits: [N,P,313] of the color modeler.
        anchor_index: [N,K] int64.
        bin_centers: [313,2].
        variants: V, 1..3; the first is as `temperature` says, for the others see `diverse_bins`.
        offset: [313], added to the logits of every superpixel.
        temperature: 0, as published: the most probable bin; above 0, see `mean_bins`.

    Returns:
        [N,V,K] int64 bins.
    """
    scores = logits if offset is None else logits + offset
    probability = torch.softmax(scores.transpose(1, 2), dim=1)
    ranked = probability.sort(dim=1, descending=True, stable=True)[1][:, :TOP_BINS]
    first = mean_bins(scores, bin_centers, temperature) if temperature > 0 else ranked[:, 0]
    colors = bin_centers[diverse_bins(first, ranked, bin_centers, variants)]
    bins = encode_colors(colors.flatten(0, 2), bin_centers).view(colors.shape[:-1])
    return bins.gather(2, anchor_index[:, None].expand(-1, variants, -1))


def choose_anchors(
    labels: Tensor,
    sizes: Tensor,
    logits: Tensor,
    bin_centers: Tensor,
    n_clusters: int,
    variants: int,
    offset: Tensor | None = None,
    temperature: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`select_anchors`, and `anchor_bins` of what it selects.

    Returns:
        (anchor index [N,K], bins [N,V,K]), both int64.
    """
    index = select_anchors(labels, sizes, n_clusters)
    return index, anchor_bins(logits, index, bin_centers, variants, offset, temperature)


# ---- The encoder of tokens -----------------------------------------------------------------------

ENCODER_DIM = 64  # width of a token
HEADS = 8
NORM_EPSILON = 1e-5

# The parameters of an encoder layer in the order in which its row of weights holds them, by the
# names of PyTorch's modules. Matrices are transposed, [inputs, outputs]; csrc/args.h has the same.
ENCODER_LAYER = {
    "self_attn.in_proj_weight": (ENCODER_DIM, 3 * ENCODER_DIM),
    "self_attn.in_proj_bias": (3 * ENCODER_DIM,),
    "self_attn.out_proj.weight": (ENCODER_DIM, ENCODER_DIM),
    "self_attn.out_proj.bias": (ENCODER_DIM,),
    "linear1.weight": (ENCODER_DIM, 4 * ENCODER_DIM),
    "linear1.bias": (4 * ENCODER_DIM,),
    "linear2.weight": (4 * ENCODER_DIM, ENCODER_DIM),
    "linear2.bias": (ENCODER_DIM,),
    "norm1.weight": (ENCODER_DIM,),
    "norm1.bias": (ENCODER_DIM,),
    "norm2.weight": (ENCODER_DIM,),
    "norm2.bias": (ENCODER_DIM,),
}
ENCODER_PARAMETERS = sum(math.prod(shape) for shape in ENCODER_LAYER.values())


def pack_encoder(layers: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """The weights of `encoder`, a row per layer.

    Args:
        layers: parameters of each layer by the names of `ENCODER_LAYER`, as a `state_dict` of
            `model.transformer.EncoderLayer` has them.

    Returns:
        [L, ENCODER_PARAMETERS].
    """
    return torch.stack(
        [torch.cat([layer[name].t().flatten() for name in ENCODER_LAYER]) for layer in layers]
    )


def unpack_layer(row: Tensor) -> dict[str, Tensor]:
    """Views of a layer's parameters in its row of weights, by the names of `ENCODER_LAYER`."""
    parts = row.split([math.prod(shape) for shape in ENCODER_LAYER.values()])
    shapes = ENCODER_LAYER.items()
    return {name: part.view(shape) for part, (name, shape) in zip(parts, shapes, strict=True)}


def encoder(tokens: Tensor, position: Tensor, weights: Tensor) -> Tensor:
    """A transformer encoder over the superpixels of an image (color modeler, color generator).

    Each layer is self-attention of eight heads and a feed-forward block with ReLU, both added to
    their input and followed by a layer norm.

    Args:
        tokens: [N,P,64], floating.
        position: [1,P,64], added to queries and keys of every layer, not to values.
        weights: [L,49984] from `pack_encoder`, L at least 1.

    Returns:
        [N,P,64].
    """
    for row in weights:
        tokens = _encoder_layer(tokens, position, *unpack_layer(row).values())
    return tokens


def _encoder_layer(
    tokens: Tensor,
    position: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    last_weight: Tensor,
    last_bias: Tensor,
    *norms: Tensor,
) -> Tensor:
    located = tokens + position
    inputs = zip(in_weight.chunk(3, dim=1), in_bias.chunk(3), strict=True)
    queries, keys, values = (
        (x @ weight + bias).unflatten(2, (HEADS, -1)).transpose(1, 2)  # [N,8,P,8]
        for x, (weight, bias) in zip((located, located, tokens), inputs, strict=True)
    )
    attended = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)

    def normalized(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.layer_norm(x, (ENCODER_DIM,), scale, shift, NORM_EPSILON)

    tokens = normalized(tokens + attended @ out_weight + out_bias, *norms[:2])
    hidden = F.relu(tokens @ hidden_weight + hidden_bias)
    return normalized(tokens + hidden @ last_weight + last_bias, *norms[2:])


# ---- Colour (CIE Lab, sRGB primaries, D65) -------------------------------------------------------

RGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
XYZ_TO_RGB = (
    (3.240479, -1.537150, -0.498535),
    (-0.969256, 1.875991, 0.041556),
    (0.055648, -0.204043, 1.057311),
)
WHITE = (0.950456, 1.0, 1.088754)


def bias_act(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    slope: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """What follows a convolution: bias, residual, (leaky) ReLU, a batch norm's scale and shift.

    Args:
        x: [N,C,H,W], fp64, fp32, fp16 or bf16.
        bias: [C] added first, fp64 for fp64 and otherwise fp32; or None.
        residual: like x, added before the activation; or None.
        slope: what negative values are multiplied by: 0 is a ReLU, 1 no activation.
        scale: [C] like the bias, that the activated values are multiplied by; or None.
        shift: [C] like the bias, added last; or None.

    Returns:
        Shape, dtype and layout of x. Computed in fp64 for fp64, otherwise in fp32, rounded once.
    """
    value = x.to(wide_dtype(x.dtype))
    for term in (bias if bias is None else bias[:, None, None], residual):
        value = value if term is None else value + term
    value = F.relu(value) if slope == 0 else torch.where(value < 0, value * slope, value)
    value = value if scale is None else value * scale[:, None, None]
    value = value if shift is None else value + shift[:, None, None]
    return torch.empty_like(x, memory_format=layout_of(x)).copy_(value)


def _unit_range(image: Tensor) -> Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image


def rgb_to_l(image: Tensor) -> Tensor:
    """Lightness L of an sRGB or gray picture.

    Args:
        image: [N,1 or 3,H,W], uint8 0-255 or floating 0-1; one channel means R = G = B.

    Returns:
        [N,1,H,W], 0-100, fp32 for uint8 and otherwise in the input's dtype.
    """
    rgb = _unit_range(image)
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    if linear.shape[1] == 3:
        weights = linear.new_tensor(RGB_TO_XYZ[1])[:, None, None]
        linear = (linear * weights).sum(1, keepdim=True)
    return torch.where(linear > 0.008856, 116 * linear ** (1 / 3) - 16, 903.3 * linear)


def lab_to_rgb(lightness: Tensor, ab: Tensor, to_uint8: bool) -> Tensor:
    """A picture in sRGB from lightness at full size and chroma at any size.

    Chroma is resampled bilinearly (pixel centers at half integers, edges repeated). Colours outside
    sRGB are clamped channel by channel.

    Args:
        lightness: [N,1,H,W], 0-100, floating.
        ab: [N,2,h,w] in Lab units (about -110..110), same dtype.
        to_uint8: round to uint8 0-255, else leave floating 0-1.

    Returns:
        [N,3,H,W] RGB, uint8 or in the dtype of `lightness`.
    """
    ab = F.interpolate(ab, size=lightness.shape[-2:], mode="bilinear", align_corners=False)
    fy = (lightness + 16) / 116
    f = torch.cat([fy + ab[:, :1] / 500, fy, fy - ab[:, 1:] / 200], dim=1)
    threshold = 0.008856 ** (1 / 3)
    xyz = torch.where(f > threshold, f**3, (f - 16 / 116) / 7.787)
    xyz = xyz * xyz.new_tensor(WHITE)[:, None, None]
    linear = torch.einsum("cx,nxhw->nchw", xyz.new_tensor(XYZ_TO_RGB), xyz).clamp(0, 1)
    power = linear.clamp(min=0.0031308) ** (1 / 2.4)  # kept off 0, where its gradient is infinite
    rgb = torch.where(linear > 0.0031308, 1.055 * power - 0.055, 12.92 * linear).clamp(0, 1)
    return (rgb * 255).round().to(torch.uint8) if to_uint8 else rgb
