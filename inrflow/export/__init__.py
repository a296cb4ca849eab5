"""Export of trained models as programs independent of inrflow (torch.export and ONNX), with a model card."""
