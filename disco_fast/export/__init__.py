"""``disco-fast export``: the networks around the ops as ONNX."""

from .networks import MismatchError, export_onnx

__all__ = ["MismatchError", "export_onnx"]
