"""What options of TensorRT-RTX's builder do to the size of an engine: NanoDet-Plus-m-416 in FP16."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from benchmarks.artifacts.contents import contents
from benchmarks.models import export
from gfl_edge.engine.flavor import heard, load_flavor, logger_of
from gfl_edge.engine.groups import widen_groups
from gfl_edge.spec import INPUT_NAME, read_spec

logger = logging.getLogger(__name__)

MODEL, TARGETS = "nanodet-plus-m-416", ("sm75", "sm86")
FLAGS = (
    "WEIGHT_STREAMING",
    "REFIT",
    "STRIP_PLAN",
    "VERSION_COMPATIBLE",
    "SPARSE_WEIGHTS",
    "DISABLE_COMPILATION_CACHE",
    "DIRECT_IO",
)
Change = Callable[[Any, Any], None]  # of a builder's configuration, with the module of TensorRT-RTX


def measure(folder: Path) -> dict[str, Any]:
    """Build with each option, and with groups as they are exported and as they are widened."""
    path = export(MODEL, folder, "fp16")
    exported, hw = path.read_bytes(), read_spec(path).input_hw
    rows = []
    for target in TARGETS:
        model = onnx.load_model_from_string(exported)
        convolutions = widen_groups(model, [target])
        for name, content in (("groups as exported", exported), ("wider groups", model.SerializeToString())):
            logger.info("== %s, %s", target, name)
            rows.append({"target": target, "option": name, **described(build(content, hw, target))})
        rows[-1]["convolutions_widened"] = convolutions
    for name, change in changes().items():
        logger.info("== %s", name)
        rows.append({"target": TARGETS[0], "option": name, **described(build(exported, hw, TARGETS[0], change))})
    return {"model": MODEL, "precision": "fp16", "onnx_bytes": len(exported), "rows": rows}


def changes() -> dict[str, Change]:
    """What is tried, by name, on groups as they are exported."""
    found: dict[str, Change] = {}
    for level in (0, 5):
        found[f"builder_optimization_level {level}"] = _setting("builder_optimization_level", level)
    found["max_num_tactics 1"] = _setting("max_num_tactics", 1)
    found["max_aux_streams 0"] = _setting("max_aux_streams", 0)
    found["tiling_optimization_level FULL"] = lambda config, trt: setattr(
        config, "tiling_optimization_level", trt.TilingOptimizationLevel.FULL
    )
    found["profiling_verbosity NONE"] = lambda config, trt: setattr(
        config, "profiling_verbosity", trt.ProfilingVerbosity.NONE
    )
    found["hardware_compatibility_level SAME_COMPUTE_CAPABILITY"] = lambda config, trt: setattr(
        config, "hardware_compatibility_level", trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    )
    found["set_tactic_sources none"] = lambda config, _: config.set_tactic_sources(0)
    for flag in FLAGS:
        found[f"flag {flag}"] = _flag(flag)
    return found


def _setting(name: str, value: int) -> Change:
    return lambda config, _: setattr(config, name, value)


def _flag(name: str) -> Change:
    return lambda config, trt: config.set_flag(getattr(trt.BuilderFlag, name))


def build(content: bytes, input_hw: tuple[int, int], target: str, change: Change | None = None) -> bytes | str:
    """The engine of an ONNX file by TensorRT-RTX, or its last message where it makes none."""
    trt: Any = load_flavor("rtx")
    trt_logger = logger_of("rtx")
    builder = trt.Builder(trt_logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt_logger)
    assert parser.parse(content)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT_NAME, *[(1, *input_hw, 3)] * 3)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), 0)
    if change is not None:
        change(config, trt)
    messages: deque[str] = deque(maxlen=1)
    with heard(messages):
        engine = builder.build_serialized_network(network, config)
    return messages[-1] if engine is None else bytes(engine)


def described(engine: bytes | str) -> dict[str, Any]:
    """As it stands in the results."""
    if isinstance(engine, str):
        return {"engine_bytes": None, "error": engine.partition(" (")[0]}
    return {"engine_bytes": len(engine), **contents(engine)}
