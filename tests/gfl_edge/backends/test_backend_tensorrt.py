"""The TensorRT backend on a fake GPU, and, where there is one, on a real one."""

from __future__ import annotations

import dataclasses
import gc
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfl_edge import optional
from gfl_edge.backends.tensorrt import TensorRTBackend
from gfl_edge.cuda import open_device
from gfl_edge.engine.contract import engine_contract
from gfl_edge.engine.flavor import MODULE_OF, load_flavor
from gfl_edge.engine.sidecar import Sidecar, sidecar_path
from gfl_edge.errors import (
    BackendError,
    ContractError,
    EngineMismatchError,
    GflEdgeError,
    InputError,
    MissingDependencyError,
    ModelFileError,
)
from gfl_edge.spec import ModelSpec
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_tensorrt import FakeTensorRT, engine_file, fake_network
from tests.support.tiny_engine import SPEC, VERSION, build_tiny, write_engine

Write = Callable[..., Path]


@pytest.fixture
def sidecar(flavor: Any, trt: FakeTensorRT) -> Sidecar:
    return Sidecar(flavor, VERSION, ("sm75",), 3, "0" * 64, "", SPEC, 1.0, 9, 0)


@pytest.fixture
def write(sidecar: Sidecar, tmp_path: Path) -> Write:
    """Write ``tiny.engine``: ``tensors`` are changes to the engine, the others to its sidecar."""

    def write(content: bytes | None = None, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
        spec, max_batch = changes.get("spec", SPEC), changes.get("max_batch", sidecar.max_batch)
        content = engine_file(spec, max_batch, **(tensors or {})) if content is None else content
        return write_engine(tmp_path / "tiny.engine", content, sidecar, **changes)

    return write


def random_images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SPEC.input_hw, 3), np.uint8)


def expected_outputs(images: np.ndarray, spec: ModelSpec = SPEC) -> dict[str, np.ndarray]:
    """What the fake network makes of ``images``, in the dtypes of the contract."""
    tensors = list(engine_contract(spec).items())[1:]
    found = fake_network(images, {name: tensor.item_shape for name, tensor in tensors})
    return {
        name: found[name].astype({"INT32": np.int32, "FLOAT": np.float32}[tensor.dtype]) for name, tensor in tensors
    }


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


class TestRun:
    @pytest.mark.parametrize("batch", [1, 2, 3])
    def test_outputs_are_computed_from_the_images_given(self, write: Write, batch: int) -> None:
        backend = TensorRTBackend(write())
        images = random_images(batch)
        assert_equal(backend.run(images), expected_outputs(images))

    def test_without_nms_in_the_graph_the_outputs_are_candidates(self, write: Write) -> None:
        spec = dataclasses.replace(SPEC, nms="none", class_names=("cat", "dog"))
        images = random_images(2)
        found = TensorRTBackend(write(spec=spec), nms="host").run(images)
        assert found["scores"].shape == (2, 32, 2)
        assert_equal(found, expected_outputs(images, spec))

    def test_batches_of_any_order_of_sizes(self, write: Write) -> None:
        backend = TensorRTBackend(write())
        for seed, batch in enumerate([3, 1, 1, 2, 3]):
            images = random_images(batch, seed)
            assert_equal(backend.run(images), expected_outputs(images))

    def test_images_need_not_be_contiguous(self, write: Write) -> None:
        images = random_images(3)[::2, :, ::-1]
        assert_equal(TensorRTBackend(write()).run(images), expected_outputs(images))

    def test_a_frame_allocates_nothing_and_waits_once(self, write: Write, gpu: FakeGpu, trt: FakeTensorRT) -> None:
        backend = TensorRTBackend(write(), cuda_graphs=False)
        for _ in range(2):
            gpu.calls.clear()
            trt.calls.clear()
            backend.run(random_images(3))
            done = {"record_event": 1, "synchronize_event": 1}
            assert gpu.calls == {"copy_to_device": 1, "copy_to_host": 4, **done}
            assert not trt.calls  # shape and addresses are set already

    def test_copies_only_the_frames_of_the_batch(self, write: Write, gpu: FakeGpu) -> None:
        backend = TensorRTBackend(write())
        backend.run(random_images(2))
        assert gpu.copied == [2 * 32 * 64 * 3, 2 * 4, 2 * 5 * 16, 2 * 5 * 4, 2 * 5 * 4]

    def test_runs_reuse_the_same_memory(self, write: Write) -> None:
        backend = TensorRTBackend(write())
        first, second = backend.run(random_images(1)), backend.run(random_images(2))
        assert all(np.shares_memory(first[name], second[name]) for name in first)

    def test_largest_batch_of_one(self, write: Write) -> None:
        backend = TensorRTBackend(write(max_batch=1))
        assert_equal(backend.run(random_images(1)), expected_outputs(random_images(1)))

    def test_engine_with_a_fixed_batch_of_one(self, write: Write) -> None:
        shapes = {"images": {"shape": [1, 32, 64, 3]}, "num_dets": {"shape": [1, 1]}}
        backend = TensorRTBackend(write(max_batch=1, tensors=shapes))
        assert_equal(backend.run(random_images(1)), expected_outputs(random_images(1)))

    def test_engine_of_one_image_of_any_size(self, write: Write) -> None:
        spec = dataclasses.replace(SPEC, resize="fit", input_hw=(320, 320), short_long=(320, 352), strides=(64,))
        shapes = {"images": {"shape": [1, -1, -1, 3]}, "num_dets": {"shape": [1, 1]}}
        backend = TensorRTBackend(write(max_batch=1, spec=spec, tensors=shapes))
        assert backend.run(np.zeros((1, 352, 320, 3), np.uint8))["num_dets"].shape == (1, 1)

    def test_larger_batch_than_the_engine_takes(self, write: Write) -> None:
        with pytest.raises(InputError, match=r"batch of 4 frames, this model takes at most 3.*--max-batch 4"):
            TensorRTBackend(write()).run(random_images(4))

    @pytest.mark.parametrize(
        "images",
        [
            np.zeros((1, 64, 32, 3), np.uint8),
            np.zeros((1, 32, 64, 3), np.float32),
            np.zeros((32, 64, 3), np.uint8),
            np.zeros((0, 32, 64, 3), np.uint8),
        ],
        ids=["size", "dtype", "no batch", "empty"],
    )
    def test_wrong_input(self, write: Write, images: np.ndarray) -> None:
        with pytest.raises(InputError, match=r"tiny takes uint8 \[N, 32, 64, 3\]"):
            TensorRTBackend(write()).run(images)

    def test_a_run_that_tensorrt_refuses(self, write: Write, trt: FakeTensorRT, gpu: FakeGpu) -> None:
        backend = TensorRTBackend(write())
        trt.refuse = "execute"
        with pytest.raises(BackendError, match=r"cannot run this engine \(execute failed for a good reason\)\."):
            backend.run(random_images(1))
        trt.refuse = ""
        assert_equal(backend.run(random_images(1, 5)), expected_outputs(random_images(1, 5)))
        backend.close()
        gpu.assert_nothing_left()

    def test_a_failing_gpu_is_reported_once(self, write: Write, gpu: FakeGpu, caplog: pytest.LogCaptureFixture) -> None:
        backend = TensorRTBackend(write())
        gpu.fail_in = "synchronize"
        with pytest.raises(BackendError, match="CUDA_ERROR_LAUNCH_FAILED"):
            backend.run(random_images(1))
        backend.close()  # fails to synchronize again, and must neither hide the first error nor keep the memory
        gpu.assert_nothing_left()
        assert "CUDA_ERROR_LAUNCH_FAILED" in caplog.text


class TestClose:
    def test_frees_everything_and_twice_is_fine(self, write: Write, gpu: FakeGpu, trt: FakeTensorRT) -> None:
        backend = TensorRTBackend(write())
        backend.run(random_images(2))
        backend.close()
        backend.close()
        gpu.assert_nothing_left()
        assert gpu.calls["malloc"] == gpu.calls["free"] == 5
        assert not trt.contexts

    def test_outputs_stay_readable(self, write: Write, gpu: FakeGpu) -> None:
        backend = TensorRTBackend(write())
        images = random_images(2)
        found = backend.run(images)
        backend.close()
        assert not gpu.memory
        assert_equal(found, expected_outputs(images))
        del found
        gpu.assert_nothing_left()

    def test_closed_backend_does_not_run(self, write: Write) -> None:
        backend = TensorRTBackend(write())
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            backend.run(random_images(1))
        assert backend.describe()["device"] == "Fake RTX 2080 Ti (sm75)"


class TestDropped:
    """A backend that nobody closes gives everything back when nobody refers to it any more."""

    def test_nothing_is_left(self, write: Write, gpu: FakeGpu, trt: FakeTensorRT) -> None:
        backend = TensorRTBackend(write())
        backend.run(random_images(2))
        backend.time_stages()
        backend.run_frames(list(random_images(1)), SPEC.input_hw)
        gc.disable()  # without cycles, it does not have to wait for the garbage collector
        try:
            del backend
            gpu.assert_nothing_left()
        finally:
            gc.enable()
        assert not trt.contexts

    def test_while_another_one_is_captured(self, write: Write, gpu: FakeGpu, trt: FakeTensorRT) -> None:
        backend, dropped = TensorRTBackend(write()), [TensorRTBackend(write())]
        outputs = dropped[0].run(random_images(1))
        del outputs
        images, capture = random_images(1), gpu.capture

        def capture_and_drop(stream: int, queue: Callable[[], None]) -> int:
            return capture(stream, lambda: (dropped.clear(), queue()))  # type: ignore[func-returns-value, arg-type]

        gpu.capture = capture_and_drop  # type: ignore[method-assign]
        for _ in range(3):
            assert_equal(backend.run(images), expected_outputs(images))
        assert gpu.calls["launch_graph"] == 2
        assert len(trt.contexts) == 1
        backend.close()
        gpu.assert_nothing_left()


def test_every_backend_hears_its_own_messages(write: Write, gpu: FakeGpu, trt: FakeTensorRT) -> None:
    first, second = TensorRTBackend(write()), TensorRTBackend(write())
    trt.refuse = "execute"  # TensorRT knows the logger of the first alone
    for backend in (second, first):
        with pytest.raises(BackendError, match=r"cannot run this engine \(execute failed for a good reason\)\."):
            backend.run(random_images(1))


class TestKernelsOfRtx:
    """TensorRT-RTX compiles at the first run, and takes what it compiled before from the cache."""

    @pytest.fixture
    def flavor(self) -> str:
        return "rtx"

    def compiled(self, write: Write, trt: FakeTensorRT) -> int:
        trt.compiled = 0
        backend = TensorRTBackend(write())
        for _ in range(2):
            backend.run(random_images(1))
        backend.close()
        return trt.compiled

    def test_the_next_start_compiles_nothing(self, write: Write, trt: FakeTensorRT, tmp_path: Path) -> None:
        assert [self.compiled(write, trt) for _ in range(2)] == [1, 0]
        (entry,) = (tmp_path / "cache/kernels").iterdir()
        assert re.fullmatch(r"rtx-[0-9a-f]{16}-sm75\.bin", entry.name)

    def test_they_are_kept_before_the_end(self, write: Write, trt: FakeTensorRT, tmp_path: Path) -> None:
        backend = TensorRTBackend(write())
        backend.run(random_images(1))  # a camera is switched off some day
        assert list((tmp_path / "cache/kernels").iterdir())
        backend.close()

    def test_what_tensorrt_does_not_take_is_written_again(self, write: Write, trt: FakeTensorRT) -> None:
        self.compiled(write, trt)
        trt.refuse = "cache"
        assert self.compiled(write, trt) == 1

    def test_a_damaged_entry(self, write: Write, trt: FakeTensorRT, tmp_path: Path) -> None:
        self.compiled(write, trt)
        (entry,) = (tmp_path / "cache/kernels").iterdir()
        entry.write_bytes(entry.read_bytes()[:-1])
        assert [self.compiled(write, trt) for _ in range(2)] == [1, 0]

    def test_no_folder_for_it(self, write: Write, trt: FakeTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gfl_edge.backends.execution.cache_folder", lambda: None)
        assert [self.compiled(write, trt) for _ in range(2)] == [0, 0]  # the fake counts for caches alone


def test_describe(write: Write, sidecar: Sidecar) -> None:
    backend = TensorRTBackend(write())
    assert backend.name == sidecar.flavor
    assert (backend.spec, backend.max_batch) == (SPEC, 3)
    assert backend.describe() == {
        "library": {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}[sidecar.flavor],
        "version": VERSION,
        "device": "Fake RTX 2080 Ti (sm75)",
        "driver": "CUDA 13.0",
        "cuda": "fake",
    }
    assert backend.nms_place == "graph"


def test_the_cuda_library_is_passed_on(write: Write, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("gfl_edge.backends.tensorrt.open_device", lambda prefer: asked.append(prefer) or gpu)
    TensorRTBackend(write(), cuda="pycuda")
    assert asked == ["pycuda"]


def test_tensorrt_messages_go_to_logging(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "tensorrt"):
        TensorRTBackend(write())
    levels = {record.getMessage().partition(": ")[2][:13]: record.levelname for record in caplog.records}
    assert levels == {"Loaded engine": "DEBUG", "Using default": "INFO"}


class TestRefusal:
    """Whatever is wrong with an engine: an error that says so and what to do, and nothing stays allocated."""

    def refused(self, engine: Path, gpu: FakeGpu, error: type[GflEdgeError], message: str, **arguments: Any) -> None:
        with pytest.raises(error, match=message):
            TensorRTBackend(engine, **arguments)
        assert not gpu.memory
        assert not gpu.streams

    def test_other_flavor(self, write: Write, gpu: FakeGpu, sidecar: Sidecar) -> None:
        other = {"tensorrt": "rtx", "rtx": "tensorrt"}[sidecar.flavor]
        message = f"built by {sidecar.flavor}, to be loaded by {other}.*--flavor {sidecar.flavor}"
        self.refused(write(), gpu, EngineMismatchError, message, flavor=other)

    def test_other_version(self, write: Write, gpu: FakeGpu) -> None:
        message = rf"10\.3\.0\.30, installed is {re.escape(VERSION)}.*Rebuild with: gfl-edge build --model"
        self.refused(write(version="10.3.0.30"), gpu, EngineMismatchError, message)

    def test_other_gpu(self, write: Write, gpu: FakeGpu) -> None:
        message = "built for sm86, sm89, this GPU is sm75.*--target current"
        self.refused(write(targets=("sm86", "sm89")), gpu, EngineMismatchError, message)

    def test_no_engine(self, gpu: FakeGpu, tmp_path: Path) -> None:
        self.refused(tmp_path / "tiny.engine", gpu, ModelFileError, "no such engine")

    def test_no_sidecar(self, write: Write, gpu: FakeGpu) -> None:
        engine = write()
        sidecar_path(engine).unlink()
        self.refused(engine, gpu, ModelFileError, "tiny.engine.json is missing")

    @pytest.mark.parametrize("text", ["", "not JSON", "[]", "{}"])
    def test_sidecar_that_is_none(self, write: Write, gpu: FakeGpu, text: str) -> None:
        engine = write()
        sidecar_path(engine).write_text(text)
        self.refused(engine, gpu, ContractError, r"tiny\.engine\.json is not .* rebuild with: gfl-edge build")

    def test_truncated_engine(self, write: Write, gpu: FakeGpu) -> None:
        engine = write()
        engine.write_bytes(engine.read_bytes()[:-1])
        self.refused(engine, gpu, ModelFileError, "truncated, or copied without its sidecar")

    def test_engine_that_tensorrt_cannot_read(self, write: Write, gpu: FakeGpu) -> None:
        message = r"cannot load this engine \(.*magicTagRead == kMAGIC_TAG failed\)\. Rebuild with: "
        self.refused(write(b"no engine"), gpu, BackendError, message)

    @pytest.mark.parametrize(
        ("step", "message"),
        [
            ("runtime", r"cannot load this engine \(no reason given\)"),
            (
                "CUDA driver version is insufficient for CUDA runtime version",
                r"cannot load this engine \(.*\)\. Update the NVIDIA driver, which is for CUDA 13\.0 at most",
            ),
            ("context", "cannot prepare this engine to run .*context failed for a good reason"),
            ("address", "does not take the buffer of images .*address failed for a good reason"),
        ],
        ids=["runtime", "old driver", "context", "address"],
    )
    def test_step_that_tensorrt_refuses(
        self, write: Write, gpu: FakeGpu, trt: FakeTensorRT, step: str, message: str
    ) -> None:
        trt.refuse = step
        self.refused(write(), gpu, BackendError, message)

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            ({"num_dets": None}, r"has input images UINT8, output det_boxes .*, expected .*output num_dets INT32"),
            ({"extra": {"mode": "OUTPUT", "dtype": "FLOAT", "shape": [-1, 1]}}, "output extra FLOAT"),
            ({"det_boxes": {"dtype": "HALF"}}, "output det_boxes HALF"),
            ({"det_scores": {"mode": "INPUT"}}, "input det_scores FLOAT"),
            ({"det_boxes": {"shape": [-1, 7, 4]}}, r"has det_boxes of \[3, 7, 4\], expected \[3, 5, 4\]"),
            ({"num_dets": {"shape": [1, 1]}}, r"has num_dets of \[1, 1\], expected \[3, 1\]"),
            (
                {"images": {"shape": [-1, 3, 32, 64]}},
                r"\[1, 3, 32, 64\] to \[3, 3, 32, 64\], expected \[1, 32, 64, 3\]",
            ),
            ({"images": {"batches": [2, 2, 3]}}, r"takes images of \[2, 32, 64, 3\] to \[3, 32, 64, 3\]"),
            (
                {"images": {"shape": [1, -1, -1, 3], "batches": [1, 1, 1]}},
                r"takes images of \[1, 32, 64, 3\] to \[1, 32, 64, 3\], expected \[1, 32, 64, 3\] to \[3, 32, 64, 3\]",
            ),
            ({"images": {"batches": [1, 1, 2]}}, r"takes images of \[1, 32, 64, 3\] to \[2, 32, 64, 3\]"),
            ({"images": {"shape": [3, 32, 64, 3]}}, r"takes images of \[3, 32, 64, 3\] to \[3, 32, 64, 3\]"),
        ],
    )
    def test_tensors_that_do_not_fit(self, write: Write, gpu: FakeGpu, tensors: dict[str, Any], message: str) -> None:
        self.refused(write(tensors=tensors), gpu, ContractError, message)

    def test_no_room_on_the_gpu(self, write: Write, gpu: FakeGpu) -> None:
        gpu.room = 3 * 32 * 64 * 3 + 100
        self.refused(write(), gpu, BackendError, "no room for 240 bytes of device memory .*CUDA_ERROR_OUT_OF_MEMORY")

    @pytest.mark.parametrize("method", ["create_stream", "pinned_empty", "malloc"])
    def test_cuda_fails_on_the_way(self, write: Write, gpu: FakeGpu, method: str) -> None:
        gpu.fail_in = method
        self.refused(write(), gpu, BackendError, f"CUDA failed in {method}")
        gpu.assert_nothing_left()

    def test_tensorrt_is_not_installed(
        self, write: Write, gpu: FakeGpu, sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, MODULE_OF[sidecar.flavor], None)
        message = rf"pip install 'gfl-edge\[{sidecar.flavor}\]'"
        self.refused(write(), gpu, MissingDependencyError, message)

    def test_other_flavor_that_is_not_installed_is_still_the_wrong_one(
        self, write: Write, gpu: FakeGpu, sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = {"tensorrt": "rtx", "rtx": "tensorrt"}[sidecar.flavor]
        monkeypatch.setitem(sys.modules, MODULE_OF[other], None)
        self.refused(write(), gpu, EngineMismatchError, f"to be loaded by {other}", flavor=other)


@pytest.mark.gpu
@pytest.mark.parametrize("cuda", ["cuda-python", "pycuda"])
def test_real_gpu_agrees_with_onnx_runtime(tmp_path: Path, cuda: Any) -> None:
    onnx_cpu = pytest.importorskip("gfl_edge.backends.onnx_cpu")
    optional_package = {"cuda-python": "cuda.bindings.driver", "pycuda": "pycuda.driver"}[cuda]
    if not optional.available(optional_package):
        pytest.skip(f"{cuda} is not installed")
    backend = TensorRTBackend(build_tiny(tmp_path, ("current",)), cuda=cuda)
    reference = onnx_cpu.OnnxRuntimeBackend(*onnx_cpu.load_contract(tmp_path / "tiny.onnx"))
    for seed, batch in enumerate([3, 1, 2]):
        images = random_images(batch, seed)
        found, expected = backend.run(images), reference.run(images)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-2, err_msg=name)  # TF32 on newer GPUs
    backend.close()
    assert found["boxes"].shape == (2, 32, 4)


class TestRealTensorRtRtx:
    """What the real library does on a machine without a GPU, too."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

    @pytest.fixture
    def real_sidecar(self) -> Sidecar:
        return Sidecar("rtx", load_flavor("rtx").__version__, ("sm75",), 3, "0" * 64, "", SPEC, 1.0, 9, 0)

    def test_garbage_is_refused_with_its_own_words(self, gpu: FakeGpu, real_sidecar: Sidecar, tmp_path: Path) -> None:
        engine = write_engine(tmp_path / "tiny.engine", b"no engine", real_sidecar)
        with pytest.raises(BackendError, match=r"TensorRT-RTX [\d.]+ cannot load this engine \(.*Error Code"):
            TensorRTBackend(engine)
        gpu.assert_nothing_left()

    def test_its_version_is_compared(self, gpu: FakeGpu, real_sidecar: Sidecar, tmp_path: Path) -> None:
        engine = write_engine(tmp_path / "tiny.engine", b"", real_sidecar, version="1.0.0.1")
        with pytest.raises(EngineMismatchError, match=rf"installed is {re.escape(real_sidecar.version)}"):
            TensorRTBackend(engine)

    def test_real_engine_without_a_driver(self, tmp_path: Path) -> None:
        try:
            open_device("cuda-python")
        except MissingDependencyError:
            pytest.skip("cuda-python is not installed")
        except BackendError:
            pass
        else:
            pytest.skip("there is a GPU")
        with pytest.raises(BackendError, match=r"no NVIDIA driver found .*--backend openvino"):
            TensorRTBackend(build_tiny(tmp_path, ("sm75",)))

    def test_the_calls_that_need_a_gpu_exist(self) -> None:
        trt = load_flavor("rtx")
        assert hasattr(trt.Runtime, "deserialize_cuda_engine")
        for name in ("set_input_shape", "set_tensor_address", "execute_async_v3", "get_tensor_shape"):
            assert hasattr(trt.IExecutionContext, name)
        assert hasattr(trt.IExecutionContext, "is_stream_capturable")
        for name in (
            *("cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy"),
            *("create_runtime_cache", "set_runtime_cache"),
        ):
            assert hasattr(trt.IRuntimeConfig, name)
        assert hasattr(trt.IRuntimeCache, "serialize")
        assert hasattr(trt.IRuntimeCache, "deserialize")
        assert hasattr(trt.CudaGraphStrategy, "WHOLE_GRAPH_CAPTURE")
        assert hasattr(trt.DynamicShapesKernelSpecializationStrategy, "EAGER")
        for name in ("create_runtime_config", "create_execution_context", "get_tensor_profile_shape", "num_io_tensors"):
            assert hasattr(trt.ICudaEngine, name)
        assert trt.Dims([1, 2])[1] == 2
        assert len(trt.Dims([1, 2])) == 2
        assert {"UINT8", "INT32", "FLOAT"} <= trt.DataType.__members__.keys()
        assert trt.TensorIOMode.INPUT.name == "INPUT"
