"""Thousands of damaged files: each gives an equal Program or one of our errors, never anything else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from bpu_kernels import InvalidProgramError, ProgramBuilder, UnsupportedError, loads, program_file, quant_dtype, saves
from bpu_kernels.testing import random_case

NAMES = ("conv2d", "lut16", "add", "max_pool2d", "resize_bilinear", "slice", "lut8")


def make_files() -> list[bytes]:
    """One Program of several operators side by side, and small ones with a self-test."""
    builder, files = ProgramBuilder("bayes"), []
    for name in NAMES:
        kernel, inputs = random_case(name, "bayes", np.random.default_rng(1))
        single = ProgramBuilder("bayes")
        for into in (builder, single):
            values = [into.input(f"{name}.{i}", x.shape, quant_dtype(x.dtype), 0.1) for i, x in enumerate(inputs)]
            into.output(into.add(kernel, *values, name=name, scale=0.1), f"{name}.out")
        tested = single.build().with_self_test({f"{name}.{i}": x for i, x in enumerate(inputs)})
        files.append(saves(tested))
    return [saves(builder.build({"a": "b"})), *files]


FILES = make_files()
HARMLESS = {saves(loads(data)) for data in FILES}


def survives(data: bytes) -> bool:
    """Whether the file still loads; if so it must be one of the files that there were."""
    try:
        loaded = loads(data)
    except (InvalidProgramError, UnsupportedError):
        return False
    assert saves(loaded) in HARMLESS
    return True


def damage(rng: np.random.Generator, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        place, length = int(rng.integers(len(changed))), int(rng.integers(1, 40))
        header = 8 + int.from_bytes(data[:8], "little")
        if rng.integers(2):
            place = int(rng.integers(min(header, len(changed))))
        match rng.integers(5):
            case 0:
                changed[place] ^= 1 << int(rng.integers(8))
            case 1:
                del changed[place:]
            case 2:
                del changed[place : place + length]
            case 3:
                other = FILES[rng.integers(len(FILES))]
                start = int(rng.integers(len(other)))
                changed[place : place + length] = other[start : start + length]
            case _:
                changed[place:place] = rng.bytes(length)
        if not changed:
            break
    return bytes(changed)


@pytest.mark.parametrize("seed", range(8))
def test_damaged_bytes_give_an_equal_program_or_our_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outcomes = [survives(damage(rng, FILES[rng.integers(len(FILES))])) for _ in range(600)]
    assert not all(outcomes)


def test_every_single_bit_of_the_shortest_file_matters() -> None:
    """Flipping any bit gives our error, but for blanks of the header, which may become another kind of blank."""
    shortest = min(FILES, key=len)
    for place in range(len(shortest)):
        for bit in range(0, 8, 3):
            changed = bytearray(shortest)
            changed[place] ^= 1 << bit
            if survives(bytes(changed)):
                assert chr(shortest[place]).isspace()


JUNK: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 0.5, -1.0, 1e308, "", "x", "qint8", "conv2d", "\ud800", "\x00",
    [], [0], [1, 1], [[]], [1.0] * 7, {}, {"a": 1}, "x" * 5000, [1] * 5000,
]  # fmt: skip


def mutate(rng: np.random.Generator, value: Any) -> Any:
    """Return JSON with one place replaced, removed or copied, anywhere in the tree."""
    if isinstance(value, dict) and value and rng.integers(8):
        key = sorted(value)[rng.integers(len(value))]
        changed = dict(value)
        match rng.integers(12):
            case 0:
                del changed[key]
            case 1:
                changed[f"{key}_"] = changed[key]
            case _:
                changed[key] = mutate(rng, value[key])
        return changed
    if isinstance(value, list) and value and rng.integers(8):
        place, copied = int(rng.integers(len(value))), list(value)
        match rng.integers(6):
            case 0:
                del copied[place]
            case 1:
                copied.insert(place, copied[rng.integers(len(copied))])
            case _:
                copied[place] = mutate(rng, copied[place])
        return copied
    if type(value) is int and rng.integers(2):
        return value + int(rng.integers(-3, 4)) * 10 ** int(rng.integers(0, 6))
    return JUNK[rng.integers(len(JUNK))]


def mutate_tensors(rng: np.random.Generator, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    changed = dict(tensors)
    name = sorted(changed)[rng.integers(len(changed))]
    value = changed[name]
    match rng.integers(7):
        case 0:
            del changed[name]
        case 1:
            changed[f"{name}x"] = value
        case 2:
            changed[name] = value.astype([np.int8, np.int16, np.int32, np.uint8, np.int64][rng.integers(5)])
        case 3:
            changed[name] = value.reshape(-1)[: rng.integers(value.size + 1)]
        case 4:
            changed[name] = np.repeat(value, 2, axis=0)
        case 5:
            info = np.iinfo(value.dtype)
            changed[name] = rng.integers(info.min, info.max, value.shape, value.dtype, endpoint=True)
        case _:
            changed[name] = value[None]
    return changed


@pytest.mark.parametrize("seed", range(8))
def test_edited_parts_with_a_right_checksum_give_a_program_or_our_error(seed: int) -> None:
    """What loads is another valid Program, which comes back from a file of its own."""
    rng, loaded = np.random.default_rng(100 + seed), 0
    for _ in range(400):
        data = FILES[rng.integers(len(FILES))]
        outer = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        header, tensors = json.loads(outer["__metadata__"]["bpu_program"]), safetensors.numpy.load(data)
        if rng.integers(3):
            header["program"] = mutate(rng, header["program"])
        else:
            tensors = mutate_tensors(rng, tensors)
        header["sha256"] = program_file._digest(header["program"], tensors)
        try:
            program = loads(safetensors.numpy.save(tensors, metadata={"bpu_program": json.dumps(header)}))
        except (InvalidProgramError, UnsupportedError):
            continue
        loaded += 1
        again = saves(program)
        assert saves(loads(again)) == again
    assert loaded > 0
