"""Owns the loading of ONNX Runtime, which from then on tells its makers about each process, unless it was told not to.

It reads the variable once, while it is loaded: its own call that ends the telemetry comes too late.
"""

import os

__all__ = ["onnxruntime"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
