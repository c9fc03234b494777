"""Layers with weights: convolution, transposed convolution, linear, and batch normalization that no layer took in."""
