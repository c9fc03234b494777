"""Quantization-aware and integer forms of operators, prepare_qat_fx and convert_fx."""
