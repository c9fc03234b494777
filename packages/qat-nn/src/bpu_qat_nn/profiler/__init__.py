"""Find the layer that makes a quantized model bad, and look into models of every stage.

===========================  ================================================================================
which layer is bad           ``model_profiler`` (all of it in one call), ``featuremap_similarity``
what a layer sees            ``profile_featuremap`` of ``get_raw_features``, ``compare_weights``
what was done to the model   ``check_unfused_operations``, ``get_module_called_count``
===========================  ================================================================================

All take models of every stage, calibrating or not, traced or of the eager mode, and leave them as they were.
"""

from __future__ import annotations

from .called_count import get_module_called_count
from .measures import SIMILARITIES, Similarity
from .record import Call, Recording, record
from .similarity import FeaturemapSimilarity, SimilarityRow, featuremap_similarity
from .unfused import check_unfused_operations
from .weights import ComparedWeights, compare_weights

__all__ = [
    "SIMILARITIES",
    "Call",
    "ComparedWeights",
    "FeaturemapSimilarity",
    "Recording",
    "Similarity",
    "SimilarityRow",
    "check_unfused_operations",
    "compare_weights",
    "featuremap_similarity",
    "get_module_called_count",
    "record",
]
