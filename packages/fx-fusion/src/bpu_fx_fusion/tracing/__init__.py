"""From a model's forward to a graph: the tracer, what it keeps whole, and what it does about sizes and writes."""
