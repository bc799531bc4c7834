"""Color as a transform, in the workers of a DataLoader.

python examples/dataset_transform.py examples/photographs --workers 2
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from disco_fast.io.images import read_image, to_tensor
from disco_fast.transforms import Colorize


class MiddleSquare(nn.Module):
    """The middle of a picture; torchvision's `v2.CenterCrop` where that is installed."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        """[..., H, W] to [..., size, size]."""
        top, left = ((length - self.size) // 2 for length in image.shape[-2:])
        return image[..., top : top + self.size, left : left + self.size]


class Pictures(Dataset[Tensor]):
    """The JPEG files of a folder."""

    def __init__(self, folder: Path, transform: nn.Module):
        self.paths, self.transform = sorted(folder.glob("*.jpg")), transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(to_tensor(read_image(self.paths[index]).pixels))


def main() -> None:
    """Print what the loader gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    transform = nn.Sequential(MiddleSquare(192), Colorize(working_size=192))
    loader = DataLoader(
        Pictures(arguments.folder, transform), batch_size=4, num_workers=arguments.workers
    )
    for batch in loader:
        spread = batch.float().std(dim=1).mean(dim=(1, 2))
        assert isinstance(batch, torch.Tensor)
        print(tuple(batch.shape), batch.dtype, [f"{value:.0f}" for value in spread])


if __name__ == "__main__":
    main()
