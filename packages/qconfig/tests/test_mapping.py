"""qconfig_dict: reading it, resolving each module, reporting what matches nothing."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from bpu_qconfig import (
    FakeQuantize,
    InvalidQConfigError,
    QConfig,
    QConfigMapping,
    default_calib_8bit_fake_quant_qconfig,
    default_qat_8bit_fake_quant_qconfig,
)


def named(name: str) -> QConfig:
    """A qconfig that can be told from others."""
    return QConfig(activation=FakeQuantize.with_args(name=name), weight=None)


GLOBAL, TYPE, OUTER_TYPE, NAME, OUTER_NAME, OWN, OUTER = map(
    named, ["global", "type", "outer type", "name", "outer name", "own", "outer"]
)


class Block(nn.Module):
    """One level between root and convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)


class Net(nn.Module):
    """root -> block -> conv."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.other = Block()


def chain_of(net: Net) -> list[tuple[str, nn.Module]]:
    return [("", net), ("block", net.block), ("block.conv", net.block.conv)]


# sources present, the first of which must win: from the highest rank to the lowest
RANKS: list[tuple[str, QConfig | None]] = [
    ("own attribute", OWN),
    ("own name", NAME),
    ("outer attribute", OUTER),
    ("outer name", OUTER_NAME),
    ("root attribute", None),
    ("type", TYPE),
    ("outer type", OUTER_TYPE),
    ("global", GLOBAL),
]


def build(sources: list[str]) -> tuple[QConfigMapping, Net]:
    net = Net()
    attributes: dict[str, tuple[nn.Module, QConfig | None]] = {
        "own attribute": (net.block.conv, OWN),
        "outer attribute": (net.block, OUTER),
        "root attribute": (net, None),
    }
    for source, (module, qconfig) in attributes.items():
        if source in sources:
            module.qconfig = qconfig  # type: ignore[assignment]
    names = {"own name": ("block.conv", NAME), "outer name": ("block", OUTER_NAME)}
    types = {"type": (nn.Conv2d, TYPE), "outer type": (Block, OUTER_TYPE)}
    given: dict[str, Any] = {
        "module_name": [names[source] for source in names if source in sources],
        "module_type": [types[source] for source in types if source in sources],
    }
    if "global" in sources:
        given[""] = GLOBAL
    return QConfigMapping.from_dict(given), net


@pytest.mark.parametrize("first", range(len(RANKS)), ids=[name for name, _ in RANKS])
def test_the_highest_rank_wins(first: int) -> None:
    mapping, net = build([name for name, _ in RANKS[first:]])
    assert mapping.resolve("block.conv", chain_of(net)) is RANKS[first][1]


@pytest.mark.parametrize("low", range(len(RANKS)), ids=[name for name, _ in RANKS])
@pytest.mark.parametrize("high", range(len(RANKS)), ids=[name for name, _ in RANKS])
def test_of_any_two_sources_the_higher_wins(high: int, low: int) -> None:
    mapping, net = build([RANKS[high][0], RANKS[low][0]])
    assert mapping.resolve("block.conv", chain_of(net)) is RANKS[min(high, low)][1]


def test_nothing_leaves_the_module_in_float() -> None:
    assert QConfigMapping.from_dict(None).resolve("block", chain_of(Net())[:2]) is None


def test_none_attribute_leaves_a_subtree_in_float() -> None:
    net = Net()
    net.block.qconfig = None  # type: ignore[assignment]
    mapping = QConfigMapping.from_dict({"": GLOBAL, "module_type": [(nn.Conv2d, TYPE)]})
    assert mapping.resolve("block.conv", chain_of(net)) is None
    assert mapping.resolve("other", [("", net), ("other", net.other)]) is GLOBAL


def test_none_entry_leaves_a_module_in_float() -> None:
    mapping = QConfigMapping.from_dict({"": GLOBAL, "module_name": {"block": None}})
    net = Net()
    assert mapping.resolve("block.conv", chain_of(net)) is None
    assert mapping.resolve("", [("", net)]) is GLOBAL


def test_type_is_exact() -> None:
    class Conv(nn.Conv2d):
        pass

    mapping = QConfigMapping.from_dict({"module_type": [(nn.Conv2d, TYPE)]})
    assert mapping.resolve("conv", [("", Net()), ("conv", Conv(1, 1, 1))]) is None


def test_operation_takes_the_qconfig_of_its_owner_or_its_own_entry() -> None:
    net = Net()
    net.block.qconfig = OUTER  # type: ignore[assignment]
    chain = chain_of(net)[:2]
    assert QConfigMapping.from_dict({}).resolve("block_generated_add_0", chain) is OUTER
    mapping = QConfigMapping.from_dict({"module_name": {"block_generated_add_0": NAME}})
    assert mapping.resolve("block_generated_add_0", chain) is NAME


def test_snippet_of_the_guide_with_a_dict_and_with_pairs() -> None:
    custom_qconfig = default_qat_8bit_fake_quant_qconfig
    as_dict = {"": default_calib_8bit_fake_quant_qconfig, "module_name": {"block": custom_qconfig}}
    as_pairs = {"": default_calib_8bit_fake_quant_qconfig, "module_name": [("block", custom_qconfig)]}
    for given in (as_dict, as_pairs):
        mapping = QConfigMapping.from_dict(given)
        assert mapping.resolve("block.conv", chain_of(Net())) is custom_qconfig
        assert mapping.resolve("", [("", Net())]) is default_calib_8bit_fake_quant_qconfig


def test_mapping_is_frozen_and_reads_itself() -> None:
    mapping = QConfigMapping.from_dict({"module_name": {"a": GLOBAL}})
    assert QConfigMapping.from_dict(mapping) is mapping
    with pytest.raises(AttributeError):
        mapping.default = None  # type: ignore[misc]
    with pytest.raises(TypeError):
        mapping.module_names["b"] = None  # type: ignore[index]


REFUSED: dict[str, tuple[Any, str]] = {
    "unknown key": ({"object_type": []}, "unknown key 'object_type'.*'', 'module_type', 'module_name'; did you mean"),
    "far key": ({"x": []}, r"unknown key 'x' in qconfig_dict; known are '', 'module_type', 'module_name'$"),
    "no dict": (GLOBAL, "a global qconfig goes under the key ''"),
    "no qconfig": ({"": "qat"}, "expected a QConfig or None, got 'qat'"),
    "path as type": ({"module_type": [("conv", GLOBAL)]}, "module_type: expected a module class, got 'conv'"),
    "type as path": ({"module_name": {nn.Conv2d: GLOBAL}}, "module_name: expected a module path, got <class"),
    "no pair": ({"module_name": ["conv"]}, "expected pairs of a module path and a qconfig, got 'conv'"),
    "twice": ({"module_name": [("a", GLOBAL), ("a", NAME)]}, "module_name: two entries for 'a'; keep one"),
}


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_qconfig_dict_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidQConfigError, match=message):
        QConfigMapping.from_dict(given)


def test_attribute_that_is_no_qconfig_is_refused() -> None:
    net = Net()
    net.qconfig = "qat"  # type: ignore[assignment]
    with pytest.raises(InvalidQConfigError, match="expected a QConfig or None"):
        QConfigMapping.from_dict(None).resolve("", [("", net)])


def test_unused_entries_are_reported_with_similar_names() -> None:
    mapping = QConfigMapping.from_dict(
        {
            "": GLOBAL,
            "module_name": {"block.conv": NAME, "blok.conv": NAME, "head": NAME},
            "module_type": [(nn.Conv2d, TYPE), (nn.Conv3d, TYPE)],
        }
    )
    assert [str(entry) for entry in mapping.unused(Net())] == [
        "module_type 'Conv3d' matches nothing in the model; did you mean 'Conv2d'?",
        "module_name 'blok.conv' matches nothing in the model; did you mean 'block.conv' or 'other.conv'?",
        "module_name 'head' matches nothing in the model",
    ]


def test_second_name_of_a_shared_module_is_used() -> None:
    net = Net()
    net.other = net.block
    assert QConfigMapping.from_dict({"module_name": {"other.conv": NAME}}).unused(net) == ()
