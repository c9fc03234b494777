"""The tensors of a converted module while ``torch.export`` has others in their place.

Without dynamo (``strict=False``) torch.export puts fake tensors into a model, which have shapes and no contents, and
runs it. Integers are derived from contents. It lists the model's tensors right before; by that they are noted.
"""

from __future__ import annotations

import weakref

from torch import Tensor, nn

from .captured_tensor import exporting

__all__ = ["note_tensors", "own_tensor"]

_NOTED: weakref.WeakKeyDictionary[nn.Module, dict[str, weakref.ref[Tensor]]] = weakref.WeakKeyDictionary()


def note_tensors(module: nn.Module) -> None:
    """Note the parameters and buffers of a module, unless they are replaced now."""
    if not exporting():
        tensors = {**module._parameters, **module._buffers}
        _NOTED[module] = {name: weakref.ref(tensor) for name, tensor in tensors.items() if tensor is not None}


def own_tensor(module: nn.Module, name: str, found: Tensor) -> Tensor:
    """Return a tensor of a module, the noted one where another is found in its place."""
    if type(found) in (Tensor, nn.Parameter) or not exporting():
        return found
    noted = _NOTED.get(module, {}).get(name)
    tensor = None if noted is None else noted()
    return found if tensor is None else tensor
