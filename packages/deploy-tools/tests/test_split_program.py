"""The stages of a Program give the integers of the whole, handed over as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bpu_kernels
from bpu_deploy_tools import Manifest, OptionError, split_program
from bpu_deploy_tools.segments.split_program import ProgramStages
from bpu_kernels import Program, ProgramBuilder, quant_dtype
from bpu_kernels.march import March
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.elementwise import Relu
from bpu_kernels.ops.layout import Pad
from bpu_kernels.testing import assert_integers_equal, random_case, random_program


def run_stages(parts: ProgramStages, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    known = dict(inputs)
    for part in parts.stages.values():
        known |= bpu_kernels.run(part, {each.name: known[each.name] for each in part.inputs})
    return known


def chain() -> Program:
    """X -> first -> second -> third, where third is an output and first one too."""
    builder = ProgramBuilder("bayes")
    value = builder.input("x", (1, 4, 4, 2), "qint8", 0.5)
    for name in ("first", "second", "third"):
        value = builder.add(Pad(before=(0, 1, 0, 0), after=(0,) * 4, value=len(name)), value, name=name, scale=0.5)
        if name != "second":
            builder.output(value, f"out_{name}")
    return builder.build()


@pytest.mark.parametrize("march", list(March), ids=str)
def test_stages_of_random_programs_give_the_integers_of_the_whole(march: March) -> None:
    tried = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        program, x = random_program(march, rng)
        names = [node.name for node in program.nodes]
        cuts = sorted({int(i) for i in rng.integers(0, len(names), 2)})
        try:
            parts = split_program(program, [names[i] for i in cuts])
        except OptionError:
            continue  # such as a cut behind which nothing is left
        tried += 1
        got = run_stages(parts, {"x": x})
        for output, value in bpu_kernels.run(program, {"x": x}).items():
            assert_integers_equal(got[output], value, what=f"{output}, seed {seed}")
        assert sorted(node.name for part in parts.stages.values() for node in part.nodes) == sorted(names)
    assert tried > 10


def test_output_that_a_later_stage_reads_leaves_under_both_names() -> None:
    parts = split_program(chain(), ["first"])
    assert [output.name for output in parts.stages["stage1"].outputs] == ["out_first", "first"]
    assert [each.name for each in parts.stages["stage2"].inputs] == ["first"]


def test_manifest_and_programs_come_back_from_their_folder(tmp_path: Path) -> None:
    parts = split_program(chain(), ["first", "second"])
    parts.save(tmp_path)
    manifest = Manifest.from_json((tmp_path / "manifest.json").read_text())
    assert manifest == parts.manifest
    assert [entry.name for entry in manifest.segments] == ["stage1", "stage2", "stage3"]
    leaving, entering = manifest.segments[0].outputs[1], manifest.segments[1].inputs[0]
    assert leaving == entering
    assert bpu_kernels.saves(bpu_kernels.load(tmp_path / "stage2.bpu")) == bpu_kernels.saves(parts.stages["stage2"])


def test_constant_is_in_every_stage_that_reads_it() -> None:
    kernel, (x, y) = random_case("add", March.BAYES, np.random.default_rng(1))
    builder = ProgramBuilder("bayes")
    constant = Constant(values=y.reshape(-1).astype(np.int32), shape=y.shape, dtype=quant_dtype(y.dtype))
    table = builder.add(constant, name="table", scale=1.0)
    value = builder.add(kernel, builder.input("x", x.shape, x.dtype, 1.0), table, name="sum", scale=1.0)
    value = builder.add(Relu(), value, name="relu", scale=1.0) if value.spec.dtype is quant_dtype("qint8") else value
    builder.output(builder.add(Pad(before=(0,) * 4, after=(0,) * 4), value, name="copy", scale=1.0), "y")
    builder.output(builder.add(Pad(before=(0,) * 4, after=(0,) * 4), table, name="table copy", scale=1.0), "z")
    program = builder.build()
    parts = split_program(program, ["sum"])
    assert [sum(node.name == "table" for node in part.nodes) for part in parts.stages.values()] == [1, 1]
    got, expected = run_stages(parts, {"x": x}), bpu_kernels.run(program, {"x": x})
    assert_integers_equal(got["z"], expected["z"])


@pytest.mark.parametrize(
    ("cuts", "said"),
    [
        (["firsts"], "no node 'firsts' in this Program; close to it: first"),
        (["third"], "nothing is left behind the cut third"),
        (["second", "first"], "the cut first leaves its stage empty"),
    ],
)
def test_cut_that_makes_no_stage_is_refused_with_the_reason(cuts: list[str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        split_program(chain(), cuts)
