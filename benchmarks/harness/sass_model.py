"""How long a block of a kernel takes by a model of a multiprocessor: machine code with latencies.

The model knows what nvcc has written into each instruction (for how many cycles the warp rests and
which results it waits for), four schedulers that issue one instruction a cycle each, how long units
are busy, and typical latencies of an H100. It knows no caches, no bank conflicts and no other block
of the multiprocessor. It is no measurement: a fifth more or less is to be expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SCHEDULERS = 4
LATENCY = {
    "LDS": 29, "SHFL": 24, "MUFU": 20, "POPC": 20, "FLO": 20, "BREV": 20, "I2F": 20, "F2I": 20,
    "LDSM": 33, "S2R": 24, "S2UR": 24, "LDC": 30, "ULDC": 20, "LDG": 270, "ATOMG": 270, "HMMA": 33,
    "R2UR": 12,
}  # fmt: skip
OTHER = 16  # of what has a scoreboard and is not named
BARRIER = 22
JUMP = 10  # until the first instruction behind a branch that is taken
READ = 8  # until the operands of a load or a store have been read
# How long an instruction keeps its unit of a scheduler busy. Of HMMA nvcc says it, with the cycles
# between two of them: for this GPU 6, though its tensor cores could do one in 4.
BUSY = {
    "FFMA": 1, "FADD": 1, "FMUL": 1, "BRA": 1, "MUFU": 8, "POPC": 8, "FLO": 8, "BREV": 8, "I2F": 8,
    "F2I": 8, "HMMA": 6,
}  # fmt: skip
HALF_RATE = (
    2  # integers, comparisons, selections; multiplications of integers have a unit of theirs
)
MEMORY = {"LDS", "LDSM", "STS", "SHFL", "LDG", "LDGSTS", "STG", "ATOMG", "ATOMS"}


@dataclass(frozen=True)
class Control:
    """What nvcc says to the scheduler with an instruction.

    Attributes:
        stall: cycles until the warp's next instruction.
        sets: the scoreboard that its result releases, 7 for none.
        read: the one that is released when its operands have been read, 7 for none.
        waits: bits of those that it waits for.
    """

    stall: int = 1
    sets: int = 7
    read: int = 7
    waits: int = 0

    @classmethod
    def decode(cls, high: int) -> Control:
        """Of the higher 64 bits of an instruction."""
        bits = high >> 41
        return cls(bits & 15, bits >> 5 & 7, bits >> 8 & 7, bits >> 11 & 63)


NO_CONTROL = Control()


@dataclass(frozen=True)
class Step:
    """An instruction on a warp's way: its name, whether a jump follows, and its control."""

    name: str
    jumps: bool
    control: Control


def wavefronts(name: str) -> int:
    """Cycles that the unit for memory is busy with a warp's access, without conflicts."""
    if name.startswith("SHFL"):
        return 1
    return 4 if ".128" in name or ".M88.4" in name else 2 if ".64" in name else 1


class _Warp:
    def __init__(self, number: int, way: Sequence[Step]) -> None:
        self.way = way
        self.scheduler = number % SCHEDULERS
        self.position = 0
        self.ready = 0
        self.boards = [0] * 6
        self.waits_at_barrier = False


def cycles(ways: Sequence[Sequence[Step]]) -> int:
    """Until the warps of a block have gone their ways, side by side; none is empty."""
    block = [_Warp(number, way) for number, way in enumerate(ways)]
    free = [0] * SCHEDULERS
    units: dict[tuple[int, str], int] = {}
    memory = last = 0
    left = len(block)
    while left:
        best, best_time = None, 0
        for warp in block:
            if warp.waits_at_barrier or warp.position == len(warp.way):
                continue
            step = warp.way[warp.position]
            time = max(warp.ready, free[warp.scheduler])
            time = max(time, units.get((warp.scheduler, _unit(step.name)), 0))
            for board in range(6):
                if step.control.waits >> board & 1:
                    time = max(time, warp.boards[board])
            if best is None or time < best_time:
                best, best_time = warp, time
        if best is None:  # all that are left are at the barrier
            last += BARRIER
            for warp in block:
                warp.waits_at_barrier, warp.ready = False, max(warp.ready, last)
            continue
        step, time = best.way[best.position], best_time
        kind = step.name.split(".")[0]
        last = max(last, time)
        free[best.scheduler] = time + 1
        units[best.scheduler, _unit(step.name)] = time + BUSY.get(kind, HALF_RATE)
        done = time + LATENCY.get(kind, OTHER)
        if kind in MEMORY:
            memory = max(memory, time) + wavefronts(step.name)
            done = max(done, memory + LATENCY.get(kind, OTHER) - 1)
        control = step.control
        for board, when in ((control.sets, done), (control.read, time + READ)):
            if board < 6:
                best.boards[board] = max(best.boards[board], when)
        best.ready = time + max(control.stall, 1) + JUMP * step.jumps
        best.position += 1
        best.waits_at_barrier = kind == "BAR"
        left -= best.position == len(best.way)
    return last + 1


def _unit(name: str) -> str:
    kind = name.split(".")[0]
    if kind in ("MUFU", "POPC", "FLO", "BREV", "I2F", "F2I"):
        return "special"
    return kind if kind in BUSY or kind == "IMAD" else "integers"


def way_of(
    names: Sequence[str],
    controls: Sequence[Control],
    loops: Mapping[tuple[int, int], int],
    left_out: set[int],
) -> list[Step]:
    """What a warp executes, in order.

    Args:
        names: of the instructions; of labels empty.
        controls: theirs.
        loops: how often the instructions from one place to another are gone through.
        left_out: places of instructions that are not executed.
    """

    def walk(first: int, last: int, inside: frozenset[tuple[int, int]]) -> list[int]:
        places: list[int] = []
        at = first
        while at <= last:
            here = [
                span for span in loops if span[0] == at and span[1] <= last and span not in inside
            ]
            if here:
                span = max(here, key=lambda one: one[1])
                places += walk(*span, inside | {span}) * loops[span]
                at = span[1] + 1
            else:
                places += [at] if names[at] and at not in left_out else []
                at += 1
        return places

    places = walk(0, len(names) - 1, frozenset())
    following = [*places[1:], places[-1] + 1 if places else 0]
    return [
        Step(names[at], names[at].startswith("BRA") and after <= at, controls[at])
        for at, after in zip(places, following, strict=True)
    ]
