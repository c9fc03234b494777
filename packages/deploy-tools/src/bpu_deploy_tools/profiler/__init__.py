"""Hold what is deployed against what was trained: place by place, and operator by operator."""

from __future__ import annotations

from .script import compare_script_models, script_profile
from .stages import Difference, StageComparison, compare_stages

__all__ = ["Difference", "StageComparison", "compare_script_models", "compare_stages", "script_profile"]
