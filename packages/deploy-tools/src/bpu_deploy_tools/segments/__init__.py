"""Segments: a converted model, or a Program, cut into parts that are deployed on their own; what crosses each cut."""
