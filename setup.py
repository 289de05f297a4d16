"""What pyproject.toml cannot say: the wheel carries the source of the CUDA kernels and of DeepStream's parser.

Their only copies lie in plugins/.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# Where the package looks for them, see gfl_edge/cuda/kernels.py
KERNELS = {
    f"gfl_edge/cuda/source/{path.name}": str(path)
    for path in (*sorted(Path("plugins/src").glob("*.cuh")), Path("plugins/include/gfl_kernels.h"))
}
PARSER = ("CMakeLists.txt", "gfl_deepstream.cpp", "gfl_deepstream.h")  # see gfl_edge/serving/deepstream.py
SOURCES = KERNELS | {f"gfl_edge/serving/parser/{name}": f"plugins/deepstream/{name}" for name in PARSER}


class BuildWithSources(build_py):
    """Also copies this source, except for an editable install, which reads it where it lies."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            for target, source in SOURCES.items():
                path = Path(self.build_lib, target)
                path.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(source, str(path))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """The files that are installed."""
        return [*super().get_outputs(include_bytecode), *(str(Path(self.build_lib, target)) for target in SOURCES)]

    def get_output_mapping(self) -> dict[str, str]:
        """The installed files and what they are made of."""
        sources = {str(Path(self.build_lib, target)): source for target, source in SOURCES.items()}
        return {**super().get_output_mapping(), **sources}

    def get_source_files(self) -> list[str]:
        """What a source distribution needs."""
        return [*super().get_source_files(), *SOURCES.values()]


setup(cmdclass={"build_py": BuildWithSources})
