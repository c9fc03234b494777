"""Peers: training steps of other libraries that quantize, over the float step, each in an environment of its own.

Every peer quantizes all weights and activations to int8 by its documented default. With PEERS_HOME set, an environment
is made there for each that builds on this one; a peer that does not install or run is reported with its message.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from measure import Comparison, compare, take_turns
from setting import Setting, inputs, network, training_step
from torch import Tensor, nn
from torchvision_operators import declare_operators

__all__ = ["PEERS", "Peer", "compare_peers"]


def _torch_ao(model: nn.Module, x: Tensor) -> nn.Module:
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    made: nn.Module = prepare_qat_fx(model.train(), get_default_qat_qconfig_mapping("x86"), (x,))
    return made


def _torchao(model: nn.Module, x: Tensor) -> nn.Module:
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e  # type: ignore[import-not-found]
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (  # type: ignore[import-not-found]
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config(is_qat=True))
    made: nn.Module = prepare_qat_pt2e(torch.export.export(model, (x,), strict=True).module(), quantizer)
    return made


def _brevitas(model: nn.Module, x: Tensor) -> nn.Module:
    from brevitas.graph.quantize import preprocess_for_quantize, quantize  # type: ignore[import-not-found]

    made: nn.Module = quantize(preprocess_for_quantize(model.eval()))
    return made.train()


class _Held(nn.Module):
    """Holds a network as its only child."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        y: Tensor = self.network(x)
        return y


def _nncf(model: nn.Module, x: Tensor) -> nn.Module:
    import nncf  # type: ignore[import-not-found]

    # NNCF adds a child without a forward function, which an nn.Sequential would run.
    made: nn.Module = nncf.quantize(_Held(model.eval()), nncf.Dataset([x]), subset_size=1)
    return made.train()


def _aimet(model: nn.Module, x: Tensor) -> nn.Module:
    from aimet_torch.quantsim import QuantizationSimModel  # type: ignore[import-not-found]

    simulated = QuantizationSimModel(model.eval(), x)
    simulated.compute_encodings(lambda module, _: module(x), None)
    made: nn.Module = simulated.model
    return made.train()


def _mct(model: nn.Module, x: Tensor) -> nn.Module:
    import model_compression_toolkit as mct  # type: ignore[import-not-found]

    prepare = mct.qat.pytorch_quantization_aware_training_init_experimental
    made: nn.Module = prepare(model.eval(), lambda: iter([[x]]))[0]
    return made.train()


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A library: what installs it (nothing: it comes with torch), and how a network is prepared for training."""

    requirement: str
    prepare: Callable[[nn.Module, Tensor], nn.Module]


PEERS = {
    "torch.ao FX": Peer(requirement="", prepare=_torch_ao),
    "torchao PT2E": Peer(requirement="torchao", prepare=_torchao),
    "Brevitas": Peer(requirement="brevitas", prepare=_brevitas),
    "NNCF": Peer(requirement="nncf", prepare=_nncf),
    "AIMET": Peer(requirement="aimet-torch", prepare=_aimet),
    "MCT": Peer(requirement="model-compression-toolkit", prepare=_mct),
}


def compare_peers(setting: Setting, rounds: int, networks: Sequence[str]) -> Iterator[Comparison]:
    """Give a line for every peer and network, or what was told instead."""
    for name, peer in PEERS.items():
        python, told = _environment(peer.requirement)
        for model in networks if python else ():
            here = json.dumps([name, asdict(replace(setting, network=model)), rounds])
            done = subprocess.run([python, __file__, here], capture_output=True, text=True, timeout=1200, check=False)
            if done.returncode == 0:
                yield Comparison(**json.loads(done.stdout.splitlines()[-1]))
            else:
                told = _last_line(done.stderr)
        if told:
            yield _told(name, told)


def _environment(requirement: str) -> tuple[str, str]:
    """Return the interpreter that has a requirement, or none and what pip said."""
    home = os.environ.get("PEERS_HOME")
    if not requirement or home is None:
        return sys.executable, ""
    folder = Path(home, requirement)
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "base.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [str(python), "-m", "pip", "install", "--quiet", requirement]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            return "", _last_line(done.stderr)
    return str(python), ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a message"


def _told(name: str, message: str) -> Comparison:
    told = {"told": f"not measured: {message}"}
    return replace(compare("peers", told, (name, [1.0]), ("float step", [1.0])), rounds=0)


def measure(name: str, setting: Setting, rounds: int) -> Comparison:
    """Return the line of one peer, in this environment."""
    warnings.simplefilter("ignore")
    declare_operators()
    x = inputs(setting)
    runs = {
        f"{name}, step": training_step(PEERS[name].prepare(network(setting), x), x),
        "float step": training_step(network(setting), x),
    }
    ours, theirs = take_turns(runs, rounds, threads=setting.threads).items()
    return compare("peers", asdict(setting), ours, theirs)


if __name__ == "__main__":
    given: Any = json.loads(sys.argv[1])
    line = measure(given[0], Setting(**given[1]), given[2])
    print(json.dumps(line.as_dict()))
