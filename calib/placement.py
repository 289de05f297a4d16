"""Where Q/DQ pairs go: on what TensorRT or OpenVINO computes in INT8, less what has to stay float.

Convolutions read INT8 weights, with a scale per channel, and INT8 activations. For TensorRT so do their neighbors, by
the recommendations of its developer guide ("Q/DQ placement"): an addition fuses with the convolution before it and
reads the other summand in INT8, a resize has INT8 on both sides, and additions and concatenations take what is INT8
anyway. It moves a rounding back over what only moves or picks values (reshapes, slices, max pooling), so that these
need no pair. On CPUs all of that gains nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from onnx import ModelProto, NodeProto

from calib.qdq import DEQUANTIZE, QdqGraph, node_id
from gfl_edge.errors import CalibrationError
from gfl_edge.ops.onnx_graph import OnnxGraph
from gfl_edge.terminal.printable import word

MIN_OPSET = 13  # per-channel scales


def check_quantizable(model: ModelProto, origin: str) -> None:
    """Raise CalibrationError for a model that is quantized already, or too old for scales per channel."""
    opset = next((opset.version for opset in model.opset_import if opset.domain == ""), 0)
    if opset < MIN_OPSET:
        raise CalibrationError(
            f"{origin} is of opset {opset}, scales per channel need {MIN_OPSET}. Export it again with: "
            f"python export/to_onnx.py --weights CHECKPOINT -o {word(origin)}"
        )
    if any(node.op_type == DEQUANTIZE for node in model.graph.node):
        raise CalibrationError(f"{origin} is quantized already. Give the float model it was made from")


def place(model: ModelProto, for_cpu: bool = False) -> QdqGraph:
    """Say where a float32 graph without NMS gets Q/DQ pairs; it is not changed.

    The final convolutions of the head, what comes after them and the normalization stay as they are, and so do
    convolutions whose weights are computed.

    Args:
        model: outputs boxes and scores, or raw maps.
        for_cpu: pairs for convolutions only, unsigned and as :mod:`calib.processors` asks.

    Raises:
        CalibrationError: there is nothing to quantize.
    """
    graph, stays = OnnxGraph(model), float_nodes(model)
    free = [node for node in graph.nodes if node_id(node) not in stays]
    convolutions = [node for node in free if node.op_type == "Conv" and node.input[1] in graph.initializers]
    reads: dict[str, tuple[int, ...]] = {node_id(node): (0, 1) for node in convolutions}  # activation and weights
    if for_cpu:
        return QdqGraph(model, reads, unsigned=True)
    neighbors = _Neighbors(graph, free, {str(node.input[0]) for node in convolutions})
    return QdqGraph(model, reads | neighbors.reads, neighbors.shared)


class _Neighbors:
    """What TensorRT computes in INT8 beside convolutions.

    Args:
        graph: float.
        free: its nodes that need not stay float, in topological order.
        quantized: the activations that convolutions read in INT8.

    Attributes:
        reads: node -> indices of the inputs that it reads in INT8.
        shared: groups of activations of one scale.
    """

    def __init__(self, graph: OnnxGraph, free: Iterable[NodeProto], quantized: Collection[str]) -> None:
        self._graph, self._quantized = graph, set(quantized)
        self._depth = _depths(graph)
        self.reads: dict[str, tuple[int, ...]] = {}
        self.shared: list[set[str]] = []
        nodes = tuple(free)
        for node in nodes:
            if node.op_type == "Add":
                self._read(node, self._residual(node))
        for node in reversed(nodes):
            if node.op_type == "Resize" and node.output[0] in self._quantized:
                self._read(node, (0,))
                self._share({node.input[0], node.output[0]})
        for node in nodes:
            if node.op_type in ("Add", "Concat"):
                self._read(node, self._in_int8(node))
            if node.op_type == "Concat" and node.output[0] in self._quantized:
                self._share({node.output[0], *(node.input[i] for i in self._in_int8(node))})

    def _residual(self, add: NodeProto) -> tuple[int, ...]:
        """The summand that is not fused: where a convolution's output goes nowhere else, the other one."""
        if len(add.input) != 2 or any(name not in self._graph.producers for name in add.input):
            return ()
        makers = [self._graph.producers[name] for name in add.input if len(self._graph.readers[name]) == 1]
        alone = [node_id(maker) for maker in makers if maker.op_type == "Conv"]
        if not alone:
            return ()
        fused = max(alone, key=self._depth.__getitem__)  # not with a shortcut's
        return tuple(i for i, name in enumerate(add.input) if name != fused)

    def _in_int8(self, node: NodeProto) -> tuple[int, ...]:
        return tuple(i for i, name in enumerate(node.input) if name in self._quantized)

    def _read(self, node: NodeProto, indices: tuple[int, ...]) -> None:
        if indices:
            self.reads[node_id(node)] = tuple(sorted({*indices, *self.reads.get(node_id(node), ())}))
            self._quantized.update(node.input[i] for i in indices)

    def _share(self, names: set[str]) -> None:
        """Join ``names`` with the groups that they belong to already."""
        others = [group for group in self.shared if not group & names]
        joined = names.union(*(group for group in self.shared if group & names))
        self.shared = [*others, joined]


def _depths(graph: OnnxGraph) -> dict[str, int]:
    """How many nodes lie before each tensor at most."""
    depths: dict[str, int] = {}
    for node in graph.nodes:
        depth = 1 + max((depths.get(name, 0) for name in node.input), default=0)
        depths.update(dict.fromkeys(node.output, depth))
    return depths


def float_nodes(model: ModelProto) -> set[str]:
    """The nodes that stay float whatever they would gain: normalization, final convolutions and decode.

    A convolution is final where none follows it, and where a softmax follows before another convolution does (the edge
    distributions of GFLv2, whose quality is predicted from them); what comes after a softmax is float, too. The softmax
    of an attention, whose shares go into a product of matrices, is none of these.

    Returns:
        The nodes, see :func:`calib.qdq.node_id`.
    """
    graph = OnnxGraph(model)
    softmaxes = {node_id(node) for node in graph.nodes if node.op_type == "Softmax" and not _attends(node, graph)}
    before_conv: set[str] = set()  # nodes from which a convolution is reached
    softmax_next: set[str] = set()  # ... or a softmax before any convolution
    for node in reversed(graph.nodes):  # topological order
        followers = [reader for output in node.output for reader in graph.readers.get(output, [])]
        if any(reader.op_type == "Conv" or node_id(reader) in before_conv for reader in followers):
            before_conv.add(node_id(node))
        if any(
            node_id(reader) in softmaxes or (reader.op_type != "Conv" and node_id(reader) in softmax_next)
            for reader in followers
        ):
            softmax_next.add(node_id(node))
    convolutions = {node_id(node) for node in graph.nodes if node.op_type == "Conv"}
    after_conv, after_softmax = _after(graph.nodes, convolutions), _after(graph.nodes, softmaxes)
    return {
        node_id(node)
        for node in graph.nodes
        if node_id(node) not in before_conv  # decode, and final convolutions
        or node_id(node) in softmax_next
        or node_id(node) in softmaxes
        or node_id(node) in after_softmax
        or (node.op_type != "Conv" and node_id(node) not in after_conv)  # normalization
    }


def _attends(softmax: NodeProto, graph: OnnxGraph) -> bool:
    """Whether a softmax gives the shares of an attention, perhaps in another precision."""
    readers = graph.readers.get(softmax.output[0], [])
    if len(readers) == 1 and readers[0].op_type == "Cast":
        readers = graph.readers.get(readers[0].output[0], [])
    return bool(readers) and all(reader.op_type == "MatMul" for reader in readers)


def _after(nodes: Iterable[NodeProto], sources: Collection[str]) -> set[str]:
    """The nodes that come after one of ``sources``."""
    tainted: set[str] = set()
    found: set[str] = set()
    for node in nodes:
        comes_after = any(name in tainted for name in node.input)
        if comes_after:
            found.add(node_id(node))
        if comes_after or node_id(node) in sources:
            tainted.update(node.output)
    return found
