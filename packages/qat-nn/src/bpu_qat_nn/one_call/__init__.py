"""A converted model that is called again: what it computes on integers is one call of the native engine."""
