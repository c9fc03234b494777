"""What is read of an ``.hbm`` file: our description where there is one, what the tools tell where not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bpu_deploy_tools.hbdk import HbdkError
from bpu_deploy_tools.hbdk.hbir import plan
from bpu_deploy_tools.hbdk.hbm import describe, models_of, program_interface
from bpu_kernels import Program, ProgramBuilder
from bpu_kernels.ops.elementwise import Relu


def program() -> Program:
    builder = ProgramBuilder("bayes")
    x = builder.input("an image", (2, 12), "qint8", 0.25)
    builder.output(builder.add(Relu(), x, name="layer.relu", scale=0.25), "answer")
    return builder.build()


def disassembled(description: str) -> list[dict[str, Any]]:
    """Return what the disassembler tells of that model; HBIR has four axes, and names of its own."""
    tensor = {"valid dim": [2, 1, 1, 12], "element type name": "int8", "input source": "DDR"}
    features = ([tensor | {"feature name": "n0_an_image"}], [tensor | {"feature name": "n1_output"}])
    return [{"model name": "net", "description": description} | dict(zip(PORTS, features, strict=True))]


PORTS = ("input features", "output features")


def test_description_gives_back_what_the_program_had() -> None:
    made, planned = program(), plan(program())
    (model,) = models_of(json.dumps(disassembled(describe(made, "net", planned)))).values()
    assert model == program_interface(made, "net", planned.layers)
    assert list(model.layers.values()) == ["layer.relu"]


@pytest.mark.parametrize("description", ["", "made by hand", "[1]", '{"format": "another"}'])
def test_model_of_somebody_else_is_described_as_the_tools_do(description: str) -> None:
    (model,) = models_of(json.dumps(disassembled(description))).values()
    assert [str(each.spec) for each in model.inputs] == ["qint8[2x1x1x12]"]
    assert model.inputs[0].source == "ddr"
    assert model.outputs[0].scale == ()
    assert model.layers == {}


def test_description_of_another_number_of_inputs_is_refused() -> None:
    found = disassembled(describe(program(), "net", plan(program())))
    found[0]["input features"] *= 2
    with pytest.raises(HbdkError, match="other inputs or outputs than the model"):
        models_of(json.dumps(found))
