"""Which optional packages are installed, and load."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata

from gfl_edge import optional
from gfl_edge.doctor.findings import Finding
from gfl_edge.errors import MissingDependencyError


@dataclass(frozen=True)
class Package:
    """An optional package.

    Attributes:
        module: what is imported.
        use: what it is for.
        distributions: what pip may call it.
        extra: of gfl-edge, which brings it; "" for what comes with gfl-edge itself.
        repair: the command for one that is installed and does not load; default: install it again.
    """

    module: str
    use: str
    distributions: tuple[str, ...]
    extra: str = ""
    repair: str = ""

    @property
    def install(self) -> str:
        """The command that adds it."""
        return f"pip install 'gfl-edge[{self.extra}]'" if self.extra else f"pip install {self.distributions[0]}"

    @property
    def reinstall(self) -> str:
        """The command that replaces it by the same again."""
        return f"pip install --force-reinstall {self.distributions[0]}"


CPU = (
    Package("numpy", "arrays", ("numpy",)),
    Package("onnx", "reads models", ("onnx",), "cpu"),
    Package("openvino", "runs ONNX files, the faster", ("openvino",), "cpu"),
    Package("onnxruntime", "runs ONNX files", ("onnxruntime", "onnxruntime-gpu"), "cpu"),
    Package("pydantic", "checks what files say of a model", ("pydantic",)),
)
# Of these only the presence is looked at: they take long to import, and only a checkout uses them
TOOLS = (
    Package("tqdm", "lines of progress", ("tqdm",)),
    Package("pycocotools", "gfl-edge eval", ("pycocotools",), "eval"),
    Package("torch", "export and training, from a checkout", ("torch",), "export"),
    Package("onnxsim", "export, from a checkout", ("onnxsim",), "export"),
    Package("matplotlib", "plots", ("matplotlib",), "report"),
    Package("PIL", "class names beyond ASCII on images", ("pillow",), "text"),
)


def examine_cpu() -> list[Finding]:
    """What runs models on the CPU."""
    return [loaded("CPU", package) for package in CPU]


def examine_tools() -> list[Finding]:
    """What is not needed to run a detector."""
    return [
        Finding("Tools", package.module, "ok", f"{_version(package)}: {package.use}".removeprefix(": "))
        if _is_there(package.module)
        else Finding("Tools", package.module, "missing", package.use, package.install)
        for package in TOOLS
    ]


def loaded(section: str, package: Package) -> Finding:
    """Import ``package`` and say what came of it."""
    if not _is_there(package.module):
        return Finding(section, package.module, "missing", package.use, package.install)
    try:
        module = optional.load(package.module)
    except Exception as error:  # its own libraries can fail in any way
        if isinstance(error, MissingDependencyError) and "stubs only" in str(error):
            return Finding(section, package.module, "missing", package.use, package.install)
        # What the library says of why it does not load, without our own advice around it
        cause = error.__cause__ if isinstance(error, MissingDependencyError) and error.__cause__ else error
        reason = f"does not load: {type(cause).__name__}: {cause}"
        return Finding(section, package.module, "problem", reason, package.repair or package.reinstall)
    version = _version(package) or str(getattr(module, "__version__", "of unknown version"))
    return Finding(section, package.module, "ok", f"{version}: {package.use}")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a parent package that does not load, a module without a spec
        return False


def _version(package: Package) -> str:
    for distribution in package.distributions:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return ""
