"""How a color is read from the distribution that the color modeler gives: from likely to vivid.

A network that was trained with rebalanced cross entropy (equation 4, weights w) has learned w(bin)
p(bin), not p. The published program takes the most probable bin of that: vivid, and often wrong.
Here the weights are divided out again as far as the dial says, and the color is the annealed mean
of what is left. A network that was trained without weights has p; the dial multiplies them in.

Either way vividness 0 reads p, and 1 what rebalancing makes of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..color import N_BINS, check_vividness

TEMPERATURE = 0.38  # of the annealed mean: Zhang et al. 2016, section 2.3
VIVIDNESS = 0.5  # where a checkpoint does not say
_PRIOR = Path(__file__).parents[1] / "weights" / "color-prior.json"
_BALANCE = 0.5  # lambda, as published. With 0, colors that never occur would get any weight
# Lambda at vividness 1 where no training has set it: the annealed mean is duller than the published
# argmax, and this makes up for it.
_VIVID_BALANCE = 0.25


def rebalancing(prior: Tensor, balance: float) -> Tensor:
    """Weights of the color bins, [313]: rare ones count for more; their expectation is 1.

    Args:
        prior: [313], frequencies.
        balance: lambda, the share of the uniform distribution in the denominator, in 0..1.
    """
    weights = 1 / ((1 - balance) * prior + balance / N_BINS)
    return weights / (prior * weights).sum()


@dataclass(frozen=True)
class Readout:
    """What a network's color logits mean; a checkpoint keeps it.

    Attributes:
        prior: how often each of the 313 bins occurs in the photographs of the training.
        balance: lambda of the rebalancing weights in the logits; None: there are none.
        vividness: what is best for this network, 0..1.

    Raises:
        ValueError: naming the attribute that does not fit.
    """

    prior: tuple[float, ...]
    balance: float | None = _BALANCE
    vividness: float = VIVIDNESS

    def __post_init__(self) -> None:
        shares = len(self.prior) == N_BINS and all(share >= 0 for share in self.prior)
        if not shares or not abs(sum(self.prior) - 1) < 1e-3:
            raise ValueError(f"prior: expected {N_BINS} shares, none negative, whose sum is 1")
        if self.balance is not None and not 0 < self.balance <= 1:
            raise ValueError(f"balance: expected None or a number in (0, 1], got {self.balance}")
        check_vividness(self.vividness)

    def ends(self) -> tuple[Tensor, Tensor]:
        """What is added to the logits at vividness 0, and how much more at 1; [313] fp32 each.

        At 0 the sum is the logarithm of the true probability, but for a constant. At 1 it is that
        of the rebalanced one: with the weights of the training, or stronger ones if it had none.
        """
        prior = torch.tensor(self.prior, dtype=torch.float64)
        vivid = rebalancing(prior, self.balance or _VIVID_BALANCE).log()
        likely = torch.zeros_like(vivid) if self.balance is None else -vivid
        return likely.float(), vivid.float()

    def to_json(self) -> str:
        """As text, for the metadata of a file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Readout:
        """From text that `to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            read = json.loads(text)
            prior = tuple(float(share) for share in read["prior"])
            return cls(prior, read["balance"], read["vividness"])
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"readout: expected prior, balance and vividness ({error})") from None


@cache
def official() -> Readout:
    """For a checkpoint that says nothing, as the official ones: rebalanced, lambda 0.5.

    Its prior is that of the package's own training photographs, for theirs is not published.
    """
    return Readout(tuple(json.loads(_PRIOR.read_text())["prior"]))
