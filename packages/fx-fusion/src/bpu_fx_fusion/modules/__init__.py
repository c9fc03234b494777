"""Float modules that stand in graphs: for functions that torch.nn has no module for, and for fused layers.

They are leaves of the tracer and hold no parameters but those of fused layers. What is known when the model is traced
is given to the constructor; what is computed at run time (a size taken from another tensor) is given to the call, and
wins.
"""
