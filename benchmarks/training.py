"""How much faster a training step is on the fused ops than on the published ones.

    python benchmarks/training.py --repeats 5  # a quick look
    python benchmarks/training.py --json benchmarks/results/training-cpu.json

A step is forward, backward and update on a batch in memory. Both rivals run in one process, in
turns; before that their losses are compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from harness import published
from harness.clock import context, default_device, interleaved
from harness.inputs import PHOTOGRAPHS
from harness.report import Report, caption, milliseconds, ratio, save, table

from disco_fast import ops
from disco_fast.io.photographs import Photographs
from disco_fast.model import DISCO
from disco_fast.model.readout import rebalancing
from disco_fast.train.losses import L1
from disco_fast.train.stages import ColorizerStage, SPixNetStage, Stage
from disco_fast.train.stream import Crops

RIVALS = {"published ops": published, "fused ops": ops}
ALIKE = 0.02  # relative: the loss of a batch; bf16 rounds, and may move an anchor


def stage_of(name: str, width: float, device: torch.device, half: bool) -> Stage:
    """A stage on a network of fixed random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DISCO(width)
    autocast = (device.type, torch.bfloat16) if half else None
    stage = (
        SPixNetStage(network)
        if name == SPixNetStage.name
        else ColorizerStage(
            network,
            rebalancing(torch.full((313,), 1 / 313), 0.5),
            {"l1": (L1(), 20.0)},
            dropout=0.0,
            autocast=autocast,
        )
    )
    return stage.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]


def stepper(stage: Stage, source: ModuleType, lab: torch.Tensor) -> Callable[[], float]:
    """A function that takes one step, always with the same draws, and returns the loss before."""
    optimizer = torch.optim.Adam([p for p in stage.parameters() if p.requires_grad], 1e-6)

    def step() -> float:
        stage.network.ops = source
        with torch.random.fork_rng():
            torch.manual_seed(0)
            optimizer.zero_grad()
            loss, _ = stage(lab)
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    return step


def measure(device: torch.device, width: float, size: int, batch: int, repeats: int) -> Report:
    """Both stages.

    Raises:
        ValueError: the rivals' losses differ.
    """
    photographs = Photographs(PHOTOGRAPHS)
    crops = Crops(photographs, len(photographs), size, 0.6, seed=0)
    lab = torch.stack([crops[n] for n in range(batch)]).to(device)
    rows = []
    for name, half in ((SPixNetStage.name, False), (ColorizerStage.name, False),
                       (ColorizerStage.name, True)):  # fmt: skip
        steps = {
            rival: stepper(stage_of(name, width, device, half), source, lab)
            for rival, source in RIVALS.items()
        }
        losses = {rival: step() for rival, step in steps.items()}
        first, second = losses.values()
        if abs(first - second) > ALIKE * abs(first):
            raise ValueError(f"{name}: the rivals' losses differ: {losses}")
        precision = "bf16" if half else "fp32"
        times = interleaved(steps, repeats, device)
        rows.append({"stage": name, "precision": precision, "losses": losses, "times": times})
    return {
        "what": "training",
        "context": context(device),
        "settings": {"width": width, "size": size, "batch": batch, "anchors": 8},
        "rows": rows,
    }


def training_table(reports: Sequence[Report]) -> str:
    """Milliseconds of a step on either kind of ops, and their ratio."""
    parts = []
    for report in reports:
        settings = report["settings"]
        rows = [
            [
                f"{row['stage']}, {row['precision']}",
                *(milliseconds(row["times"][rival]) for rival in RIVALS),
                ratio(*(row["times"][rival] for rival in RIVALS)),
            ]
            for row in report["rows"]
        ]
        what = (
            f"Width {settings['width']:g}, {settings['batch']} crops of {settings['size']} pixels, "
            f"K={settings['anchors']}: forward, backward, update. {caption(report)}"
        )
        parts += [table(["ms a training step", *RIVALS, "speedup"], rows), what]
    return "\n\n".join(parts)


TABLES = {"training": training_table}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args(argv)
    report = measure(a.device, a.width, a.size, a.batch, a.repeats)
    print(training_table([report]))
    if a.json:
        save(report, a.json)


if __name__ == "__main__":
    main()
