"""``model_profiler``: every comparison of two stages of a model in one call, on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bpu_fx_fusion import TraceError
from bpu_kernels.whole_file import expect_folder

from ..errors import ArgumentError
from ..op import Operator
from ..ops.weighted.layer import WeightedQAT, WeightedQuantized
from ..qat_module import QATModule
from ..quantized_module import QuantizedModule
from ..text_table import text_table
from .called_count import get_module_called_count
from .deploy_device import check_deploy_device
from .page import Section, Table, write_page
from .qconfigs import QConfigInfo, check_qconfig
from .raw_features import get_raw_features
from .similarity import FeaturemapSimilarity, featuremap_similarity, similarity_sections
from .statistics import FeatureStatistics, profile_featuremap, statistic_sections
from .unfused import check_unfused_operations
from .weights import ComparedWeights, compare_weights

__all__ = ["MODES", "ModelProfile", "model_profiler"]


def _is_float(model: nn.Module) -> bool:
    return not any(isinstance(module, Operator) for module in model.modules())


def _is_prepared(model: nn.Module) -> bool:
    return any(isinstance(module, QATModule) for module in model.modules())


def _is_converted(model: nn.Module) -> bool:
    return any(isinstance(module, QuantizedModule) for module in model.modules())


_Stage = tuple[str, Callable[[nn.Module], bool]]
_PREPARED: _Stage = ("prepared", _is_prepared)

MODES: dict[str, tuple[_Stage, _Stage]] = {
    "FvsQ": (("float", _is_float), ("prepared or converted", lambda model: not _is_float(model))),
    "QvsQ": (_PREPARED, ("converted", _is_converted)),
    "CvsQ": (("calibrating", _is_prepared), _PREPARED),
}
"""Mode -> the stages of the two models, each by name and as a question."""


@dataclass(frozen=True, kw_only=True)
class ModelProfile:
    """What ``model_profiler`` found; prints as a summary, the worst operators first."""

    similarity: FeaturemapSimilarity
    statistics: tuple[FeatureStatistics, FeatureStatistics]
    """Of the first and of the second model."""
    called_count: Mapping[str, int]
    """Of the second model."""
    unfused: tuple[tuple[str, ...], ...]
    """Of the float model, as it is; empty in the other modes."""
    weights: ComparedWeights | None
    """None where weights cannot differ, or where no float weights are at hand."""
    qconfigs: QConfigInfo | None
    """Of the second model, or of the first if that is the prepared one."""
    devices: Mapping[str, tuple[str, str]]
    """Of the second model."""

    @property
    def worst(self) -> FeaturemapSimilarity:
        """The ten places with the largest error on the same inputs."""
        found = self.similarity.by_operator_error
        return FeaturemapSimilarity(found[:10], found.measure, ())

    @property
    def shared(self) -> dict[str, int]:
        """The modules that are called several times, which quantize all their calls by one scale."""
        return {name: count for name, count in self.called_count.items() if count > 1}

    def __str__(self) -> str:
        parts = [f"Largest error on the same inputs:\n{self.worst}"]
        if not any(row.max_error for row in self.similarity):
            parts = [f"The results are equal at all {len(self.similarity)} places."]
        if self.shared:
            parts.append("Called several times: " + ", ".join(f"{name} ({n})" for name, n in self.shared.items()))
        if self.qconfigs is not None and self.qconfigs.messages:
            parts += ["Worth a second look:\n" + text_table(("name", "type", "message"), self.qconfigs.messages)]
        on_cpu = [name for name, (device, kind) in self.devices.items() if device == "CPU" and "uant" not in kind]
        if on_cpu:
            parts.append("On the CPU: " + ", ".join(on_cpu))
        return "\n\n".join(parts)


def model_profiler(
    model1: nn.Module,
    model2: nn.Module,
    example_inputs: Any,
    mode: str,
    out_dir: str | None = None,
    kwargs_dict: Mapping[str, Mapping[str, Any]] | None = None,
) -> ModelProfile:
    """Compare two stages of a model in every way, print a summary, and write all of it on one page.

    Args:
        model1: the float model for "FvsQ", the prepared one for "QvsQ", the calibrating one for "CvsQ".
        model2: a prepared or converted model for "FvsQ", the converted one for "QvsQ", the trained one for "CvsQ".
        example_inputs: a tensor, a tuple of what forward takes, or a dict of it by name.
        mode: a key of MODES.
        out_dir: folder for profiler.html and the files of every tool; "horizon_quant_debug" if None.
        kwargs_dict: arguments for the tools, by their names: ``{"featuremap_similarity": {"similarity_func": "L1"}}``.

    Raises:
        ArgumentError: an unknown mode or tool, or a model of another stage than the mode says.
    """
    given = _Given(mode, model1, model2, kwargs_dict or {})
    folder = Path("horizon_quant_debug" if out_dir is None else out_dir)
    expect_folder(folder)
    out = {"out_dir": str(folder)}
    similarity = featuremap_similarity(model1, model2, example_inputs, **given.to("featuremap_similarity", out))
    statistics = tuple(
        profile_featuremap(
            get_raw_features(model, example_inputs, **given.to("get_raw_features")),
            **given.to("profile_featuremap", {**out, "file_name": f"model{number}_statistic"}),
        )
        for number, model in ((1, model1), (2, model2))
    )
    profile = ModelProfile(
        similarity=similarity,
        statistics=(statistics[0], statistics[1]),
        called_count=get_module_called_count(
            model2, example_inputs, **given.to("get_module_called_count", {"print_tabulate": False})
        ),
        unfused=_unfused(model1, example_inputs, given) if mode == "FvsQ" else (),
        weights=_weights(model1, model2, example_inputs, given.to("compare_weights", out)) if mode == "FvsQ" else None,
        qconfigs=next(
            (
                check_qconfig(model, example_inputs, **given.to("check_qconfig", out))
                for model in (model2, model1)
                if _is_prepared(model)
            ),
            None,
        ),
        devices=check_deploy_device(model2, **given.to("check_deploy_device", {**out, "print_tabulate": False})),
    )
    write_page(folder / "profiler.html", f"Model profile, {mode}", _sections(profile))
    print(profile)
    return profile


_TOOLS = (
    *("featuremap_similarity", "get_raw_features", "profile_featuremap", "get_module_called_count"),
    *("check_unfused_operations", "compare_weights", "check_qconfig", "check_deploy_device"),
)


class _Given:
    """The arguments of a call, checked before anything runs."""

    def __init__(
        self, mode: str, model1: nn.Module, model2: nn.Module, by_tool: Mapping[str, Mapping[str, Any]]
    ) -> None:
        if mode not in MODES:
            raise ArgumentError(f"expected a mode of {list(MODES)}, got {mode!r}")
        for name, model, (stage, holds) in zip(("model1", "model2"), (model1, model2), MODES[mode], strict=True):
            if not holds(model):
                raise ArgumentError(f"{mode} expects {name} to be {stage}, got {type(model).__name__}, which is not")
        unknown = sorted(by_tool.keys() - {*_TOOLS})
        if unknown:
            raise ArgumentError(f"kwargs_dict has arguments by tool, one of {list(_TOOLS)}; got {unknown}")
        self.by_tool = by_tool

    def to(self, tool: str, ours: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the arguments of a tool: ours, and above them the user's."""
        return {**(ours or {}), **self.by_tool.get(tool, {})}


def _unfused(model: nn.Module, example_inputs: Any, given: _Given) -> tuple[tuple[str, ...], ...]:
    try:
        found = check_unfused_operations(
            model, example_inputs, **given.to("check_unfused_operations", {"print_tabulate": False})
        )
    except TraceError:  # a model of the eager mode may be none that can be traced
        return ()
    return tuple(map(tuple, found))


def _weights(
    model1: nn.Module, model2: nn.Module, example_inputs: Any, arguments: Mapping[str, Any]
) -> ComparedWeights | None:
    if not any(isinstance(module, (WeightedQAT, WeightedQuantized)) for module in model2.modules()):
        return None
    return compare_weights(model1, model2, **{"example_inputs": None, **arguments})


def _sections(profile: ModelProfile) -> list[Section]:
    """Return the page: the summary, then each tool's part."""
    counts = [(name, str(count)) for name, count in profile.called_count.items()]
    devices = [(name, *where) for name, where in profile.devices.items()]
    first, second = profile.statistics
    weights = () if profile.weights is None else profile.weights.cells()
    return [
        Section("Summary", text=str(profile)),
        *(
            Section(f"Similarity: {each.title}", each.charts, each.table)
            for each in similarity_sections(profile.similarity)
        ),
        *(Section(f"First model: {each.title}", each.charts, each.table) for each in statistic_sections(first)),
        *(Section(f"Second model: {each.title}", each.charts, each.table) for each in statistic_sections(second)),
        Section("Weights", table=Table(("name", "similarity", "largest distance"), weights)),
        Section("Types", text="" if profile.qconfigs is None else str(profile.qconfigs)),
        Section("Calls of each module", table=Table(("name", "calls"), counts)),
        Section("Separate, but fusible", table=Table(("modules",), [(", ".join(each),) for each in profile.unfused])),
        Section("Device", table=Table(("name", "device", "type"), devices)),
    ]
