"""How many cycles the CUDA kernels take at least, counted in their machine code. No GPU.

    python benchmarks/sass.py --json benchmarks/results/sass.json
    python benchmarks/sass.py --check

A count and a model, never a measurement. For every case below: the instructions that a warp
executes on its way (each as often as the loops around it turn), times the warps of the grid, over
the four that a multiprocessor can issue in a cycle: no GPU is faster. Beside it the time that the
tensor cores are busy, and the time that copying the bytes would take. A kernel may be slower for
many reasons, faster for none. Where a multiprocessor has one block, a model of it says how long
that takes (`sass_model.py`).

Fails where a case is over its limit, where a loop that should have loads under way while it
computes has none, and where a loop that is named here is gone. With `--check` also where the table
differs from the committed one, if that was made by the same release of nvcc. Needs nvcc, and
nvdisasm (`pip install nvidia-cuda-nvdisasm`).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.nvcc import SOURCES, conclude, demangle, nvcc_or_exit, release
from harness.report import RESULTS, Report
from harness.sass_model import BUSY, NO_CONTROL, Control, Step, cycles, way_of

COMMITTED = RESULTS / "sass.json"
ARCH = "sm_90"
SLOTS, GIGAHERTZ, PROCESSORS = 4, 1.98, 132  # of an H100 or H200
COPY = {"H100": 3.0e12, "H200": 4.2e12}  # bytes a second, as measured elsewhere

SECTION = re.compile(r"^\.text\.(\S+):$")
PLACE = re.compile(r'//## File "([^"]+)", line (\d+)')
LABEL = re.compile(r"^(\.L_x_\d+):")
CODE = re.compile(r"/\*[0-9a-f]{4,6}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);")
CONTROL = re.compile(r"^\s+/\* 0x([0-9a-f]{16}) \*/")  # the line after: the higher 64 bits
TARGET = re.compile(r"(\.L_x_\d+)")
SLOW_PATH = "WARPSYNC.COLLECTIVE"  # from there on: what a warp does that has come apart


@dataclass(frozen=True)
class Instruction:
    """One of a kernel's.

    Attributes:
        name: as in "FFMA"; of a label none.
        lines: the source lines that it comes from, the innermost first.
        target: the label that it jumps to, or is.
        control: what it says to the scheduler.
    """

    name: str
    lines: tuple[str, ...]
    target: str | None = None
    control: Control = NO_CONTROL

    def comes_from(self, text: str) -> bool:
        """Whether a source line that it comes from contains the text."""
        return any(text in line for line in self.lines)


@dataclass(frozen=True)
class Loop:
    """Instructions `first` to `last`, the last of which jumps back."""

    first: int
    last: int


@dataclass(frozen=True)
class Case:
    """A kernel at a shape.

    Attributes:
        source: file of csrc/kernels.
        kernel: its name, with template arguments.
        shape: in words.
        blocks: of the grid.
        warps: of a block.
        turns: by a text in a loop's first line, how often the loop turns for an average warp; one
            number for each loop that nvcc has made of it, in order. Others turn once.
        shares: by a text in a line, how often what comes from it runs, of each time that it could.
        moved: bytes that must be read and written.
        most_us: the limit, in microseconds.
        overlapped: a text in the first line of loops in which loads come before the last
            multiplication.
        repeated: for the model, a text in the first line of the loop whose turns are alike but for
            the first, in which alone lines with a share below a half run; if any.
        most_model_us: the limit of the model's time, of kernels that are modeled.
        batched: by a text in a line, how many loads from it come before the first store at least.
    """

    source: str
    kernel: str
    shape: str
    blocks: int
    warps: int
    most_us: float
    turns: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    moved: int = 0
    overlapped: str = ""
    repeated: str = ""
    most_model_us: float | None = None
    batched: Mapping[str, int] = field(default_factory=dict)


def parse(listing: str, source_line: Mapping[tuple[str, int], str]) -> dict[str, list[Instruction]]:
    """Instructions by mangled name, of what `nvdisasm -gi -hex` says, and the labels among them."""
    kernels: dict[str, list[Instruction]] = {}
    code: list[Instruction] | None = None
    lines: list[str] = []
    said = False  # an instruction has been read since the last place
    for text in listing.splitlines():
        if section := SECTION.match(text):
            code, lines = kernels.setdefault(section[1], []), []
        elif text.startswith("\t.section"):
            code = None
        elif code is None:
            continue
        elif place := PLACE.search(text):
            lines = [*([] if said else lines), source_line.get((place[1], int(place[2])), "")]
            said = False
        elif label := LABEL.match(text):
            code.append(Instruction("", (), label[1]))
        elif found := CODE.search(text):
            jump = TARGET.search(found[2]) if found[1].startswith("BRA") else None
            code.append(Instruction(found[1], tuple(lines), jump[1] if jump else None))
            said = True
        elif (control := CONTROL.match(text)) and code:
            code[-1] = replace(code[-1], control=Control.decode(int(control[1], 16)))
    return kernels


def straight(code: Sequence[Instruction]) -> list[Instruction]:
    """Without what stands behind the kernel for warps that have come apart."""
    apart = (i for i, one in enumerate(code) if one.name.startswith(SLOW_PATH))
    return list(code[: next(apart, len(code))])


def loops(code: Sequence[Instruction]) -> list[Loop]:
    """All loops, by their first instruction."""
    places = {one.target: i for i, one in enumerate(code) if not one.name}
    found = (
        Loop(places[one.target], i)
        for i, one in enumerate(code)
        # nvcc ends a kernel with a jump to itself.
        if one.name and one.target in places and places[one.target] < i - 1
    )
    return sorted(found, key=lambda loop: (loop.first, -loop.last))


def executed(code: Sequence[Instruction], case: Case, name: str = "") -> float:
    """Instructions that an average warp executes, of those whose names begin so.

    Raises:
        SystemExit: a loop or a line that the case names is not there, or as another number of
            loops.
    """
    often = [float(bool(one.name) and one.name.startswith(name)) for one in code]
    for text, share in case.shares.items():
        hit = [i for i, one in enumerate(code) if one.comes_from(text)]
        if not hit:
            raise SystemExit(f"sass: {case.kernel}: nothing comes from a line with {text!r}")
        for i in hit:
            often[i] *= share
    for text, turns in case.turns.items():
        made = _named(code, text)
        if len(made) != len(turns):
            raise SystemExit(
                f"sass: {case.kernel}: {len(turns)} loops at {text!r} expected, got {len(made)}"
            )
        for loop, number in zip(made, turns, strict=True):
            for i in range(loop.first, loop.last + 1):
                often[i] *= number
    return sum(often)


def _named(code: Sequence[Instruction], text: str) -> list[Loop]:
    return [loop for loop in loops(code) if text in next(iter(code[loop.last].lines), "")]


def modeled(code: Sequence[Instruction], case: Case) -> float:
    """Microseconds that a block takes by the model."""
    names, controls = [one.name for one in code], [one.control for one in code]

    def way(warp: int, repeats: int, least_share: float) -> list[Step]:
        spans = {
            (loop.first, loop.last): repeats
            if text == case.repeated
            else _turns_of(number, warp / case.warps)
            for text, turns in case.turns.items()
            for loop, number in zip(_named(code, text), turns, strict=True)
        }
        left_out = {
            i
            for text, share in case.shares.items()
            for i, one in enumerate(code)
            if share < least_share and one.comes_from(text)
        }
        return way_of(names, controls, spans, left_out)

    def block(repeats: int, least_share: float) -> int:
        return cycles([way(warp, repeats, least_share) for warp in range(case.warps)])

    smallest = min((share for share in case.shares.values() if share), default=1.0)
    total = float(block(1, smallest))
    if case.repeated:
        (number,) = case.turns[case.repeated]
        total += (number - 1) * (block(2, 0.5) - block(1, 0.5))
    return total / GIGAHERTZ / 1e3


def _turns_of(average: float, place: float) -> int:
    """Whole turns of the warp at a place in 0..1: the first warps take those that others do not."""
    return int(average) + (place < average - int(average))


def overlaps(code: Sequence[Instruction], text: str) -> bool:
    """Whether in every loop of the line a load from memory comes before the last multiplication."""
    made = _named(code, text)
    for loop in made:
        names = [one.name.split(".")[0] for one in code[loop.first : loop.last + 1]]
        last = max((i for i, name in enumerate(names) if name in ("FFMA", "HMMA")), default=0)
        if "LDG" not in names[:last]:
            return False
    return bool(made)


def batched(code: Sequence[Instruction], text: str) -> int:
    """Loads from a line that come before the first store: so many are under way at a time."""
    stores = (i for i, one in enumerate(code) if one.name.startswith("STG"))
    before = code[: next(stores, len(code))]
    return sum(one.name.startswith("LDG") and one.comes_from(text) for one in before)


def disassemble(nvcc: str, nvdisasm: str, source: str) -> dict[str, list[Instruction]]:
    """Instructions of each kernel of a source file, by its name.

    Raises:
        SystemExit: it does not compile.
    """
    with tempfile.TemporaryDirectory() as folder:
        cubin = f"{folder}/out.cubin"
        command = [
            nvcc, "-std=c++17", "-O3", "--expt-relaxed-constexpr", f"-arch={ARCH}", "-cubin",
            "-lineinfo", str(SOURCES / source), "-o", cubin,
        ]  # fmt: skip
        for step in (command, [nvdisasm, "-gi", "-hex", cubin]):
            done = subprocess.run(step, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"sass: {source}:\n{done.stderr}")
    files = {path: Path(path).read_text() for path in {*re.findall(r'File "([^"]+)"', done.stdout)}}
    lines = {
        (path, number): line
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), start=1)
    }
    kernels = parse(done.stdout, lines)
    return dict(zip(demangle(list(kernels)), map(straight, kernels.values()), strict=True))


def count(code: Sequence[Instruction], case: Case) -> Report:
    """What stands in the table."""
    instructions = executed(code, case)
    # A block runs on one multiprocessor.
    each = case.blocks / PROCESSORS if case.blocks > PROCESSORS else 1.0
    cycles = instructions * case.warps * each / SLOTS
    row: Report = {
        "kernel": case.kernel,
        "shape": case.shape,
        "warp_instructions": round(instructions),
        "issue_cycles": round(cycles),
        "issue_us": round(cycles / GIGAHERTZ / 1e3, 1),
        "most_us": case.most_us,
    }
    if products := executed(code, case, "HMMA") * BUSY["HMMA"] * case.warps * each / SLOTS:
        row["tensor_us"] = round(products / GIGAHERTZ / 1e3, 1)
    if case.most_model_us is not None:
        row["model_us"] = round(modeled(code, case), 1)
        row["most_model_us"] = case.most_model_us
    if case.moved:
        row["copy_us"] = {name: round(case.moved / speed * 1e6, 1) for name, speed in COPY.items()}
    if case.overlapped:
        row["loads_overlap"] = overlaps(code, case.overlapped)
    if case.batched:
        row["batched"] = sum(batched(code, text) for text in case.batched)
        row["least_batched"] = sum(case.batched.values())
    return row


def faults(rows: Sequence[Report]) -> list[str]:
    """Sentences about cases that are over their limits."""
    slow = [
        f"{row['kernel']}, {row['shape']}: at least {row['issue_us']} us, over {row['most_us']}"
        for row in rows
        if row["issue_us"] > row["most_us"]
    ]
    slow += [
        f"{row['kernel']}, {row['shape']}: {row['model_us']} us by the model, over "
        f"{row['most_model_us']}"
        for row in rows
        if row.get("model_us", 0) > row.get("most_model_us", 0)
    ]
    late = [
        f"{row['kernel']}: loads come after the arithmetic that they should overlap"
        for row in rows
        if not row.get("loads_overlap", True)
    ]
    late += [
        f"{row['kernel']}: {row['batched']} loads come before the first store, "
        f"{row['least_batched']} expected"
        for row in rows
        if row.get("batched", 0) < row.get("least_batched", 0)
    ]
    return slow + late


def find_nvdisasm() -> str:
    """On PATH, or in the package of that name.

    Raises:
        SystemExit: there is none.
    """
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    found = shutil.which("nvdisasm") or next(map(str, packages.glob("*/bin/nvdisasm")), None)
    if found is None:
        raise SystemExit("sass: no nvdisasm; pip install nvidia-cuda-nvdisasm")
    return found


def kmeans_case(most_us: float, most_model_us: float) -> Case:
    """20 updates of which each changes a label; members in equal shares."""
    points, clusters = 256, 8
    updates = "for (int64_t iteration = 1;; ++iteration)"
    return Case(
        "kmeans.cu",
        "kmeans_kernel<KMeansImage<float, true, 64, true> >",
        f"one image, {points} x 64, K={clusters}, 20 updates",
        blocks=1,
        warps=16,
        most_us=most_us,
        turns={
            updates: (20,),
            "for (int job = warp; job < m.clusters * m.blocks()": (clusters / 16,),
            # A list ends at a multiple of 8.
            "i < listed; i += kAhead": ((points / clusters + 3.5) / 8,),
        },
        shares={"refill(": 0, "refuse<": 0, "load_points(": 1 / 20},
        repeated=updates,
        most_model_us=most_model_us,
    )


def team_case(most_us: float, most_model_us: float) -> Case:
    """The same with 16 blocks of 256 points each; how long they wait for one another is unknown."""
    tiles, clusters = 16, 8
    updates = "was_empty = __syncthreads_or(move_centers(m, team, s))"  # the loop's last line
    return Case(
        "kmeans.cu",
        "kmeans_team_kernel",
        f"one image, {tiles * 256} x 64, K={clusters}, 20 updates",
        blocks=tiles,
        warps=16,
        most_us=most_us,
        turns={
            updates: (20,),
            "for (int k = warp; k < m.clusters; k += kMeansWarps)": (clusters / 16,) * 2,
            "i < listed; i += kAhead": ((256 / clusters + 3.5) / 8,),
            "tile < team.tiles; ++tile": (tiles / 8,),  # eight at a time
        },
        shares={"refill(": 0, "refuse<": 0, "load_points(": 1 / 20},
        repeated=updates,
        most_model_us=most_model_us,
    )


def cells_case(
    source: str,
    kernel: str,
    element: str,
    most_us: float,
    warps: int,
    turns: Mapping[str, tuple[float, ...]],
    shares: Mapping[str, float] = MappingProxyType({}),
    overlapped: str = "",
    written: int = 64,
) -> Case:
    """Batch 64 of 256 x 256 pixels, 64 channels, cells of 16 x 16.

    Args:
        source: file of csrc/kernels.
        kernel: its name.
        element: "fp16" or "fp32"; or in words, of 16 bits beside an association in fp32.
        most_us: the limit.
        warps: of a block, which works on a cell.
        turns: of its loops.
        shares: of its lines.
        overlapped: a loop whose loads come early.
        written: or read, channels.
    """
    cells, pixels = 64 * 256, 16 * 16
    size, weight = {"fp16": (2, 2), "fp32": (4, 4)}.get(element, (2, 4))
    return Case(
        source,
        kernel,
        f"64 images, {written} x 256 x 256 {element}, cells of 16",
        blocks=cells,
        warps=warps,
        most_us=most_us,
        turns=turns,
        shares=shares,
        moved=cells * (pixels * (written * size + 9 * weight) + 65 * 4),
        overlapped=overlapped,
    )


def pool_case(layout: int, most_us: float) -> Case:
    """On tensor cores: a warp takes 32 pixels twice."""
    loop = "pixel < area; pixel += 2 * kMmaThreads"
    return cells_case(
        "sp_pool.cu",
        f"sp_pool_mma_kernel<__half, (Layout){layout}>",
        "fp16",
        most_us,
        warps=4,
        turns={loop: (1,)},
        shares={"load(even, pixel + 2 * kMmaThreads)": 0},
        overlapped=loop,
    )


def convolve_case(kinds: str, shape: str, blocks: int, chunks: int, **others: Any) -> Case:
    """Of these types, without a residual; inputs come in so many chunks of 64 bytes."""
    kernel = f"convolve_kernel<{kinds}, false>"
    turns = {"first += In::kDepth": (chunks,)}
    return Case("convolve.cu", kernel, shape, blocks, warps=4, turns=turns, **others)


def diffuse_case(spread: int, most_us: float, lead_channels: int = 0) -> Case:
    """On tensor cores: a warp takes 32 pixels twice; two of four load tokens."""
    loop = "pixel < area; pixel += kMmaThreads"
    lead = "c < int(a.lead_channels); c += kGroup" if spread else "c < a.lead_channels; ++c"
    return cells_case(
        "sp_diffuse.cu",
        f"sp_diffuse_mma_kernel<__half, (Spread){spread}>",
        "fp16",
        most_us,
        warps=4,
        turns={loop: (2,), lead: (lead_channels / 8,)},
        shares={"load_tokens(a, cell": 0.5, "write_lead": float(lead_channels > 0)},
        overlapped=loop,
        written=64 + lead_channels,
    )


def encoder_case(
    tokens: int, images: int, most_us: float, most_model_us: float | None = None
) -> Case:
    """Tiles of so many tokens, each the work of a block; of 256 superpixels an image, six layers.

    A tile's first projection and the end of its last layer are counted as one more step of seven.
    """
    at_a_time, steps = min(tokens, 16), 7
    tiles = images * 256 // tokens
    return Case(
        "encoder.cu",
        f"encoder_kernel<{tokens}>",
        f"{images} images, 256 x 64, 6 layers" if images > 1 else "one image, 256 x 64, 6 layers",
        blocks=tiles,
        warps=8,
        most_us=most_us,
        turns={
            "int step = 0; step <= int(a.layers)": (steps,),
            "round < tile.here; round += R": (tokens // at_a_time,),
            "first < count; first += kEncoderWarps * kWarpKeys": (1,),
            "first < R; first += kSlots": (at_a_time // 4,) if at_a_time > 4 else (),
            "i < R * kTokenDim; i += kEncoderThreads": (at_a_time * 64 / 256,),
        },
        shares={"attend_and_feed(tile, last": 6 / 7, "project(tile, in": 6 / 7},
        most_model_us=most_model_us,
    )


POOLED, SPREAD = "works && p < count; p += step", "p += share.groups() * kPixels"
BOARD = {"i < 9 * pitch": (9 * 64 / 256,)}

# The limits are what the kernels take at present and a little: they fail when a kernel grows.
CASES = (
    kmeans_case(46, 75),
    team_case(62, 160),
    Case(
        "kmeans_init.cu",
        "kmeans_init_kernel<float, 4>",
        "one image, 256 x 64, K=8",
        blocks=1,
        warps=8,
        most_us=10,
        turns={"for (int draw = 1": (7,)},
        most_model_us=15,
        shares={"init_random(a, int(a.clusters)": 0},
    ),
    pool_case(1, 55),
    pool_case(2, 59),
    diffuse_case(0, 72),
    diffuse_case(1, 74),
    diffuse_case(1, 79, lead_channels=8),
    # Without tensor cores; a warp's share of a cell is four or two runs of pixels.
    *(
        cells_case(
            "sp_pool.cu",
            f"sp_pool_kernel<{element}, float, (Layout){layout}, 16>",
            kind,
            most_us,
            warps=8,
            turns={POOLED: (4,), **BOARD},
            overlapped=POOLED,
        )
        for element, kind, layout, most_us in (
            ("float", "fp32", 1, 266),
            ("float", "fp32", 2, 248),
            ("__nv_bfloat16", "bf16, association fp32", 2, 258),
        )
    ),
    encoder_case(4, images=1, most_us=23, most_model_us=50),
    encoder_case(32, images=64, most_us=520),
    *(
        cells_case(
            "sp_diffuse.cu",
            f"sp_diffuse_kernel<float, (Layout){layout}, 16>",
            "fp32",
            most_us,
            warps=8,
            turns={SPREAD: (4,), "i < 9 * pitch": (9 * 64 / 256,), "c < a.lead_channels": (0, 0)},
            shares={"write_lead(a": 0},
        )
        for layout, most_us in ((1, 227), (2, 213))
    ),
    Case(
        "bias_act.cu",
        "bias_act_kernel<__nv_bfloat16, (ActLayout)0, true>",
        "64 images, 64 x 256 x 256 bf16, with a residual",
        blocks=64 * 64 * 256 * 256 // (8 * 4 * 256),  # a thread has four packs of eight
        warps=8,
        most_us=165,
        shares={"narrow<T>(act(": 0.5, "store_pack(static_cast<T*>(a.out)": 0.5},  # by the slope
        moved=3 * 64 * 64 * 256 * 256 * 2,
        batched={"load_words": 2 * 4},
    ),
    Case(
        "anchors.cu",
        "anchors_kernel<float>",
        "one image, 8 of 256, the annealed mean of 313 bins",
        blocks=1,
        warps=8,
        most_us=2.7,
        turns={  # a lane has 8 superpixels, two a turn, and 10 bins
            "for (int k =": (1,),
            "int64_t p = threadIdx.x": (4,),
            "int rank = 0": (1,),
            "b = lane; b < bins": (2, 2),
            "b = lane; b < a.bins": (2.5, 2.5, 2.5),
            "for (int v = 0": (1,),
        },
        most_model_us=12,
    ),
    convolve_case(
        "__nv_bfloat16, ConvolveTile<16, 16, 64, 1, 3>",
        "64 images, 64 to 64 x 256 x 256 bf16",
        blocks=64 * 16 * 16,
        chunks=2,
        most_us=270,
        moved=2 * 64 * 64 * 256 * 256 * 2,
    ),
    convolve_case(
        "__nv_bfloat16, ConvolveTile<16, 16, 64, 1, 3>",
        "one image, 128 to 128 x 128 x 128 bf16",
        blocks=8 * 8 * 2,
        chunks=4,
        most_us=3.3,
        most_model_us=12,
    ),
    convolve_case(
        "__nv_bfloat16, ConvolveTile<8, 16, 64, 2, 4>",
        "one image, 256 to 256 x 64 x 64 bf16",
        blocks=8 * 4 * 4,
        chunks=8,
        most_us=3.2,
        most_model_us=12,
    ),
    convolve_case(
        "float, ConvolveTile<16, 16, 16, 1, 4>",
        "64 images, 16 to 16 x 256 x 256 fp32 as TF32",
        blocks=64 * 16 * 16,
        chunks=1,
        most_us=130,
        moved=2 * 64 * 16 * 256 * 256 * 4,
    ),
    Case(
        "associate.cu",
        "associate_kernel<float, true>",
        "64 images, 9 of 12 x 256 x 256 fp32",
        blocks=64 * 256 * 256 // 256,
        warps=8,
        most_us=40,
        moved=(12 + 9) * 64 * 256 * 256 * 4,
        batched={"load_pack": 3},
    ),
    Case(
        "sp_pool.cu",
        "sp_pool_gather_kernel<float>",
        "one image, 64 x 16 x 16",
        blocks=64,
        warps=8,
        most_us=0.8,
        most_model_us=2.1,
    ),
)


def table(nvcc: str, nvdisasm: str, cases: Sequence[Case]) -> list[Report]:
    """A row for each case."""
    sources = sorted({case.source for case in cases})
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda source: disassemble(nvcc, nvdisasm, source), sources)
        code = dict(zip(sources, found, strict=True))
    return [count(code[case.source][case.kernel], case) for case in cases]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed table")
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    nvcc = nvcc_or_exit("sass")
    rows = table(nvcc, find_nvdisasm(), CASES)
    report: Report = {"what": "sass", "arch": ARCH, "nvcc": release(nvcc), "rows": rows}
    for row in rows:
        model = f"  model {row['model_us']} us" if "model_us" in row else ""
        tensor = f"  tensor cores {row['tensor_us']} us" if "tensor_us" in row else ""
        copy = "".join(f"  copy {name} {us} us" for name, us in row.get("copy_us", {}).items())
        name = f"{row['kernel']:48} {row['shape']:40}"
        print(f"{name} issue {row['issue_us']:7} us{tensor}{model}{copy}")
    return conclude(report, faults(rows), COMMITTED if a.check else None, a.json)


if __name__ == "__main__":
    raise SystemExit(main())
