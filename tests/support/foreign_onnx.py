"""Small ONNX files in the forms in which other projects export GFL detectors, with random weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gfl_edge.media.images import write_image
from gfl_edge.ops.decode import points

WIDTH = 8  # channels of the body


@dataclass(frozen=True)
class Form:
    """How a file is written.

    Attributes:
        input_hw: pixels.
        first_stride: of the finest level.
        levels: how many, each of twice the stride of the one before.
        classes, reg_max: of the head.
        joined: one output ``[1, A, C + 4 * (reg_max + 1)]``; else two per level.
        shared: scores and distributions come from one convolution.
        sigmoid: scores are probabilities.
        layout: of the outputs of levels, NCHW, rows of cells, or columns.
        order: of the levels among the outputs, or None: fine to coarse.
        decoded: ends with boxes and NonMaxSuppression, and takes a scale factor.
        chosen: before NMS, cells are chosen by TopK and this operator.
        aligned: scores are the root of a product of two sigmoids, as in PicoDet's second head.
        resized: a map is brought to twice its size and back, by sizes that are computed in float.
        activation: of the body.
        points: of the boxes that a decoded file computes; None: it computes only how far their edges are.
        selects: scores are multiplied by what convolutions make of the surest bins, as in GFLv2's head.
        late: scores are multiplied by something after they were joined, in a decoded file.
        softmax: scores are a softmax over the classes.
        head_kernel: of a depthwise convolution before the last one; 0: there is none.
        body_kernel: of a depthwise convolution in the body; 0: there is none.
        swapped: how the channels change places before the normalization.
        by_channel: whether the normalization is one of each channel.
        scores_last: of the channels of a convolution that gives both.
        old_resize: a map is brought to twice its size by Upsample, and back by a convolution.
        ghosts: maps are joined with what a depthwise convolution makes of them.
        old: of IR version 3, whose initializers are inputs as well.
        normalization: in the graph, mean and deviation by channel.
        opset: of the operators.
        batch: of the input: 1, or a name.
        nhwc: whether the input is.
        batch_lost: a reshape drops the batch, so that it can only be 1.
        producer: who made it.
    """

    input_hw: tuple[int, int] = (64, 64)
    first_stride: int = 8
    levels: int = 3
    classes: int = 3
    reg_max: int = 7
    joined: bool = False
    shared: bool = True
    sigmoid: bool = True
    layout: Literal["nchw", "rows", "columns"] = "rows"
    order: tuple[int, ...] | None = None
    decoded: bool = False
    chosen: Literal["", "GatherND", "GatherElements"] = ""
    aligned: bool = False
    resized: bool = False
    activation: Literal["leaky", "hard swish", "relu", "silu", "relu6"] = "leaky"
    ghosts: bool = False
    old: bool = False
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    opset: int = 11
    batch: int | str = 1
    nhwc: bool = False
    producer: str = "pytorch"
    batch_lost: bool = False
    points: float | None = None
    selects: bool = False
    late: Literal["", "best", "mask"] = ""
    softmax: bool = False
    head_kernel: int = 0
    body_kernel: int = 0
    swapped: Literal["", "gather", "slice", "split"] = ""
    by_channel: bool = False
    old_resize: bool = False
    scores_last: bool = False

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the levels."""
        return tuple(self.first_stride << level for level in range(self.levels))


def foreign_onnx(form: Form, seed: int = 0) -> onnx.ModelProto:
    """The file."""
    return _Writer(form, seed).model()


class _Writer:
    def __init__(self, form: Form, seed: int) -> None:
        self.form, self._rng = form, np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._number = 800  # exporters number tensors

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output; the tensor."""
        return self.add_many(kind, 1, *inputs, **attributes)[0]

    def add_many(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """A node of several outputs."""
        names = [str(self._number + i) for i in range(count)]
        self._number += count
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def constant(self, values: NDArray[Any]) -> str:
        """A weight."""
        self._number += 1
        self.weights.append(numpy_helper.from_array(np.asarray(values), f"w{self._number}"))
        return self.weights[-1].name

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, group: int = 1, low: int = 0
    ) -> str:
        """A convolution; the first ``low`` channels, or the last, are negative, as logits of scores are."""
        shape = (outputs, inputs // group, kernel, kernel)
        values = self._rng.normal(0, 1.5 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        bias = self._rng.normal(0, 0.3, outputs).astype(np.float32)
        bias[slice(low, None) if low < 0 else slice(low)] -= 5 if low < 0 else 2
        pad = 0 if kernel == stride else kernel // 2
        sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "group": group}
        return self.add("Conv", x, self.constant(values), self.constant(bias), **sizes)

    def activated(self, x: str) -> str:
        """After the activation."""
        if self.form.activation == "leaky":
            return self.add("LeakyRelu", x, alpha=0.1)
        if self.form.activation == "relu":
            return self.add("Relu", x)
        if self.form.activation == "silu":
            return self.add("Mul", x, self.add("Sigmoid", x))
        if self.form.activation == "relu6":
            return self.add("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))
        shifted = self.add("Add", x, self.constant(np.float32(3)))
        gate = self.add("Clip", shifted, self.constant(np.float32(0)), self.constant(np.float32(6)))
        return self.add("Div", self.add("Mul", x, gate), self.constant(np.float32(6)))

    def model(self) -> onnx.ModelProto:
        """The file."""
        form, (height, width) = self.form, self.form.input_hw
        shape = [form.batch, height, width, 3] if form.nhwc else [form.batch, 3, height, width]
        inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)]
        levels = [self.head(*level) for level in self.maps()]
        if form.decoded:
            inputs.append(helper.make_tensor_value_info("scale_factor", TensorProto.FLOAT, [1, 2]))
            self.decode(levels)
        elif form.joined:
            step = -1 if form.scores_last else 1
            rows = [self.add("Concat", *level[::step], axis=1) for level in levels]
            columns = self.add("Concat", *rows, axis=2)
            width = form.classes + 4 * (form.reg_max + 1)
            self.give(self.add("Transpose", columns, perm=[0, 2, 1]), width)
        else:
            order = form.order or range(form.levels)
            self.give_levels([levels[i] for i in order])
        if form.old:
            listed = [helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in self.weights]
            inputs += listed
        graph = helper.make_graph(self.nodes, "torch-jit-export", inputs, self.outputs, self.weights)
        opsets = [helper.make_opsetid("", form.opset)]
        version = 3 if form.old else 7
        return helper.make_model(graph, producer_name=form.producer, opset_imports=opsets, ir_version=version)

    def maps(self) -> list[tuple[str, int, int]]:
        """The map of each level, with its cells: up and down."""
        form, x = self.form, "image"
        if form.nhwc:
            x = self.add("Transpose", x, perm=[0, 3, 1, 2])
        x = self.reversed(x) if form.swapped else x
        if form.normalization is not None and form.by_channel:
            parts = []
            for channel, numbers in enumerate(zip(*form.normalization, strict=True)):
                mean, std = (self.constant(np.float32(v)) for v in numbers)
                part = self.add("Gather", x, self.constant(np.int64([channel])), axis=1)
                parts.append(self.add("Div", self.add("Sub", part, mean), std))
            x = self.add("Concat", *parts, axis=1)
        elif form.normalization is not None:
            mean, std = (self.constant(np.float32(v).reshape(1, 3, 1, 1)) for v in form.normalization)
            x = self.add("Div", self.add("Sub", x, mean), std)
        x = self.activated(self.conv(x, 3, WIDTH, form.first_stride, form.first_stride))
        if form.body_kernel:
            x = self.activated(self.conv(x, WIDTH, WIDTH, form.body_kernel, group=WIDTH))
        if form.batch_lost:
            rows, columns = (-(-side // form.first_stride) for side in form.input_hw)
            x = self.add("Reshape", x, self.constant(np.asarray([WIDTH, rows, columns], np.int64)))
            x = self.add("Reshape", x, self.constant(np.asarray([1, WIDTH, rows, columns], np.int64)))
        if form.resized:
            x = self.bigger(self.bigger(x, 2.0), 0.5)
        if form.old_resize:
            scales = self.constant(np.float32([1, 1, 2, 2]))
            x = self.conv(self.add("Upsample", x, scales, mode="linear"), WIDTH, WIDTH, 2, 2)
        found = []
        for level, stride in enumerate(form.strides):
            if level:
                x = self.activated(self.conv(x, WIDTH, WIDTH, 3, 2))
            if form.ghosts:
                again = self.activated(self.conv(x, WIDTH, WIDTH, 3, group=WIDTH))
                x = self.activated(self.conv(self.add("Concat", x, again, axis=1), 2 * WIDTH, WIDTH, 1))
            found.append((x, -(-form.input_hw[0] // stride), -(-form.input_hw[1] // stride)))
        return found

    def reversed(self, x: str) -> str:
        """The channels in the other order."""
        if self.form.swapped == "gather":
            return self.add("Gather", x, self.constant(np.int64([2, 1, 0])), axis=1)
        if self.form.swapped == "slice":
            return self.add("Slice", x, *(self.constant(np.int64([v])) for v in (-1, -4, 1, -1)))
        return self.add("Concat", *self.add_many("Split", 3, x, axis=1)[::-1], axis=1)

    def bigger(self, x: str, factor: float) -> str:
        """A map at another size, as PyTorch's exporter computes it: by the sizes times a number, rounded down."""
        shape = self.add("Shape", x)
        parts = [self.add("Gather", shape, self.constant(np.asarray([axis], np.int64)), axis=0) for axis in range(4)]
        for axis in (2, 3):
            real = self.add("Cast", parts[axis], to=TensorProto.FLOAT)
            floor = self.add("Floor", self.add("Mul", real, self.constant(np.float32(factor))))
            parts[axis] = self.add("Cast", floor, to=TensorProto.INT64)
        return self.add("Resize", x, "", "", self.add("Concat", *parts, axis=0), mode="nearest")

    def head(self, x: str, rows: int, columns: int) -> tuple[str, str]:
        """Scores ``[1, C, cells]`` and distributions ``[1, 4 * (reg_max + 1), cells]`` of a level."""
        form, edges = self.form, 4 * (self.form.reg_max + 1)
        if form.head_kernel:
            x = self.activated(self.conv(x, WIDTH, WIDTH, form.head_kernel, group=WIDTH))
        if form.shared:
            low = -form.classes if form.scores_last else form.classes
            both = self.conv(x, WIDTH, form.classes + edges, 1, low=low)
            sizes = (edges, form.classes) if form.scores_last else (form.classes, edges)
            scores, distributions = self.split(both, *sizes)[:: -1 if form.scores_last else 1]
        else:
            scores = self.conv(x, WIDTH, form.classes, 1, low=form.classes)
            distributions = self.conv(x, WIDTH, edges, 1)
        if form.softmax:
            scores = self.add("Softmax", scores, axis=1)
        elif form.sigmoid or form.decoded:
            scores = self.add("Sigmoid", scores)
        if form.selects:
            scores = self.add("Mul", scores, self.quality(distributions, rows, columns))
        if form.aligned:
            alignment = self.add("Sigmoid", self.conv(x, WIDTH, 1, 1))
            product = self.add("Mul", scores, alignment)
            scores = self.add("Pow", product, self.constant(np.float32(0.5)))
        if form.layout == "nchw" and not form.joined and not form.decoded:
            return scores, distributions
        shape = self.constant(np.int64([1, 0, rows * columns]))
        return self.add("Reshape", scores, shape), self.add("Reshape", distributions, shape)

    def quality(self, distributions: str, rows: int, columns: int) -> str:
        """A number of each cell that convolutions make of the largest two bins of each edge."""
        shape = np.int64([4, self.form.reg_max + 1, rows * columns])
        bins = self.add("Softmax", self.add("Reshape", distributions, self.constant(shape)), axis=1)
        largest, _ = self.add_many("TopK", 2, bins, self.constant(np.int64([2])), axis=1)
        x = self.add("Reshape", largest, self.constant(np.int64([1, 8, rows, columns])))
        return self.add("Sigmoid", self.conv(x, 8, 1, 1))

    def split(self, x: str, *sizes: int) -> tuple[str, str]:
        """Channels of a map in two."""
        if self.form.opset < 13:
            first, second = self.add_many("Split", 2, x, axis=1, split=list(sizes))
        else:
            first, second = self.add_many("Split", 2, x, self.constant(np.int64(sizes)), axis=1)
        return first, second

    def give(self, name: str, *widths: int) -> None:
        """Make a tensor an output."""
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))

    def give_levels(self, levels: list[tuple[str, str]]) -> None:
        """Two lists of outputs, one after the other."""
        for names in zip(*levels, strict=True):
            for name in names:
                rows = self.form.layout == "rows"
                self.give(self.add("Transpose", name, perm=[0, 2, 1]) if rows else name)

    def best(self, scores: str, distributions: str) -> tuple[str, str]:
        """The cell of the highest score of a level, as mmdeploy chooses some."""
        highest = self.add("ReduceMax", scores, axes=[1], keepdims=0)
        _, places = self.add_many("TopK", 2, highest, self.constant(np.asarray([1], np.int64)), axis=1)
        column = self.add("Unsqueeze", places, axes=[2])
        if self.form.chosen == "GatherND":
            zero = self.add("Mul", column, self.constant(np.asarray([0], np.int64)))
            index = self.add("Concat", zero, column, axis=2)
            rows = (self.add("Transpose", x, perm=[0, 2, 1]) for x in (scores, distributions))
            first, second = (self.add("Transpose", self.add("GatherND", x, index), perm=[0, 2, 1]) for x in rows)
            return first, second
        widths = (self.form.classes, 4 * (self.form.reg_max + 1))
        shapes = (self.constant(np.asarray([1, width, 1], np.int64)) for width in widths)
        first, second = (
            self.add("GatherElements", x, self.add("Expand", column, shape), axis=2)
            for x, shape in zip((scores, distributions), shapes, strict=True)
        )
        return first, second

    def decode(self, levels: list[tuple[str, str]]) -> None:
        """Boxes by softmax and expectation, scaled, and NMS."""
        form = self.form
        if form.chosen:
            levels = [self.best(*level) for level in levels]
        scores, distributions = (self.add("Concat", *parts, axis=2) for parts in zip(*levels, strict=True))
        bins = self.constant(np.int64([1, 4, form.reg_max + 1, -1]))
        split = self.add("Transpose", self.add("Reshape", distributions, bins), perm=[0, 1, 3, 2])
        projected = self.constant(np.arange(form.reg_max + 1, dtype=np.float32))
        terms = self.add("Mul", self.add("Softmax", split, axis=3), projected)
        distances = self.add("ReduceMean", terms, axes=[3], keepdims=0)
        if form.points is not None:
            distances = self.boxes(self.add("ReduceSum", terms, axes=[3], keepdims=0), form.points)
        if form.late == "mask":
            above = self.add("Greater", scores, self.constant(np.float32(0.05)))
            scores = self.add("Mul", scores, self.add("Cast", above, to=TensorProto.FLOAT))
        elif form.late:
            scores = self.add("Mul", scores, self.add("ReduceMax", scores, axes=[1]))
        edges = self.add("Transpose", distances, perm=[0, 2, 1])
        scale = self.add("Concat", "scale_factor", "scale_factor", axis=1)
        boxes = self.add("Div", edges, scale)
        limits = (self.constant(np.asarray(v)) for v in (np.int64([100]), np.float32([0.6]), np.float32([0.025])))
        kept = self.add("NonMaxSuppression", boxes, scores, *limits)
        self.outputs.append(helper.make_tensor_value_info(boxes, TensorProto.FLOAT, None))
        self.outputs.append(helper.make_tensor_value_info(kept, TensorProto.INT64, None))

    def boxes(self, distances: str, offset: float) -> str:
        """Edges in pixels ``[1, 4, A]``."""
        centers, strides = points(self.form.input_hw, self.form.strides, offset)
        signs = np.float32([-1, -1, 1, 1])[None, :, None]
        moved = self.add("Mul", distances, self.constant(signs * strides))
        return self.add("Add", moved, self.constant(np.tile(centers.T, (2, 1))[None]))


SQUARE, SQUARE_CELLS, STRIDE = 24, 3, 8  # pixels and cells of the squares that the finder finds


def square_finder(red: int = 2, classes: int = 1) -> onnx.ModelProto:
    """A detector that is right: red squares of 3 x 3 cells of stride 8, with points in the middle of cells.

    It takes ImageNet's normalization of 64 x 64 pixels, letterboxed or not.

    Args:
        red: channel that is red: 2 of BGR, 0 of RGB.
        classes: of which it finds the first.
    """
    form = Form(levels=1, classes=classes)
    writer = _Writer(form, 0)
    cells = np.zeros((1, 3, STRIDE, STRIDE), np.float32)
    cells[0, red], cells[0, 2 - red] = 1 / STRIDE**2, -1 / STRIDE**2
    sizes = {"kernel_shape": [STRIDE] * 2, "strides": [STRIDE] * 2}
    redness = writer.add("LeakyRelu", writer.add("Conv", "image", writer.constant(cells), **sizes), alpha=0.1)
    width = classes + 4 * (form.reg_max + 1)
    weights, bias = np.zeros((width, 1, 3, 3), np.float32), np.full(width, -10, np.float32)
    # 9 cells of pure red give 36.5, 6 of them 24
    weights[0], bias[0] = 2.0, -66.0
    for edge in range(4):
        first = classes + edge * (form.reg_max + 1)
        bias[first + 1 : first + 3] = 10.0  # 1.5 strides to each edge
    sizes = {"kernel_shape": [3, 3], "pads": [1] * 4}
    maps = writer.add("Conv", redness, writer.constant(weights), writer.constant(bias), **sizes)
    scores, distributions = writer.split(maps, classes, 4 * (form.reg_max + 1))
    writer.give(writer.add("Sigmoid", scores))
    writer.give(distributions)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph(writer.nodes, "finder", [image], writer.outputs, writer.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", form.opset)], ir_version=7)


def write_squares(folder: Path, count: int = 6) -> Path:
    """Images with such squares in ``folder / "images"``, and their annotations; the path of these."""
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for number in range(1, count + 1):
        image = np.full((64, 64, 3), 114, np.uint8)
        for left in rng.permutation([0, 40])[: 1 + number % 2]:
            x, y = int(left), STRIDE * int(rng.integers(0, 6))
            image[y : y + SQUARE, x : x + SQUARE] = (0, 0, 255)
            box = {"bbox": [x, y, SQUARE, SQUARE], "image_id": number, "category_id": 1, "id": len(boxes) + 1}
            boxes.append({**box, "iscrowd": 0, "area": SQUARE**2})
        write_image(folder / "images" / f"{number}.png", image)
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "square"}]}
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def weights_beside(model: onnx.ModelProto, name: str) -> tuple[onnx.ModelProto, bytes]:
    """The model as PyTorch writes it from 2.9 on, and the content of the file ``name``, which holds its weights."""
    found, parts, at = onnx.ModelProto.FromString(model.SerializeToString()), [], 0
    for tensor in (tensor for tensor in found.graph.initializer if tensor.data_type == TensorProto.FLOAT):
        content = np.ascontiguousarray(numpy_helper.to_array(tensor)).tobytes()
        said = {"location": name, "offset": str(at), "length": str(len(content))}
        for field in ("raw_data", "float_data"):
            tensor.ClearField(field)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in said.items():
            tensor.external_data.add(key=key, value=value)
        parts.append(content)
        at += len(content)
    return found, b"".join(parts)
