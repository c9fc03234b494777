"""The drawing of a Program is SVG with every operator, and leaves nothing of a name unescaped."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from bpu_deploy_tools import OptionError, draw_program, visualize_model
from bpu_kernels import Program, ProgramBuilder
from bpu_kernels.ops.elementwise import Relu
from bpu_kernels.testing import random_program

SPACE = "{http://www.w3.org/2000/svg}"


def named(name: str) -> Program:
    builder = ProgramBuilder("bayes")
    x = builder.input(name, (1, 4, 4, 3), "qint8", 0.5)
    builder.output(builder.add(Relu(), x, name=f"{name}.relu", scale=0.5), "out")
    return builder.build()


@pytest.mark.parametrize("seed", range(5))
def test_drawing_has_a_box_for_every_input_node_and_output_and_a_line_for_every_read(seed: int) -> None:
    program, _ = random_program("bayes", np.random.default_rng(seed))
    drawn = ElementTree.fromstring(draw_program(program))
    boxes = drawn.findall(f"{SPACE}g")
    assert len(boxes) == len(program.inputs) + len(program.nodes) + len(program.outputs)
    reads = sum(len(node.inputs) for node in program.nodes) + len(program.outputs)
    assert len(drawn.findall(f"{SPACE}path")) == reads
    hints = [box.findtext(f"{SPACE}title") or "" for box in boxes]
    assert all(any(hint.startswith(f"{node.name}: ") for hint in hints) for node in program.nodes)


def test_name_with_markup_stays_a_text() -> None:
    drawn = ElementTree.fromstring(draw_program(named('<script>"&')))
    assert '<script>"&.relu' in [text.text for text in drawn.iter(f"{SPACE}text")]


def test_long_name_is_shortened_in_the_box_and_whole_in_the_hint() -> None:
    name = "backbone." * 20
    drawn = ElementTree.fromstring(draw_program(named(name)))
    assert all(len(text.text or "") <= 36 for text in drawn.iter(f"{SPACE}text"))
    assert any(name in (title.text or "") for title in drawn.iter(f"{SPACE}title"))


def test_drawing_is_written_to_its_path(tmp_path: Path) -> None:
    visualize_model(named("x"), None, save_path=tmp_path / "net.svg", show=False)
    assert (tmp_path / "net.svg").read_text() == draw_program(named("x"))


def test_another_ending_than_svg_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"ends in \.svg"):
        visualize_model(named("x"), None, save_path=tmp_path / "net.png", show=False)
