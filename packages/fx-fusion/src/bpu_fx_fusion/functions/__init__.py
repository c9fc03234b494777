"""Functions and operators of a traced graph become modules: the table, and one file per kind of replacement."""
