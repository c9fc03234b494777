"""The one place that knows torch.ao.quantization: its stubs, where users pass them. Absent releases are no error."""

from __future__ import annotations

from torch import nn

__all__ = ["STUBS"]


def _stubs() -> dict[str, tuple[type[nn.Module], ...]]:
    try:
        from torch.ao.quantization import DeQuantStub, QuantStub
    except ImportError:  # torch.ao.quantization is leaving torch core
        return {"QuantStub": (), "DeQuantStub": ()}
    return {"QuantStub": (QuantStub,), "DeQuantStub": (DeQuantStub,)}


STUBS = _stubs()
"""Name -> torch.ao's classes of that name, none or one."""
