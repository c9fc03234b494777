"""Pooling: windows of one size, adaptive windows, in two and three dimensions."""
