"""Traced graphs: the modules that hold them, questions about their nodes, and the tree of modules below."""
