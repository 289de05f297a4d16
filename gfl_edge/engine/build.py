"""From an ONNX file to a TensorRT engine, with either flavor: full TensorRT (10, 11) or TensorRT-RTX."""

from __future__ import annotations

import hashlib
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from gfl_edge import optional
from gfl_edge.engine.flavor import Flavor, available_flavors, heard, load_flavor, logger_of
from gfl_edge.engine.groups import FIRST_AMPERE_SM, widen_groups
from gfl_edge.engine.options import BuildOptions, TimingCache
from gfl_edge.engine.plugin import load_plugin
from gfl_edge.engine.sidecar import ENGINE_SUFFIX, Sidecar, sidecar_path
from gfl_edge.errors import BuildError, InputError, MissingDependencyError, ModelFileError, PrecisionError
from gfl_edge.files import check_output, sha256, size_bytes, write_together
from gfl_edge.ops.onnx_graph import fixed_batch, without_nms
from gfl_edge.parsing.numbers import MAX_BATCH, whole_number
from gfl_edge.progress import progress_bar
from gfl_edge.spec import INPUT_NAME, ExportedNms, ModelSpec, Precision, read_spec

logger = logging.getLogger(__name__)

CURRENT = "current"  # the GPU in this machine
JETSON_TARGETS = ("sm72", "sm87", "sm101", "sm110")  # Xavier, Orin, Thor by CUDA 12 and 13
DEFAULT_TARGET = "sm75"  # RTX 2080 Ti, the GPU of the paper's speed figures; built for where no GPU says otherwise


@dataclass(frozen=True)
class BuildPlan:
    """What is to be built, after every "auto" and "current" is settled."""

    onnx: Path
    flavor: Flavor
    targets: tuple[str, ...]  # "sm75", ...
    max_batch: int = 1
    spec: ModelSpec | None = None  # of the ONNX file, where that was read before; None: it is read from the file
    options: BuildOptions = field(default_factory=BuildOptions)
    timing_cache: Path | None = None  # read and written by full TensorRT

    def engine_name(self, spec: ModelSpec) -> str:
        """``nanodet-plus-m-416-fp16-rtx-sm75.engine``; parts that are not the default are named too."""
        batch = [f"b{self.max_batch}"] if self.max_batch > 1 else []
        return "-".join((spec.file_stem, *batch, self.flavor, *self.targets)) + ENGINE_SUFFIX


def plan(
    onnx: Path, flavor: str = "auto", targets: Sequence[str] = (), max_batch: int = 1, **options: Any
) -> BuildPlan:
    """What is to be built of ``onnx`` on this machine; see :func:`settle`. ``options`` are further fields."""
    return BuildPlan(onnx, *settle(flavor, targets, max_batch), max_batch, **options)


def settle(flavor: str = "auto", targets: Sequence[str] = (), max_batch: int = 1) -> tuple[Flavor, tuple[str, ...]]:
    """Flavor and targets for this machine, whatever the model.

    Args:
        flavor: "tensorrt", "rtx" or "auto": full TensorRT where it is installed and the target is this machine's GPU,
            else TensorRT-RTX.
        targets: "sm75" ..., or "current"; empty means this machine's GPU, or ``DEFAULT_TARGET`` where there is none.
        max_batch: largest batch that the engine will accept.

    Raises:
        InputError: unknown flavor or target, or full TensorRT with another GPU as target.
        MissingDependencyError: no TensorRT of the flavor is installed.
        BackendError: "current" without a GPU.
    """
    whole_number("--max-batch", max_batch, 1, MAX_BATCH)
    device_sm = current_sm(required=CURRENT in targets)
    named = targets or (device_sm or DEFAULT_TARGET,)
    wanted = tuple(dict.fromkeys(device_sm if it == CURRENT and device_sm else it.lower() for it in named))
    chosen = _choose_flavor(flavor, wanted, device_sm)
    if chosen == "tensorrt" and wanted != (device_sm,):
        here = f"the GPU here is {device_sm}" if device_sm else "there is no GPU here"
        raise InputError(
            f"full TensorRT builds only for the GPU it runs on: {', '.join(wanted)} was requested, {here}. "
            "Build there, or use --flavor rtx"
        )
    known = rtx_targets() if chosen == "rtx" else wanted
    unknown = [target for target in wanted if target not in known]
    if device_sm in unknown:
        raise InputError(
            f"TensorRT-RTX does not support the GPU here, {device_sm}, only {', '.join(known)}. Install full TensorRT, "
            "with: pip install 'gfl-edge[tensorrt]'"
        )
    if unknown:
        raise InputError(
            f"unknown target {', '.join(unknown)}: TensorRT-RTX here builds for {', '.join(known)} and current"
            + _meant(unknown[0], known)
        )
    return chosen, wanted


def _meant(target: str, known: Sequence[str]) -> str:
    """What to do about a target that TensorRT-RTX does not know."""
    if target in JETSON_TARGETS:
        return ". That is a Jetson: copy the ONNX file to it, and build there with gfl-edge build --flavor tensorrt"
    spelled = f"sm{target.replace('.', '').removeprefix('sm_')}"
    return f". Did you mean {spelled}?" if spelled in known else ""


def current_sm(required: bool = False) -> str | None:
    """The compute capability of this machine's GPU, "sm75", or None where there is no usable one.

    Raises:
        BackendError, MissingDependencyError: ``required`` and none usable; says why.
    """
    from gfl_edge.cuda import open_device
    from gfl_edge.errors import BackendError

    try:
        return open_device().compute_capability
    except (BackendError, MissingDependencyError):
        if required:
            raise
        return None


def rtx_targets() -> tuple[str, ...]:
    """The GPUs that the installed TensorRT-RTX can build for."""
    names = load_flavor("rtx").ComputeCapability.__members__
    return tuple(sorted((name.lower() for name in names if name.startswith("SM")), key=lambda name: int(name[2:])))


def _choose_flavor(flavor: str, targets: tuple[str, ...], device_sm: str | None) -> Flavor:
    installed = available_flavors()
    for named in get_args(Flavor):
        if flavor == named:
            load_flavor(named)  # says what to install
            return cast(Flavor, named)
    if flavor != "auto":
        raise InputError(f"unknown flavor {flavor!r}: expected auto, {', '.join(get_args(Flavor))}")
    if "tensorrt" in installed and targets == (device_sm,):
        return "tensorrt"
    if "rtx" in installed:
        return "rtx"
    raise MissingDependencyError(
        "no TensorRT that can build here is installed. For a machine without GPU or a GeForce/RTX card: "
        "pip install 'gfl-edge[rtx]'; for data-center GPUs: pip install 'gfl-edge[tensorrt]'; for "
        "Jetson: sudo apt install nvidia-jetpack, in an environment of: python3 -m venv --system-site-packages .venv"
    )


def build_engine(plan: BuildPlan, output_dir: Path, progress: bool = True) -> tuple[Path, Sidecar]:
    """Build the engine and write it with its sidecar; an engine in place stays until the new one is whole.

    Args:
        plan: see :func:`plan`.
        output_dir: folder; made if missing.
        progress: draw TensorRT's progress on stderr.

    Returns:
        The engine's path and its sidecar.

    Raises:
        ModelFileError, ContractError: unusable ONNX file.
        OutputError: the files cannot be written.
        InputError: the ONNX file needs a plugin, and the flavor takes none; or bfloat16, and a target has none; or is
            INT8 for CPUs.
        MissingDependencyError, BackendError: the plugin that it needs is not there, or does not load.
        BuildError: TensorRT refused the model, with its messages.
        PrecisionError: the network is not of the precision that the ONNX file declares.
    """
    file_spec = plan.spec or read_spec(plan.onnx)
    plan, spec = replace(plan, spec=file_spec), plan.options.spec_of(file_spec, plan.max_batch)
    check_plugin_place(spec.nms, plan.flavor)
    check_targets(spec.precision, plan.targets)
    check_made_for_engines(spec, plan.onnx)
    if spec.quantized_layers:
        warn_of_simulated_int8(plan.flavor, plan.targets)
    int8 = f"INT8 ({spec.quantized_layers} convolutions) and " if spec.quantized_layers else ""
    described = f"{spec.name} {int8}{spec.precision}"
    logger.info("building %s for %s with %s", described, ", ".join(plan.targets), plan.flavor)
    engine = output_dir / plan.engine_name(file_spec)
    check_output(engine, size_bytes(plan.onnx))  # before minutes of work; an engine is about as large
    start = time.perf_counter()
    content, convolutions = _serialize(plan, spec, progress)
    sidecar = Sidecar(
        flavor=plan.flavor,
        version=str(load_flavor(plan.flavor).__version__),
        targets=plan.targets,
        max_batch=plan.max_batch,
        onnx_sha256=sha256(plan.onnx),
        engine_sha256=hashlib.sha256(content).hexdigest(),
        spec=spec,
        build_seconds=round(time.perf_counter() - start, 2),
        convolutions=convolutions.total,
        int8_convolutions=convolutions.int8,
        options=plan.options,
        cut_nms=spec != file_spec,
        device=_device_name(plan.flavor),
    )
    write_together({engine: content, sidecar_path(engine): sidecar.to_json()})
    return engine, sidecar


def _device_name(flavor: Flavor) -> str | None:
    """Of the GPU that full TensorRT tries kernels on; TensorRT-RTX needs none."""
    if flavor == "rtx":
        return None
    from gfl_edge.cuda import open_device

    return open_device().name


def check_plugin_place(nms: ExportedNms, flavor: Flavor) -> None:
    """Raise InputError if a model with its NMS there needs a plugin and the flavor takes none."""
    if nms == "plugin" and flavor == "rtx":
        raise InputError(
            "TensorRT-RTX takes no plugins, and a model of --nms plugin needs GflNms. Export it with --nms graph, "
            "which needs no plugin, or with --nms none or raw, or build with --flavor tensorrt"
        )


def check_targets(precision: Precision, targets: Sequence[str]) -> None:
    """Raise InputError if a model of that precision is to be built for GPUs that do not compute in it."""
    old = [target for target in targets if int(target.removeprefix("sm")) < FIRST_AMPERE_SM]
    if precision == "bf16" and old:
        raise InputError(
            f"bf16 was requested for {', '.join(old)}: bfloat16 needs a GPU from sm{FIRST_AMPERE_SM} on, as the RTX 30 "
            "series. Take --fp16, or name only newer GPUs, as in --target sm86"
        )


def check_made_for_engines(spec: ModelSpec, onnx: Path) -> None:
    """Raise InputError for an INT8 model that was made for CPUs: its activations are unsigned, with a zero each."""
    if spec.quantized_layers and spec.precision == "fp32":
        raise InputError(
            f"{onnx} is INT8 for CPUs, and TensorRT takes no unsigned activations. Make one of an FP16 model by: "
            "python export/to_trt.py --int8 --weights CHECKPOINT --calib-images DIR"
        )


def warn_of_simulated_int8(flavor: Flavor, targets: Sequence[str]) -> None:
    """Warn of targets on which INT8 is slower than FP16; also worth saying before minutes of calibration."""
    old = [target for target in targets if int(target.removeprefix("sm")) < FIRST_AMPERE_SM]
    if flavor == "rtx" and old:
        logger.warning(
            "TensorRT-RTX computes INT8 convolutions in FP16 on %s: it rounds to INT8 and back again, which costs AP "
            "and time. An FP16 engine serves better there",
            ", ".join(old),
        )


def _serialize(plan: BuildPlan, spec: ModelSpec, progress: bool) -> tuple[bytes, Convolutions]:
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = load_flavor(plan.flavor)

    timing_cache = TimingCache(plan.timing_cache, plan.flavor) if plan.timing_cache else None
    if spec.nms == "plugin":
        load_plugin(plan.flavor, plan.onnx.parent)
    logger = logger_of(plan.flavor)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(plan.flavor, trt.__version__))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(_onnx_for(plan, spec), str(plan.onnx)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        listed = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)
        raise BuildError(f"{plan.flavor} {trt.__version__} cannot parse {plan.onnx}: {listed}")
    convolutions = check_precision(network, spec, plan.flavor)
    check_contract(network, spec)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    low_hw, high_hw = spec.size_range
    smallest, usual = (trt.Dims4(1, *size, 3) for size in (low_hw, spec.input_hw))
    profile.set_shape(INPUT_NAME, smallest, usual, trt.Dims4(plan.max_batch, *high_hw, 3))
    config.add_optimization_profile(profile)
    _set_rtx_options(config, plan, trt)
    plan.options.apply(config, trt)
    if timing_cache:
        timing_cache.use(config)
    messages: deque[str] = deque(maxlen=5)
    with (
        heard(messages),
        _monitored(config, plan.flavor, f"building {(plan.spec or spec).file_stem}", progress) as monitor,
    ):
        serialized = builder.build_serialized_network(network, config)
    if monitor.canceled:
        raise KeyboardInterrupt
    if serialized is None:
        raise BuildError(f"{plan.flavor} {trt.__version__} could not build {plan.onnx}: {'; '.join(messages)}")
    if timing_cache:
        timing_cache.save(config)
    return bytes(serialized), convolutions


def _onnx_for(plan: BuildPlan, spec: ModelSpec) -> bytes:
    """The ONNX file, without what is left out, for TensorRT-RTX with its groups as wide as the targets take them.

    Raises:
        InputError: it takes one image at a time, as some that were adopted do, and the engine is to take more.
    """
    content = plan.onnx.read_bytes()
    cut = plan.spec is not None and spec.nms != plan.spec.nms
    if plan.flavor != "rtx" and not cut and plan.max_batch == 1:  # full TensorRT tries kernels on the GPU itself
        return content
    model = optional.load("onnx").load_model_from_string(content)
    fixed = fixed_batch(model)
    if plan.max_batch > 1 and fixed is not None:
        raise InputError(f"{plan.onnx} takes {fixed} image at a time: its shapes are fixed. Leave out --max-batch")
    if cut:
        without_nms(model, spec)
    widened = plan.flavor == "rtx" and widen_groups(model, plan.targets)
    return bytes(model.SerializeToString()) if cut or widened else content


def _network_flags(flavor: Flavor, version: str) -> int:
    """Flags for strong types: TensorRT 10 needs one, 11 and RTX know nothing else and deprecate the flag."""
    if flavor == "rtx" or int(version.partition(".")[0]) >= 11:
        return 0
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = load_flavor(flavor)
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _set_rtx_options(config: Any, plan: BuildPlan, trt: Any) -> None:
    """What exists only in TensorRT-RTX: compute capabilities, and engines that can be captured into CUDA graphs.

    Those have all of their memory before they run. Full TensorRT builds for the GPU it runs on.
    """
    if plan.flavor == "rtx":
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        config.num_compute_capabilities = len(plan.targets)
        for i, target in enumerate(plan.targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), i)


@dataclass(frozen=True)
class Convolutions:
    """The convolutions of a network that TensorRT was given, as it read them."""

    total: int
    int8: int  # of inputs and weights that are dequantized


def check_precision(network: Any, spec: ModelSpec, flavor: Flavor) -> Convolutions:
    """Raise PrecisionError unless the body of ``network`` computes in the precision of ``spec``.

    The body is every convolution, pooling and resize; normalization, decode and NMS have none and are float32. Those
    that the spec lists as ``float_layers`` have to be float32, and no other may be. Of the convolutions, as many as the
    spec says have to be INT8, which is to take dequantized tensors.

    Returns:
        How many convolutions there are, and in INT8.
    """
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = load_flavor(flavor)

    wanted = {"fp16": trt.DataType.HALF, "bf16": trt.DataType.BF16, "fp32": trt.DataType.FLOAT}[spec.precision]
    exceptions = dict.fromkeys(spec.float_layers, trt.DataType.FLOAT)  # TensorRT names layers by the ONNX nodes
    layers: list[trt.ILayer] = [network.get_layer(i) for i in range(network.num_layers)]
    kinds = (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION, trt.LayerType.POOLING, trt.LayerType.RESIZE)
    body = [layer for layer in layers if layer.type in kinds]
    others = [
        layer
        for layer in body
        if not layer.get_input(0).dtype == layer.get_output(0).dtype == exceptions.get(layer.name, wanted)
    ]
    if others or not body:
        listed = ", ".join(f"{layer.name} ({layer.get_output(0).dtype})" for layer in others[:5])
        raise PrecisionError(
            f"{spec.name} is declared {spec.precision}, but {len(others)} of the {len(body)} convolutions, poolings "
            f"and resizes in its network are not as it says: {listed}. Export it again with: python export/to_onnx.py"
        )
    convolutions = [layer for layer in body if layer.type == trt.LayerType.CONVOLUTION]
    dequantized = {layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE}
    # TensorRT computes in INT8 where both a convolution's input and its weights are dequantized
    quantized = sum(
        layer.num_inputs > 1 and all(layer.get_input(i).name in dequantized for i in range(2)) for layer in convolutions
    )
    if quantized != spec.quantized_layers:
        raise PrecisionError(
            f"{spec.name} is declared to have {spec.quantized_layers} convolutions in INT8, and {quantized} of the "
            f"{len(convolutions)} in its network are. Calibrate it again with: python calib/calibrate.py"
        )
    return Convolutions(len(convolutions), quantized)


def check_contract(network: Any, spec: ModelSpec) -> None:
    """Raise ModelFileError unless the inputs and outputs of ``network`` have the names of the contract."""
    inputs = [network.get_input(i).name for i in range(network.num_inputs)]
    outputs = [network.get_output(i).name for i in range(network.num_outputs)]
    expected = list(spec.output_names)
    if inputs != [INPUT_NAME] or outputs != expected:
        raise ModelFileError(
            f"{spec.name} has inputs {inputs} and outputs {outputs}, expected {[INPUT_NAME]} and {expected}. "
            "Export it again with: python export/to_onnx.py"
        )


@contextmanager
def _monitored(config: Any, flavor: Flavor, label: str, progress: bool) -> Iterator[Any]:
    """Show the progress of a build; Ctrl-C ends it at the next step instead of unwinding through TensorRT."""
    monitor = _make_monitor(flavor, label, progress)
    config.progress_monitor = monitor
    in_main_thread = threading.current_thread() is threading.main_thread()
    # A handler of the application's own is left alone, and so is a Ctrl-C that is ignored, as in the background
    ours = in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, monitor.cancel)
    try:
        yield monitor
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        monitor.close()


def _make_monitor(flavor: Flavor, label: str, enabled: bool) -> Any:
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = load_flavor(flavor)

    class Monitor(trt.IProgressMonitor):
        """One progress line over all phases; TensorRT announces a phase's steps when it starts."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.canceled = False
            self._bar = progress_bar(label, 0, enabled=enabled)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._bar.total = (self._bar.total or 0) + num_steps
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if self._steps.get(phase_name, 0) > 0:
                self._steps[phase_name] -= 1
                self._bar.update()
            return not self.canceled

        def phase_finish(self, phase_name: str) -> None:
            self._bar.update(self._steps.pop(phase_name, 0))

        def cancel(self, *_: object) -> None:
            self.canceled = True

        def close(self) -> None:
            self._bar.close()

    return Monitor()
