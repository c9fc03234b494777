"""Lowering of converted models to Programs, and graph surgery."""
