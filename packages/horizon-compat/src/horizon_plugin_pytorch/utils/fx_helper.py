"""`wrap`, which keeps code out of the trace."""

from __future__ import annotations

from bpu_fx_fusion import wrap as wrap
