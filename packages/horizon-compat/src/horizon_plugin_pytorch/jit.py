"""TorchScript files: save, load, to_device."""

from __future__ import annotations

from bpu_deploy_tools import load_traced as load
from bpu_deploy_tools import save_traced as save
from bpu_deploy_tools import to_device as to_device

__all__ = ["load", "save", "to_device"]
