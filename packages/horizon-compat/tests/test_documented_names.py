"""The documented surface: every path, name, signature and default, written out."""

from __future__ import annotations

import enum
import inspect
from importlib import import_module
from typing import Any

import pytest
import torch

from horizon_plugin_pytorch.quantization import MovingAverageMinMaxObserver, fuse_known_modules

PER_TENSOR, PER_CHANNEL = torch.per_tensor_symmetric, torch.per_channel_symmetric
FUSE_KNOWN = fuse_known_modules


_COLOR_FUNCTIONS = (
    "bgr2centered_gray(input)",
    "bgr2centered_yuv(input, swing='studio')",
    "bgr2gray(input)",
    "bgr2rgb(input)",
    "bgr2yuv(input, swing='studio')",
    "rgb2bgr(input)",
    "rgb2centered_gray(input)",
    "rgb2centered_yuv(input, swing='studio')",
    "rgb2gray(input)",
    "rgb2yuv(input, swing='studio')",
    "centered_yuv2rgb(input, swing='studio', mean=(128.0,), std=(128.0,), q_scale=0.0078125)",
    "centered_yuv2bgr(input, swing='studio', mean=(128.0,), std=(128.0,), q_scale=0.0078125)",
)

_PREDEFINED = (
    "default_qat_8bit_fake_quant_qconfig",
    "default_qat_out_8bit_fake_quant_qconfig",
    "default_qat_8bit_weight_32bit_out_fake_quant_qconfig",
    "default_qat_8bit_weight_16bit_act_fake_quant_qconfig",
    "default_qat_8bit_lsq_quant_qconfig",
    "default_calib_8bit_fake_quant_qconfig",
    "default_calib_out_8bit_fake_quant_qconfig",
    "default_calib_8bit_weight_32bit_out_fake_quant_qconfig",
    "default_calib_8bit_weight_16bit_act_fake_quant_qconfig",
)

_QCONFIG_FUNCTIONS = (
    "get_default_qconfig(activation_fake_quant='fake_quant', weight_fake_quant='fake_quant',"
    " activation_observer='min_max', weight_observer='min_max', activation_qkwargs=None, weight_qkwargs=None)",
    "get_default_qat_qconfig(dtype='qint8', weight_dtype='qint8', activation_fake_quant='fake_quant',"
    " weight_fake_quant='fake_quant', activation_qkwargs=None, weight_qkwargs=None, backend='')",
    "get_default_qat_out_qconfig(dtype='qint8', weight_fake_quant='fake_quant', weight_qkwargs=None, backend='')",
    "get_default_calib_qconfig(dtype='qint8', calib_qkwargs=None, backend='')",
)

_FX_FUNCTIONS = (
    "fuse_fx(model, fuse_custom_config_dict=None)",
    "prepare_qat_fx(model, qconfig_dict=None, prepare_custom_config_dict=None, optimize_graph=False, hybrid=False,"
    " hybrid_dict=None)",
    "convert_fx(graph_module, inplace=False, convert_custom_config_dict=None, _remove_qconfig=True, fast_mode=False)",
)

_EAGER_FUNCTIONS = (
    "fuse_modules(model, modules_to_fuse, inplace=False, fuser_func=FUSE_KNOWN, fuse_custom_config_dict=None)",
    "fuse_known_modules(mod_list, is_qat=False, additional_fuser_method_mapping=None)",
    "prepare_qat(model, mapping=None, inplace=False, optimize_graph=False, hybrid=False, optimize_kwargs=None)",
    "prepare_calibration(model, inplace=False)",
    "convert(module, mapping=None, inplace=False, remove_qconfig=True, fast_mode=False)",
)

_DEPLOYMENT_FUNCTIONS = (
    "check_model(module, example_inputs, march=None, input_source='ddr', advice=None, check_quanti_param=True)",
    "compile_model(module, example_inputs, hbm, march=None, name=None, input_source='ddr', input_layout=None,"
    " output_layout='NCHW', opt='O2', balance_factor=2, progressbar=True, jobs=16, debug=True, extra_args=None)",
    "perf_model(module, example_inputs, march=None, out_dir='.', name=None, hbm=None, input_source='ddr',"
    " input_layout=None, output_layout='NCHW', opt='O3', balance_factor=2, progressbar=True, jobs=16,"
    " layer_details=False, extra_args=None)",
    "export_hbir(module, example_inputs, hbir, march=None)",
    "visualize_model(module, example_inputs, march=None, save_path=None, show=True)",
)

# The documentation writes torch.qint8 for the dtype of these. Torch is about to drop its quantized types, so here the
# default is the text that means the same.
_MOVING_AVERAGE = (
    "(averaging_constant=0.01, dtype='qint8', qscheme=PER_TENSOR, quant_min=None, quant_max=None,"
    " is_sync_quantize=False, factory_kwargs=None)"
)
_OBSERVERS = (
    f"MovingAverageMinMaxObserver{_MOVING_AVERAGE}",
    f"MovingAveragePerTensorMinMaxObserver{_MOVING_AVERAGE}",
    "MovingAveragePerChannelMinMaxObserver(averaging_constant=0.01, ch_axis=0, dtype='qint8', qscheme=PER_CHANNEL,"
    " quant_min=None, quant_max=None, is_sync_quantize=False, factory_kwargs=None)",
    "FixedScaleObserver(scale, zero_point=0, dtype='qint8', qscheme=PER_TENSOR, ch_axis=-1)",
)
_COMMON_V2 = (
    "averaging_constant=0.01, ch_axis=-1, dtype='qint8', qscheme=PER_TENSOR, quant_min=None, quant_max=None,"
    " is_sync_quantize=False, factory_kwargs=None"
)

_FAKE_QUANTIZE = (
    "FakeQuantize(observer=MovingAverageMinMaxObserver, saturate=None, in_place=False, compat_mask=True, channel_len=1,"
    " **observer_kwargs)",
    "FakeQuantize.set_qparams(self, scale, zero_point=None)",
    "FakeQuantize.extra_repr(self)",
    "FakeQuantize.with_args(**kwargs)",
)

_DEBUG_TOOLS = (
    "model_profiler(model1, model2, example_inputs, mode, out_dir=None, kwargs_dict=None)",
    "featuremap_similarity(model1, model2, inputs, similarity_func='Cosine', threshold=None, devices=None,"
    " out_dir=None)",
    "get_raw_features(model, example_inputs, prefixes=(), types=(), device=None, preserve_int=False,"
    " use_class_name=False, skip_identity=False)",
    "profile_featuremap(featuremap, with_tensorboard=False, tensorboard_dir=None, print_per_channel_scale=False,"
    " show_per_channel=False, out_dir=None, file_name=None)",
    "check_unfused_operations(model, example_inputs, print_tabulate=True)",
    "get_module_called_count(model, example_inputs, check_leaf_module=None, print_tabulate=True)",
    "check_qconfig(model, example_inputs, prefixes=(), types=(), custom_check_func=None, out_dir=None)",
    "compare_weights(float_model, qat_quantized_model, similarity_func='Cosine', with_tensorboard=False,"
    " tensorboard_dir=None, out_dir=None)",
    "set_preserve_qat_mode(model, prefixes=(), types=(), value=True)",
    "check_deploy_device(model, print_tabulate=True, out_dir=None)",
    "script_profile(model, example_inputs, out_dir=None, march=None, mark_node_func=None,"
    " compare_with_hbdk_parser=True)",
    "compare_script_models(model1, model2, example_inputs, march=None)",
    "show_cuda_memory_consumption(model, example_inputs, device, check_leaf_module=None, out_dir=None, file_name=None,"
    " custom_backward=None)",
)

_GRAPH_MODULES = ("GraphModuleWithAttr", "ObservedGraphModule", "QuantizedGraphModule")

_CONVOLUTIONS = ("Conv2d", "ConvReLU2d", "ConvReLU62d", "ConvAdd2d", "ConvAddReLU2d", "ConvAddReLU62d")

DOCUMENTED: dict[str, tuple[str, ...]] = {
    "": ("set_march(march)", "qconfig", *_COLOR_FUNCTIONS),
    "functional": (*_COLOR_FUNCTIONS, "filter(*inputs, threshold, idx_range=None)", "abs", "argmax"),
    "march": ("March", "set_march(march)", "get_march()"),
    "dtype": ("qint8", "qint16", "qint32", "QuantDType", "qinfo(dtype)"),
    "qtensor": (
        "QTensor(data, scale, zero_point=None, dtype='qint8', per_channel_axis=-1)",
        *(f"QTensor.{name}" for name in ("data", "scale", "zero_point", "dtype", "per_channel_axis")),
        *(f"QTensor.{name}(self)" for name in ("q_scale", "q_zero_point", "q_per_channel_axis")),
        *(f"QTensor.{name}(self)" for name in ("int_repr", "dequantize")),
    ),
    "qat_mode": ("QATMode", "set_qat_mode(mode)", "get_qat_mode()"),
    "quantization": (
        "QuantStub(scale=None, zero_point=None, qconfig=None)",
        "DeQuantStub",
        "QConfig(activation, weight)",
        "March",
        "FakeQuantState",
        "set_fake_quantize(model, state)",
        "load_observer_params(src, dst)",
        "register_fusion_pattern(pattern)",
        "ConvBNAddReLUFusion",
        "ConvBNAddedReLUFusion",
        "MatchAllNode",
        "PACTFakeQuantize",
        "default_8bit_fake_quant",
        "default_weight_8bit_fake_quant",
        "per_channel_qat_8bit_qconfig",
        *_FX_FUNCTIONS,
        *_EAGER_FUNCTIONS,
        "prepare_calibration_fx(model, qconfig_dict=None, prepare_custom_config_dict=None, optimize_graph=False,"
        " hybrid=False, hybrid_dict=None)",
        *_DEPLOYMENT_FUNCTIONS,
        *_FAKE_QUANTIZE,
        *_OBSERVERS,
        *_QCONFIG_FUNCTIONS,
        *_PREDEFINED,
    ),
    "quantization.qconfig": (*_QCONFIG_FUNCTIONS, *_PREDEFINED),
    "quantization.observer": (*_OBSERVERS, "PerChannelMinMaxObserver", "ClipObserver", "ClipStd"),
    "quantization.observer_v2": (
        f"MinMaxObserver({_COMMON_V2})",
        f"PercentileObserver(percentile=99.99, bins=2048, {_COMMON_V2})",
        f"MSEObserver(stride=1, {_COMMON_V2})",
        f"KLObserver(bins=512, update_interval=1, {_COMMON_V2})",
        f"MixObserver({_COMMON_V2})",
        "ClipObserver",
        "ClipStd",
        "FixedScaleObserver(scale, zero_point=0, dtype='qint8', qscheme=PER_TENSOR, ch_axis=-1)",
    ),
    "quantization.fake_quantize": ("FakeQuantState", "_LearnableFakeQuantize", *_FAKE_QUANTIZE),
    "quantization.quantize_fx": _FX_FUNCTIONS,
    "quantization.fx.graph_module": _GRAPH_MODULES,
    "fx.graph_module": _GRAPH_MODULES,
    "jit": (
        "save(module, f, _extra_files=None)",
        "load(f, map_location=None, _extra_files=None)",
        "to_device(module, device)",
    ),
    "fx.fx_helper": ("wrap", "CustomTracer"),
    "utils.fx_helper": ("wrap",),
    "utils.onnx_helper": (
        "export_to_onnx(model, args, f, export_params=True, verbose=False, training=None, input_names=None,"
        " output_names=None, operator_export_type=None, opset_version=11, do_constant_folding=True, dynamic_axes=None,"
        " keep_initializers_as_inputs=None, custom_opsets=None)",
        "export_quantized_onnx(model, args, f)",
    ),
    "utils.quant_profiler": _DEBUG_TOOLS,
    "nn": (
        "Interpolate(*, scale_factor=None, size=None, mode='nearest', align_corners=None, recompute_scale_factor=None)",
        "Pow(exponent)",
        *(
            "AnchorGenerator",
            "LayerNorm(normalized_shape, eps=1e-05, elementwise_affine=True, bias=True, device=None, dtype=None, *,"
            " rsqrt_kwargs=None)",
            "GridSample(mode='bilinear', padding_mode='zeros', align_corners=None)",
            "MultiScaleRoIAlign(featmap_names, output_size, sampling_ratio, *, canonical_scale=224, canonical_level=4)",
            "Selu",
            "BgrToYuv444(channel_reversal=False)",
            "ChannelShuffle(shuffle_index)",
        ),
        "DetectionPostProcess(score_threshold=0, regression_scale=None, background_class_idx=None, size_threshold=None,"
        " image_size=None, pre_decode_top_n=None, post_decode_top_n=None, iou_threshold=None, pre_nms_top_n=None,"
        " post_nms_top_n=None, nms_on_each_level=False, mode='normal')",
        "DetectionPostProcessV1(num_classes, box_filter_threshold, class_offsets, use_clippings, image_size,"
        " nms_threshold, pre_nms_top_k, post_nms_top_k, nms_padding_mode=None, nms_margin=0.0, use_stable_sort=None,"
        " bbox_min_hw=(0, 0))",
        "PointPillarsScatter(output_shape=None)",
        "RcnnPostProcess(image_size=(1024, 1024), nms_threshold=0.3, box_filter_threshold=0.1, num_classes=1,"
        " post_nms_top_k=100, delta_mean=(0, 0, 0, 0), delta_std=(1, 1, 1, 1))",
        "Correlation(kernel_size=1, max_displacement=1, stride1=1, stride2=1, pad_size=0, is_multiply=True)",
        *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Div", "Erf", "Exp", "Floor"),
        *("HardLog", "Reciprocal", "Sin", "Sinh", "Sqrt", "Tan"),
    ),
    "nn.functional": (
        "filter(*inputs, threshold, idx_range=None)",
        "point_pillars_preprocess(points_list, pc_range, voxel_size, max_voxels, max_points_per_voxel, use_max,"
        " norm_range, norm_dims)",
    ),
    "nn.quantized": ("FloatFunctional", "QFunctional", "Conv2d", "SegmentLUT"),
    "nn.quantized.functional_modules": (
        "QFunctional",
        "FloatFunctional",
        *(
            f"FloatFunctional.{name}(self, x, y)"
            for name in ("add", "sub", "mul", "add_scalar", "mul_scalar", "matmul", "maximum", "minimum", "add_relu")
        ),
        "FloatFunctional.cat(self, x, dim=0)",
        "FloatFunctional.sum(self, x, dim=None, keepdim=False)",
        "FloatFunctional.mean(self, x, dim=None, keepdim=False)",
    ),
    "nn.quantized.conv2d": _CONVOLUTIONS,
    "nn.quantized.quantize": ("Quantize", "DeQuantize"),
    "nn.quantized.relu": ("ReLU",),
    "nn.quantized.segment_lut": ("SegmentLUT",),
    "nn.quantized.interpolate": ("Interpolate",),
    "nn.quantized.upsampling": ("Upsample", "UpsamplingBilinear2d"),
    "nn.quantized.avg_pool2d": ("AvgPool2d",),
    "nn.quantized.adaptive_avg_pool2d": ("AdaptiveAvgPool2d",),
    "nn.qat": _CONVOLUTIONS,
    "nn.qat.conv2d": _CONVOLUTIONS,
    "nn.qat.batchnorm": ("BatchNorm2d",),
    "nn.qat.relu": ("ReLU",),
    "nn.qat.functional_modules": ("FloatFunctional",),
    "nn.qat.segment_lut": ("SegmentLUT",),
    "nn.qat.interpolate": ("Interpolate",),
    "nn.qat.avg_pool2d": ("AvgPool2d",),
    "nn.qat.upsampling": ("Upsample", "UpsamplingBilinear2d"),
    "nn.qat.stubs": ("QuantStub", "DeQuantStub"),
}
"""Module below horizon_plugin_pytorch -> what is documented of it: names, or names with their parameters."""

ENTRIES = [
    pytest.param(path, entry, id=f"{path}:{entry[:40]}") for path, names in DOCUMENTED.items() for entry in names
]


def module(path: str) -> Any:
    return import_module(".".join(filter(None, ("horizon_plugin_pytorch", path))))


def documented_parameters(entry: str) -> list[inspect.Parameter]:
    """Parse ``name(parameters)``."""
    names: dict[str, Any] = {}
    header = "documented(" + entry.split("(", 1)[1]
    exec(f"def {header}: ...", globals(), names)
    return list(inspect.signature(names["documented"]).parameters.values())


def mismatches(documented: list[inspect.Parameter], actual: inspect.Signature) -> list[str]:
    """Compare name, place, kind and default of each documented parameter; further ones need a default."""
    found, offered = [], dict(actual.parameters)
    for place, wanted in enumerate(documented):
        if wanted.kind is inspect.Parameter.VAR_KEYWORD:
            if not any(p.kind is wanted.kind for p in offered.values()):
                found.append("no keyword arguments beyond those listed")
            continue
        given = offered.get(wanted.name)
        if given is None or given.kind is not wanted.kind or given.default != wanted.default:
            found.append(f"{wanted}: it has {given}")
        elif wanted.kind is not inspect.Parameter.KEYWORD_ONLY and list(offered).index(wanted.name) != place:
            found.append(f"{wanted} is not parameter {place}")
    names = {p.name for p in documented}
    fixed = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    found += [
        f"{p} is required"
        for p in offered.values()
        if p.name not in names and p.default is p.empty and p.kind not in fixed
    ]
    return found


@pytest.mark.parametrize(("path", "entry"), ENTRIES)
def test_documented_name_exists_with_its_parameters(path: str, entry: str) -> None:
    value = module(path)
    for name in entry.split("(", 1)[0].split("."):
        value = getattr(value, name)
    if "(" in entry:
        assert mismatches(documented_parameters(entry), inspect.signature(value)) == []


ENUMS = {
    "march.March": {"BERNOULLI2": "bernoulli2", "BAYES": "bayes", "BAYES_E": "bayes-e"},
    "quantization.FakeQuantState": {"QAT": "qat", "CALIBRATION": "calibration", "VALIDATION": "validation"},
}


@pytest.mark.parametrize("path", ENUMS)
def test_enums_have_the_documented_members(path: str) -> None:
    home, name = path.split(".")
    members: type[enum.Enum] = getattr(module(home), name)

    assert {member.name: member.value for member in members} == ENUMS[path]


@pytest.mark.parametrize("name", ["BERNOULLI", "NASH_E", "NASH_M", "NASH_P", "NASH_H", "NASH_B", "Bayes"])
def test_march_that_is_not_supported_names_those_that_are(name: str) -> None:
    march = module("march").March

    with pytest.raises(AttributeError, match=f"unknown march March.{name}; supported are 'bernoulli2', 'bayes'"):
        getattr(march, name)
    assert not hasattr(march, name)


def test_qat_modes_have_the_documented_names() -> None:
    assert set(module("qat_mode").QATMode.__members__) == {"FuseBN", "WithBN", "WithBNReverseFold"}


@pytest.mark.parametrize("path", ["functional", "march"])
def test_root_and_submodule_offer_the_same_objects(path: str) -> None:
    shared = {entry.split("(")[0] for entry in DOCUMENTED[path]} & set(module("").__all__)

    assert shared
    assert all(getattr(module(""), name) is getattr(module(path), name) for name in shared)


def test_qconfigs_are_one_object_at_all_their_paths() -> None:
    for name in _PREDEFINED:
        homes = (module("").qconfig, module("quantization"), module("quantization.qconfig"))
        assert len({id(getattr(home, name)) for home in homes}) == 1


def test_march_of_the_quantization_package_is_the_march() -> None:
    assert module("quantization").March is module("march").March


def test_fake_quantize_defaults_to_the_documented_observer() -> None:
    fake_quantize = module("quantization").FakeQuantize()

    assert type(fake_quantize.activation_post_process) is MovingAverageMinMaxObserver


@pytest.mark.parametrize("path", ["fx.fx_helper", "utils.fx_helper"])
def test_wrap_is_called_with_or_without_skip_compile(path: str) -> None:
    wrap = module(path).wrap

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    for decorate in (wrap(), wrap(skip_compile=True), wrap(True), wrap):
        assert torch.equal(decorate(function)(torch.ones(1)), torch.full((1,), 2.0))
