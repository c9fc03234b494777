"""What can go wrong with the vendor's toolkit: it is not there, it refuses, it breaks, it takes too much."""

from __future__ import annotations

from ..errors import BpuDeployError

__all__ = ["HbdkError", "HbdkNotFoundError", "HbdkRefusalError"]

INSTALL = """\
The toolkit is the vendor's package dgdk on PyPI (HBDK 3.49, Linux x86-64, proprietary). Install it for this Python by
  pip install --no-deps --target DIR --python-version 3.10 --platform manylinux2014_x86_64 \
      --only-binary=:all: dgdk==1.0.0
and set HBDK_HOME=DIR, or install it where a Python 3.10 lives and set HBDK_PYTHON to that interpreter."""


class HbdkError(BpuDeployError, RuntimeError):
    """A program of the toolkit failed; the message ends with its own words."""


class HbdkNotFoundError(HbdkError):
    """The toolkit is not installed."""

    def __init__(self, looked: str) -> None:
        super().__init__(f"the vendor's toolkit was not found ({looked}).\n{INSTALL}")


class HbdkRefusalError(HbdkError):
    """The toolkit says that the board cannot run the model."""
