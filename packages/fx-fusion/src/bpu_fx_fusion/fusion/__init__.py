"""Layers become one: patterns, their matches in a graph, and the handlers that replace what matched."""
