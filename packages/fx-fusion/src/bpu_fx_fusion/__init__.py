"""torch.fx tracing, wrapping and operator fusion for quantization."""
