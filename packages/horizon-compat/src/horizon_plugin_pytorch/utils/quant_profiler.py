"""Debug tools: which layer of a quantized model is bad, and what each one gets and gives."""

from __future__ import annotations

from bpu_deploy_tools.profiler import compare_script_models as compare_script_models
from bpu_deploy_tools.profiler import script_profile as script_profile
from bpu_qat_nn import set_preserve_qat_mode as set_preserve_qat_mode
from bpu_qat_nn.profiler import check_deploy_device as check_deploy_device
from bpu_qat_nn.profiler import check_qconfig as check_qconfig
from bpu_qat_nn.profiler import check_unfused_operations as check_unfused_operations
from bpu_qat_nn.profiler import compare_weights as compare_weights
from bpu_qat_nn.profiler import featuremap_similarity as featuremap_similarity
from bpu_qat_nn.profiler import get_module_called_count as get_module_called_count
from bpu_qat_nn.profiler import get_raw_features as get_raw_features
from bpu_qat_nn.profiler import model_profiler as model_profiler
from bpu_qat_nn.profiler import profile_featuremap as profile_featuremap
from bpu_qat_nn.profiler import show_cuda_memory_consumption as show_cuda_memory_consumption
