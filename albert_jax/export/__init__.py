"""Writing a model for other programs: Transformers, ONNX, StableHLO, speech."""

from typing import Literal

ExportFormat = Literal["huggingface", "native", "onnx", "stablehlo", "plbert"]
StoredType = Literal["float32", "bfloat16", "int8"]
"""Types of stored weights; not every format has each of them."""
Head = Literal["pretraining", "mlm", "base"]
"""Outputs of a pretrained model: both heads, the MLM head, or the hidden states."""
