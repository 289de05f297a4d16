"""Head outputs of the bundled detector: as its file computes them, and as they are stored for the kernels."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import onnxruntime

from benchmarks.kernels import head_outputs
from gfl_edge.spec import read_spec
from gfl_edge.zoo.bundled import bundled_model


def test_they_are_what_the_scores_are_made_of(tmp_path):
    spec = read_spec(bundled_model())
    frame = np.random.default_rng(0).integers(0, 256, (*spec.input_hw, 3), np.uint8)
    clip = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, frame.shape[1::-1])
    clip.write(frame)
    clip.release()
    ((logits, reg),) = head_outputs._raw_maps(tmp_path / "clip.avi")
    model = onnx.load(bundled_model())
    model.graph.output.append(onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"images": frame[None]})
    np.testing.assert_allclose(head_outputs._sigmoid(logits), scores[0], rtol=0.01)  # logits are float16
    assert reg.shape == (len(scores[0]), 4 * (spec.reg_max + 1))


def test_those_stored_are_of_a_file_of_that_size():
    spec = read_spec(bundled_model())
    height, width = spec.input_hw
    anchors = sum((height // stride) * (width // stride) for stride in spec.strides)
    for arrays in head_outputs.load().values():
        assert arrays["scores"].shape == (1, anchors, spec.num_classes)
        assert arrays["reg_logits"].shape == (1, anchors, 4 * (spec.reg_max + 1))
