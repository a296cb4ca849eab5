"""Trained models as programs that need no inrflow: torch.export and ONNX, with a model card."""
