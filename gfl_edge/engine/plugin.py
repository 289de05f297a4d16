"""TensorRT's plugin GflNms: finding its library and registering it, for models that were exported with --nms plugin."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING

from gfl_edge.engine.flavor import LIBRARY_OF, Flavor, load_flavor
from gfl_edge.errors import BackendError, InputError, MissingDependencyError
from gfl_edge.files import is_file
from gfl_edge.ops.onnx_limits import NMS_OP

NAME, VERSION, NAMESPACE = NMS_OP, "1", "gfl_edge"  # as TensorRT's registry knows it
LIBRARY = "libgfl_edge_plugin.so"
VARIABLE = "GFL_EDGE_PLUGIN"  # environment: the path of the library

PACKAGE = Path(__file__).resolve().parent.parent
BUILD_COMMAND = "cmake -S plugins -B plugins/build -DTENSORRT_ROOT=... && cmake --build plugins/build"


def load_plugin(flavor: Flavor, beside: Path) -> str:
    """Have GflNms in TensorRT's registry, whether or not it is there already.

    The library that ``GFL_EDGE_PLUGIN`` names is taken, else the first of those beside the model, in the package, in
    the checkout's ``plugins/build``, and where the system looks for libraries.

    Args:
        flavor: which TensorRT.
        beside: folder of the ONNX file or engine.

    Returns:
        The library that was loaded; empty if the plugin was registered before.

    Raises:
        InputError: TensorRT-RTX, which takes no plugins.
        MissingDependencyError: there is no such library; says where it was looked for and how to build it.
        BackendError: it is there and cannot be loaded.
    """
    if flavor == "rtx":
        raise InputError(f"{LIBRARY_OF[flavor]} takes no plugins: export the model with --nms graph, none or raw")
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = load_flavor(flavor)
    registry = trt.get_plugin_registry()
    # Not by get_creator(), which logs an error where the plugin is not there yet
    ours = (it for it in registry.all_creators or () if it.name == NAME)
    if any((it.plugin_version, it.plugin_namespace) == (VERSION, NAMESPACE) for it in ours):
        return ""
    library = find_library(beside)
    handle = registry.load_library(library)
    if registry.get_creator(NAME, VERSION, NAMESPACE) is None:
        missing = f"{library} holds no {NAME} version {VERSION} of {NAMESPACE}"
        found = f"{library} cannot be loaded" if handle is None else missing
        raise BackendError(
            f"TensorRT {trt.__version__}: {found} ({_loader_error(library) or 'its log says more'}). "
            f"Build it against the headers of this TensorRT, with: {BUILD_COMMAND}"
        )
    return library


def find_library(beside: Path) -> str:
    """The path of the plugin's library, or its bare name where only the system's loader can find it.

    Raises:
        MissingDependencyError: see :func:`load_plugin`.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not is_file(named):
            raise MissingDependencyError(
                f"{VARIABLE} is {named[:200]!r}, which is no file. Name the library {LIBRARY} there"
            )
        return str(Path(named).resolve())
    folders = (beside.resolve(), PACKAGE, PACKAGE.parent / "plugins" / "build")
    for folder in folders:
        if (folder / LIBRARY).is_file():
            return str(folder / LIBRARY)
    if not _loader_error(LIBRARY):
        return LIBRARY
    raise MissingDependencyError(
        f"the model needs TensorRT's plugin {NAME}, and {LIBRARY} is neither in {', '.join(map(str, folders))} nor on "
        f"the system's library path; {VARIABLE} is not set. Build it in the checkout with: {BUILD_COMMAND}, and put it "
        "beside the model, or export with --nms graph, which needs no plugin"
    )


def _loader_error(library: str) -> str:
    """Why the system's loader cannot load a library; empty if it can."""
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return str(error)
    return ""
