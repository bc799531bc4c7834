"""Schemas of the ops, and the specification registered for every device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SCHEMAS: dict[str, str] = {}


def define(specification: Callable[..., Tensor | tuple[Tensor, ...]], schema: str) -> None:
    """Define the op that is called like its specification."""
    name = specification.__name__
    SCHEMAS[name] = schema
    torch.library.define(f"disco_fast::{name}", schema)
    torch.library.impl(f"disco_fast::{name}", "CompositeExplicitAutograd", specification)
