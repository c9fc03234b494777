"""Copies of a module tree share its leaves and none of its containers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bpu_fx_fusion import copy_structure, replace_module, separate_stateless_modules, shallow_copy


def tree() -> nn.Sequential:
    shared = nn.Sequential(nn.Conv2d(1, 1, 1))
    return nn.Sequential(shared, nn.Sequential(shared, nn.ReLU()))


def test_containers_are_new_and_leaves_are_shared() -> None:
    original = tree()

    copied = copy_structure(original)

    for path, module in original.named_modules(remove_duplicate=False):
        other = copied.get_submodule(path)
        assert type(other) is type(module)
        assert (other is module) == (not module._modules), path


def test_a_module_at_two_places_is_copied_once() -> None:
    copied = copy_structure(tree())

    assert copied.get_submodule("0") is copied.get_submodule("1.0")


def test_only_modules_without_state_and_children_are_separated() -> None:
    activation, layer, block = nn.SiLU(), nn.Conv2d(1, 1, 1), nn.Sequential(nn.ReLU())
    root = nn.Sequential(nn.Sequential(layer, activation, block), nn.Sequential(layer, activation, block), activation)

    separate_stateless_modules(root)

    activations = [root.get_submodule(path) for path in ("0.1", "1.1", "2")]
    assert len({id(each) for each in activations}) == 3
    assert all(type(each) is nn.SiLU for each in activations)
    assert root.get_submodule("0.0") is root.get_submodule("1.0")
    assert root.get_submodule("0.2") is root.get_submodule("1.2")


def test_replacing_reaches_every_place_and_only_this_tree() -> None:
    original = tree()
    copied = copy_structure(original)

    replace_module(copied, copied.get_submodule("0.0"), nn.Identity())

    assert isinstance(copied.get_submodule("1.0.0"), nn.Identity)
    assert isinstance(original.get_submodule("0.0"), nn.Conv2d)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripted_modules_are_shared_whole() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.ReLU()))
    original = nn.Sequential(scripted)

    assert copy_structure(original).get_submodule("0") is scripted


def test_a_shallow_copy_has_registries_of_its_own() -> None:
    conv = nn.Conv2d(1, 1, 1)
    vars(conv)["qconfig"] = "mine"

    copied = shallow_copy(conv)
    shared = copied.weight is conv.weight
    copied.weight = nn.Parameter(conv.weight * 2)

    assert shared
    assert copied.weight is not conv.weight
    assert copied.qconfig == "mine"
