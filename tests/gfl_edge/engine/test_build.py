"""Engines, built for real by TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
from types import SimpleNamespace

import onnx
import pytest

from gfl_edge.cli import main as cli
from gfl_edge.engine import build
from gfl_edge.engine.build import BuildPlan, Convolutions, build_engine, check_contract, check_precision, plan
from gfl_edge.engine.options import BuildOptions, TimingCache
from gfl_edge.engine.sidecar import Sidecar, sidecar_path
from gfl_edge.errors import BackendError, BuildError, InputError, MissingDependencyError, ModelFileError, PrecisionError
from gfl_edge.spec import read_spec
from train.weights.find import CHECKPOINTS

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'gfl-edge[rtx]'")


def network_of(path):
    """The parsed network, with all that keeps it alive."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(path.read_bytes())
    return network, (logger, builder, parser)


@pytest.mark.parametrize(
    "key", [("fp32", "graph"), ("fp16", "graph"), ("fp16", "none"), ("fp16", "raw"), ("fp32", "raw")]
)
def test_an_engine_and_what_it_says_of_itself(small_onnx, key, tmp_path):
    settled = BuildPlan(small_onnx[key], "rtx", ("sm75",), options=BuildOptions(nms="graph"))
    engine, sidecar = build_engine(settled, tmp_path, progress=False)
    precision, nms = key
    extra = {"graph": "", "none": "-nonms", "raw": "-raw"}[nms]
    assert engine.name == f"nanodet-repvgg-64x96-{precision}{extra}-rtx-sm75.engine"
    assert engine.stat().st_size > 10_000
    assert Sidecar.read(engine) == sidecar
    assert sidecar.check_file(engine) == engine.read_bytes()
    assert sidecar.version == trt.__version__
    assert sidecar.targets == ("sm75",)
    assert sidecar.spec == read_spec(small_onnx[key])
    assert sidecar.onnx_sha256 == hashlib.sha256(small_onnx[key].read_bytes()).hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == [engine.name, f"{engine.name}.json"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_raw_maps_leave_the_network_in_its_precision(small_onnx, precision):
    network, _keep = network_of(small_onnx[precision, "raw"])
    dtype = {"fp32": trt.DataType.FLOAT, "fp16": trt.DataType.HALF}[precision]
    assert [network.get_output(i).dtype for i in range(network.num_outputs)] == [dtype, dtype]


def test_nms_is_left_to_the_kernels_after_the_engine(small_onnx, tmp_path):
    """Unless it is asked for in the graph: there it costs a GPU dozens of operations over all pairs."""
    path = small_onnx["fp16", "graph"]
    engine, sidecar = build_engine(BuildPlan(path, "rtx", ("sm75",)), tmp_path, progress=False)
    assert engine.name == "nanodet-repvgg-64x96-fp16-rtx-sm75.engine"
    assert sidecar.spec == dataclasses.replace(read_spec(path), nms="none")
    assert sidecar.cut_nms
    assert sidecar.onnx_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sidecar.rebuild_command.startswith("gfl-edge build --model nanodet-repvgg-64x96-fp16.onnx --flavor")


@pytest.mark.parametrize(
    ("nms", "candidates", "built"), [("graph", 100, "none"), ("graph", 5000, "graph"), ("raw", 100, "raw")]
)
def test_what_the_kernels_have_no_room_for_stays_in_the_graph(small_onnx, nms, candidates, built):
    spec = dataclasses.replace(read_spec(small_onnx["fp16", "graph"]), nms=nms, max_candidates=candidates)
    assert BuildOptions().spec_of(spec, 1).nms == built
    assert BuildOptions(nms="graph").spec_of(spec, 1) == spec


def test_options_reach_tensorrt():
    config = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_builder_config()
    BuildOptions().apply(config, trt)
    assert config.get_flag(trt.BuilderFlag.TF32)
    BuildOptions(tf32=False, workspace_mib=256).apply(config, trt)
    assert not config.get_flag(trt.BuilderFlag.TF32)
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 256 << 20


class FakeCacheConfig:
    """The timing cache of ``IBuilderConfig``: one that begins with "other" is of another GPU."""

    cache = None

    def create_timing_cache(self, content):
        return SimpleNamespace(content=content, serialize=lambda: content + b"measured")

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        if cache.content.startswith(b"other"):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


@pytest.mark.parametrize(("before", "after"), [(None, b""), (b"kernels ", b"kernels "), (b"other ", b"")])
def test_the_timing_cache_is_read_and_written(before, after, tmp_path, caplog):
    path = tmp_path / "timing.cache"
    if before is not None:
        path.write_bytes(before)
    cache, config = TimingCache(path, "tensorrt"), FakeCacheConfig()
    cache.use(config)
    cache.save(config)
    assert path.read_bytes() == after + b"measured"
    assert ("is of another GPU or TensorRT" in caplog.text) == (before == b"other ")


def test_rtx_has_no_timing_cache(small_onnx, tmp_path):
    plan = BuildPlan(small_onnx["fp16", "graph"], "rtx", ("sm75",), timing_cache=tmp_path / "timing.cache")
    with pytest.raises(InputError, match=r"--timing-cache .*timing\.cache is for full TensorRT"):
        build_engine(plan, tmp_path, progress=False)


def test_rtx_builds_what_can_be_captured():
    """Since TensorRT-RTX 1.2, CUDA graphs need an engine that has all of its memory before it runs."""
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    config = builder.create_builder_config()
    build._set_rtx_options(config, BuildPlan(None, "rtx", ("sm75", "sm86")), trt)
    assert config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    assert config.num_compute_capabilities == 2


def test_rtx_takes_no_plugin(small_onnx, tmp_path):
    with pytest.raises(InputError, match=r"TensorRT-RTX takes no plugins.*--nms graph, which needs no plugin"):
        build_engine(BuildPlan(small_onnx["fp32", "plugin"], "rtx", ("sm75",)), tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_one_engine_for_several_gpus_and_batches(small_onnx, tmp_path):
    settled = BuildPlan(small_onnx["fp16", "graph"], "rtx", ("sm75", "sm86"), max_batch=4)
    engine, sidecar = build_engine(settled, tmp_path, progress=False)
    assert engine.name == "nanodet-repvgg-64x96-fp16-b4-rtx-sm75-sm86.engine"
    assert (sidecar.targets, sidecar.max_batch) == (("sm75", "sm86"), 4)
    options = "--model nanodet-repvgg-64x96-fp16.onnx --max-batch 4 --flavor rtx --target current"
    assert sidecar.rebuild_command == f"gfl-edge build {options}"
    cli.build_parser().parse_args(sidecar.rebuild_command.split()[1:])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_precision_is_read_off_the_built_network(small_onnx, precision):
    path = small_onnx[precision, "graph"]
    network, _keep = network_of(path)
    spec = read_spec(path)
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(path).graph.node)
    assert check_precision(network, spec, "rtx") == Convolutions(convolutions, 0)
    other = dataclasses.replace(spec, precision={"fp32": "fp16", "fp16": "fp32"}[precision])
    with pytest.raises(PrecisionError, match=r"is declared fp.., but \d+ of the \d+ convolutions"):
        check_precision(network, other, "rtx")


def test_contract_is_read_off_the_built_network(small_onnx):
    network, _keep = network_of(small_onnx["fp16", "none"])
    with pytest.raises(ModelFileError, match=r"outputs \['boxes', 'scores'\], expected"):
        check_contract(network, read_spec(small_onnx["fp32", "graph"]))


def broken(path, folder):
    """The same model with an operation that TensorRT does not have."""
    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type, node.domain = "NoSuchOp", "nowhere"
    model.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    onnx.save(model, folder / "broken.onnx")
    return folder / "broken.onnx"


def test_a_failed_build_says_why_and_leaves_the_engine_in_place(small_onnx, tmp_path):
    good = BuildPlan(small_onnx["fp16", "graph"], "rtx", ("sm75",))
    engine, _ = build_engine(good, tmp_path, progress=False)
    before = engine.read_bytes(), sidecar_path(engine).read_bytes()
    with pytest.raises(BuildError, match=r"rtx .* cannot parse .*broken\.onnx: NoSuchOp "):
        build_engine(
            dataclasses.replace(good, onnx=broken(good.onnx, tmp_path), spec=read_spec(good.onnx)),
            tmp_path,
            progress=False,
        )
    assert (engine.read_bytes(), sidecar_path(engine).read_bytes()) == before
    assert not list(tmp_path.glob(".*"))


def test_a_build_that_tensorrt_gives_up_is_an_error(small_onnx, tmp_path, monkeypatch):
    monkeypatch.setattr(trt.Builder, "build_serialized_network", lambda *_: None)
    with pytest.raises(BuildError, match="could not build"):
        build_engine(BuildPlan(small_onnx["fp16", "graph"], "rtx", ("sm75",)), tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def usual_ctrl_c():
    """As in a terminal; a test run in the background inherits a SIGINT that is ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("usual_ctrl_c")
def test_ctrl_c_ends_a_build_and_writes_nothing(small_onnx, tmp_path, monkeypatch):
    """Pressed while TensorRT is at work, whose C++ must not be unwound by an exception of Python's."""
    at_work = trt.Builder.build_serialized_network

    def press_ctrl_c(builder, network, config):
        os.kill(os.getpid(), signal.SIGINT)
        return at_work(builder, network, config)

    monkeypatch.setattr(trt.Builder, "build_serialized_network", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        build_engine(BuildPlan(small_onnx["fp16", "graph"], "rtx", ("sm75",)), tmp_path, progress=False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not list(tmp_path.iterdir())


def test_progress_is_drawn(small_onnx, tmp_path, capsys):
    build_engine(BuildPlan(small_onnx["fp16", "graph"], "rtx", ("sm75",)), tmp_path)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("building nanodet-repvgg-64x96-fp16: 100%|##########|")


@pytest.mark.parametrize(
    ("flavor", "version", "flags"), [("tensorrt", "10.3.0", 2), ("tensorrt", "11.4.0", 0), ("rtx", "1.7", 0)]
)
def test_strong_types_are_asked_for_where_they_are_not_the_only_kind(flavor, version, flags, monkeypatch):
    """TensorRT 10's own value of STRONGLY_TYPED is 1, that of TensorRT-RTX may differ."""

    class TensorRT10:
        class NetworkDefinitionCreationFlag:
            STRONGLY_TYPED = 1

    monkeypatch.setattr(build, "load_flavor", lambda flavor: TensorRT10)
    assert build._network_flags(flavor, version) == flags


class TestPlan:
    @pytest.fixture(autouse=True)
    def model(self, tmp_path):
        self.onnx = tmp_path / "m.onnx"

    def test_without_a_gpu_the_2080_ti_is_built_for(self, no_gpu):
        assert plan(self.onnx) == BuildPlan(self.onnx, "rtx", ("sm75",), 1)

    def test_with_a_gpu_its_own(self, monkeypatch):
        monkeypatch.setattr(build, "current_sm", lambda required=False: "sm89")
        assert plan(self.onnx).targets == ("sm89",)
        assert plan(self.onnx, targets=("current", "sm75", "SM89")).targets == ("sm89", "sm75")

    def test_a_data_center_gpu_needs_full_tensorrt(self, monkeypatch):
        monkeypatch.setattr(build, "current_sm", lambda required=False: "sm90")
        monkeypatch.setattr(build, "rtx_targets", lambda: ("sm75", "sm89"))
        for targets in ((), ("current",), ("sm75", "sm90")):
            with pytest.raises(
                InputError, match=r"does not support the GPU here, sm90, only sm75, sm89\. Install full"
            ):
                plan(self.onnx, "rtx", targets)

    def test_full_tensorrt_is_preferred_for_this_gpu(self, monkeypatch):
        monkeypatch.setattr(build, "current_sm", lambda required=False: "sm87")
        monkeypatch.setattr(build, "available_flavors", lambda: ("tensorrt", "rtx"))
        assert plan(self.onnx).flavor == "tensorrt"
        assert plan(self.onnx, targets=("sm75",)).flavor == "rtx"

    def test_full_tensorrt_cannot_build_for_another_gpu(self, monkeypatch):
        monkeypatch.setattr(build, "current_sm", lambda required=False: "sm87")
        monkeypatch.setattr(build, "load_flavor", lambda flavor: None)
        with pytest.raises(
            InputError, match="builds only for the GPU it runs on: sm75 was requested, the GPU here is sm87"
        ):
            plan(self.onnx, "tensorrt", ("sm75",))

    @pytest.mark.parametrize("target", ["sm77", "turing", "75", ""])
    def test_unknown_target(self, no_gpu, target):
        with pytest.raises(InputError, match=r"unknown target .*builds for sm75, sm80, sm86, .* and current"):
            plan(self.onnx, targets=(target,))

    @pytest.mark.parametrize("target", ["75", "7.5", "SM_75"])
    def test_a_target_as_others_write_it(self, no_gpu, target):
        with pytest.raises(InputError, match=r"Did you mean sm75\?$"):
            plan(self.onnx, targets=(target,))

    def test_a_jetson_builds_for_itself(self, no_gpu):
        with pytest.raises(InputError, match="That is a Jetson: copy the ONNX file to it, and build there"):
            plan(self.onnx, targets=("sm87",))

    def test_unknown_flavor_and_batch(self, no_gpu):
        with pytest.raises(InputError, match="unknown flavor 'trt'"):
            plan(self.onnx, "trt")
        with pytest.raises(InputError, match="--max-batch 0"):
            plan(self.onnx, max_batch=0)

    def test_current_without_a_driver(self, monkeypatch):
        def refuse():
            raise BackendError("no NVIDIA driver found")

        monkeypatch.setattr("gfl_edge.cuda.open_device", refuse)
        with pytest.raises(BackendError, match="no NVIDIA driver"):
            plan(self.onnx, targets=("current",))
        assert plan(self.onnx).targets == ("sm75",)

    def test_no_tensorrt_at_all(self, no_gpu, monkeypatch):
        monkeypatch.setattr(build, "available_flavors", lambda: ())
        with pytest.raises(MissingDependencyError, match=r"gfl-edge\[rtx\].*gfl-edge\[tensorrt\]"):
            plan(self.onnx)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("target", ["sm75", "sm86"])
def test_all_published_models(exported, name, precision, target, tmp_path):
    engine, _ = build_engine(BuildPlan(exported(name, precision), "rtx", (target,)), tmp_path, progress=False)
    assert engine.stat().st_size > 1_000_000
