"""Tracing helpers and graph modules."""

from __future__ import annotations

from . import fx_helper as fx_helper
from . import graph_module as graph_module
