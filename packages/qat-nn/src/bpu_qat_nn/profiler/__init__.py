"""Find the layer that makes a quantized model bad, and look into models of every stage.

===============================  ====================================================================================
question                         tool
===============================  ====================================================================================
which layer is bad?              ``model_profiler`` (everything in one call), ``featuremap_similarity``
what does a layer get and give?  ``get_raw_features``, ``profile_featuremap``, ``compare_weights``
is it quantized as I meant?      ``check_qconfig``, ``check_deploy_device``
what of the model's structure?   ``check_unfused_operations``, ``get_module_called_count``
where does the memory go?        ``show_cuda_memory_consumption``
===============================  ====================================================================================

All take models of every stage that the question makes sense for, calibrating or not, traced or of the eager mode, and
leave them as they were. They write files only where ``out_dir`` is given; only ``model_profiler`` has a default for it.
"""

from __future__ import annotations

from .called_count import get_module_called_count
from .cuda_memory import MemoryRow, show_cuda_memory_consumption
from .deploy_device import check_deploy_device
from .measures import SIMILARITIES, Similarity
from .model_profiler import MODES, ModelProfile, model_profiler
from .qconfigs import QConfigInfo, check_qconfig
from .raw_features import RawFeature, get_raw_features
from .record import Call, Recording, record
from .similarity import FeaturemapSimilarity, SimilarityRow, featuremap_similarity
from .statistics import FeatureStatistics, StatisticRow, profile_featuremap
from .unfused import check_unfused_operations
from .weights import ComparedWeights, compare_weights

__all__ = [
    "MODES",
    "SIMILARITIES",
    "Call",
    "ComparedWeights",
    "FeatureStatistics",
    "FeaturemapSimilarity",
    "MemoryRow",
    "ModelProfile",
    "QConfigInfo",
    "RawFeature",
    "Recording",
    "Similarity",
    "SimilarityRow",
    "StatisticRow",
    "check_deploy_device",
    "check_qconfig",
    "check_unfused_operations",
    "compare_weights",
    "featuremap_similarity",
    "get_module_called_count",
    "get_raw_features",
    "model_profiler",
    "profile_featuremap",
    "record",
    "show_cuda_memory_consumption",
]
