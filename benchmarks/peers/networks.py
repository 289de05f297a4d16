"""The plain network of NanoDet in other people's run times: normalized image in, maps of all levels out."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfl_edge import optional
from gfl_edge.errors import BackendError
from train.models.batch_norm import fuse_batch_norm
from train.weights.find import CHECKPOINTS, data_folder
from train.weights.loading import load_detector

OPSET = 17  # what all four take

Floats = NDArray[np.float32]
Levels = list[tuple[Floats, Floats]]  # per stride: scores [A_i, 80], 0..1, and distributions' logits [A_i, 32]
Network = Callable[[Floats], Levels]  # takes float32 [1, 3, H, W], normalized BGR
Queue = Callable[[Iterable[Floats]], Iterator[Levels]]  # the same of many, in order, several under way at once


class PlainNetwork(nn.Module):
    """The network as NanoDet's own export gives it: normalized float input, an output pair per level, no decode."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        detector = load_detector(weights)
        self.strides = detector.config.strides
        self.body = fuse_batch_norm(detector)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Scores ``[1, A_i, C]`` of all levels, then distributions' logits ``[1, A_i, 4 * (reg_max + 1)]``."""
        cls_logits, reg_logits = self.body(images)
        scores = [level.sigmoid().flatten(2).transpose(1, 2) for level in cls_logits]
        return (*scores, *(level.flatten(2).transpose(1, 2) for level in reg_logits))


def export_plain(name: str, input_hw: tuple[int, int], path: Path) -> tuple[int, ...]:
    """Write the plain ONNX file of a published model, of fixed size; returns its strides."""
    network = PlainNetwork(data_folder() / CHECKPOINTS[name]).eval()
    names = [f"{part}_{stride}" for part in ("cls", "reg") for stride in network.strides]
    with torch.no_grad():
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, *input_hw),),
            str(path),
            input_names=["images"],
            output_names=names,
            opset_version=OPSET,
            dynamo=False,  # the older exporter's files are what all of the other run times were tried with
        )
    return network.strides


def onnxruntime_network(path: Path) -> Network:
    """ONNX Runtime with its defaults."""
    session = optional.load("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: _paired([output[0] for output in session.run(None, {"images": images})])


def openvino_network(path: Path) -> Network:
    """OpenVINO, in float32 and for latency, as gfl_edge runs it."""
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = optional.load("openvino").Core().compile_model(str(path), "CPU", settings).create_infer_request()

    def run(images: Floats) -> Levels:
        request.infer({0: images}, share_inputs=True)
        return _paired([tensor.data[0] for tensor in request.output_tensors])

    return run


def openvino_queue(path: Path) -> Queue:
    """OpenVINO, in float32 and for throughput: as many requests as it asks for, as Open Model Zoo's AsyncPipeline."""
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = optional.load("openvino").Core().compile_model(str(path), "CPU", settings)
    count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    requests = [compiled.create_infer_request() for _ in range(count)]

    def run(inputs: Iterable[Floats]) -> Iterator[Levels]:
        free, under_way = list(requests), deque[Any]()
        for images in inputs:
            if not free:
                yield finish(under_way, free)
            request = free.pop()
            request.start_async({0: images})
            under_way.append(request)
        while under_way:
            yield finish(under_way, free)

    def finish(under_way: deque[Any], free: list[Any]) -> Levels:
        request = under_way.popleft()
        request.wait()
        free.append(request)
        return _paired([tensor.data[0].copy() for tensor in request.output_tensors])

    return run


def opencv_network(path: Path) -> Network:
    """OpenCV's DNN module with its defaults."""
    network = optional.load("cv2").dnn.readNetFromONNX(str(path))
    names = network.getUnconnectedOutLayersNames()

    def run(images: Floats) -> Levels:
        network.setInput(images)
        outputs = [output.reshape(output.shape[-2:]) for output in network.forward(names)]
        # It names the outputs in an order of its own: first the scores, which are wider, of the finest level first
        return _paired(sorted(outputs, key=lambda output: (-output.shape[1], -output.shape[0])))

    return run


def ncnn_network(path: Path, threads: int) -> Network:
    """ncnn with its defaults; ``path`` is the ONNX file that was converted."""
    ncnn = optional.load("ncnn")
    net = ncnn.Net()
    net.opt.num_threads = threads
    param, weights = ncnn_files(path)
    net.load_param(str(param))
    net.load_model(str(weights))
    outputs = sum(line.count(" out") for line in param.read_text().splitlines())

    def run(images: Floats) -> Levels:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(images[0]))
        return _paired([np.array(extractor.extract(f"out{index}")[1]) for index in range(outputs)])

    return run


def ncnn_files(path: Path) -> tuple[Path, Path]:
    """ncnn's two files of an ONNX file, converted by pnnx if they are not there yet."""
    param, weights = path.with_suffix(".ncnn.param"), path.with_suffix(".ncnn.bin")
    if not (param.is_file() and weights.is_file()):
        optional.load("pnnx")
        program = str(Path(sys.executable).with_name("pnnx"))
        done = subprocess.run([program, path.name], cwd=path.parent, capture_output=True, text=True, check=False)
        if not (param.is_file() and weights.is_file()):
            raise BackendError(f"pnnx did not convert {path.name}: {(done.stderr or done.stdout)[-300:]}")
    return param, weights


def _paired(outputs: list[Any]) -> Levels:
    middle = len(outputs) // 2
    return list(zip(outputs[:middle], outputs[middle:], strict=True))
