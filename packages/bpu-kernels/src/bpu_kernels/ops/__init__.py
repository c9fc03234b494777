"""The operators, one file per family: parameters, integer reference, shape rule, limits."""
