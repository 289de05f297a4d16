"""What pyproject.toml cannot say: the wheel carries the CUDA kernels' source, whose only copy lies in plugins/."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# Where the package looks for them, see gfl_edge/cuda/kernels.py
KERNELS = {
    f"gfl_edge/cuda/source/{path.name}": str(path)
    for path in (*sorted(Path("plugins/src").glob("*.cuh")), Path("plugins/include/gfl_kernels.h"))
}


class BuildWithKernels(build_py):
    """Also copies the kernels' source, except for an editable install, which reads it where it lies."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            for target, source in KERNELS.items():
                path = Path(self.build_lib, target)
                path.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(source, str(path))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """The files that are installed."""
        return [*super().get_outputs(include_bytecode), *(str(Path(self.build_lib, target)) for target in KERNELS)]

    def get_output_mapping(self) -> dict[str, str]:
        """The installed files and what they are made of."""
        kernels = {str(Path(self.build_lib, target)): source for target, source in KERNELS.items()}
        return {**super().get_output_mapping(), **kernels}

    def get_source_files(self) -> list[str]:
        """What a source distribution needs."""
        return [*super().get_source_files(), *KERNELS.values()]


setup(cmdclass={"build_py": BuildWithKernels})
