"""Turn the errors that symbolic values raise while tracing into ones that show the user's own line and the way out."""

from __future__ import annotations

import os
import traceback
from types import TracebackType

import torch.fx
import torch.fx.proxy

from ..errors import PartialWriteError, TraceError

_NOT_THE_USERS = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(__file__) + os.sep, "<")

_JOIN = "join parts with torch.cat instead, or"

_WAYS_OUT = (
    ("'len' is not supported", 'Keep `len` itself as a node, with `wrap("len")` at the top level of this file, or'),
    ("cannot be iterated", "Index a fixed number of items instead of iterating, or"),
    (
        "item assignment",
        "Writing into a part of a tensor needs example_inputs. Give them, or",
    ),
    ("control flow", "Python cannot choose a branch by it. To keep the choice,"),
)


def is_about_symbolic_values(error: Exception) -> bool:
    """Tell whether an error arose because a symbolic value was used as if it were a tensor or a number."""
    text = str(error)
    return (
        isinstance(error, torch.fx.proxy.TraceError | PartialWriteError)
        or (isinstance(error, NotImplementedError) and text.startswith("argument of type"))
        or any(word in text for word in ("Proxy", "symbolic tracing", "is not installed as a submodule"))
        # torch.zeros(x.size(0), 2) and others that parse their arguments complain in words that hide the reason.
        or (isinstance(error, TypeError) and _has_symbolic_locals(error.__traceback__))
    )


_EXAMPLES = "Pass `example_inputs`, with which sizes, lengths and choices that depend on them are known. Otherwise:\n"


def explain(error: Exception, model_name: str, *, has_examples: bool) -> TraceError:
    """Return the error to raise from `error`: where in the user's code, why, and what helps: examples or a `wrap`."""
    frame = _innermost_user_frame(error.__traceback__)
    function = frame.name if frame else "forward"
    place = f'\n  File "{frame.filename}", line {frame.lineno}, in {function}\n    {frame.line}\n' if frame else " "
    lead = next((way for words, way in _WAYS_OUT if words in str(error)), "To keep such code,")
    if isinstance(error, PartialWriteError):
        lead = f"{error} Change that, {_JOIN}"
    if function == "forward" or function.startswith("<"):  # such as <lambda>, which cannot be decorated
        wrap = "move these lines into a method or function of their own and decorate it with `@wrap()`"
    else:
        wrap = f"decorate `{function}` with `@wrap()`"
    examples = "" if has_examples else _EXAMPLES
    return TraceError(
        f"{model_name} cannot be traced:{place}"
        "While a model is traced its inputs are symbolic: they have no value, length or type that Python could use.\n"
        f"{examples}"
        f"{lead} {wrap}; wrapped code runs as it is, and modules called in it can still be fused and quantized."
    )


def _has_symbolic_locals(trace: TracebackType | None) -> bool:
    innermost = [frame for frame, _ in traceback.walk_tb(trace)][-1:]
    return any(isinstance(value, torch.fx.Proxy) for frame in innermost for value in frame.f_locals.values())


def _innermost_user_frame(trace: TracebackType | None) -> traceback.FrameSummary | None:
    frames = traceback.extract_tb(trace)
    return next((f for f in reversed(frames) if not f.filename.startswith(_NOT_THE_USERS)), None)
