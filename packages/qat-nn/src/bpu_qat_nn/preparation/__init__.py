"""What prepare_qat_fx does: which values are quantized, what the march refuses, which module takes which place."""
