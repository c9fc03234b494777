"""March state, observers, fake quantization and qconfigs for BPU quantization-aware training."""
