"""Any description of a model that a file may hold, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from gfl_edge.annotations.class_names import name_problem
from gfl_edge.engine.options import BuildOptions
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.spec import ModelSpec

SHA256 = st.text("0123456789abcdef", min_size=64, max_size=64)
FILE_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", fullmatch=True)
CLASS_NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name.strip() != "" and not name_problem(name))
WORKSPACES = st.none() | st.integers(1, 1 << 20)
SHARES = st.floats(0, 1)


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    """Any valid spec."""
    short_long = draw(st.none() | st.tuples(*[st.integers(320, 8192)] * 2).map(lambda pair: tuple(sorted(pair))))
    side = st.integers(32, 8192) if short_long is None else st.integers(1, 256).map(lambda steps: 32 * steps)
    reg_max = draw(st.integers(0, 255))
    max_candidates = draw(st.integers(1, 10**6))
    class_names = tuple(draw(st.lists(CLASS_NAMES, min_size=1, max_size=5, unique=True)))
    return ModelSpec(
        name=draw(FILE_NAMES),
        family=draw(FILE_NAMES),
        class_names=class_names,
        input_hw=draw(st.tuples(side, side)),
        resize="fit" if short_long else draw(st.sampled_from(("stretch", "letterbox", "fit", "stretch-cubic"))),
        mean_bgr=draw(st.tuples(*[st.floats(-1e6, 1e6)] * 3)),
        std_bgr=draw(st.tuples(*[st.floats(0, 1e6, exclude_min=True)] * 3)),
        strides=tuple(sorted(draw(st.sets(st.integers(1, 1024), min_size=1, max_size=8)))),
        reg_max=reg_max,
        point_offset=draw(st.floats(-1, 1)),
        precision=draw(st.sampled_from(("fp32", "fp16", "bf16"))),
        nms=draw(st.sampled_from(("graph", "none", "plugin", "raw") if reg_max else ("graph", "none"))),
        score_threshold=draw(SHARES),
        iou_threshold=draw(SHARES),
        max_candidates=max_candidates,
        max_detections=draw(st.integers(1, max_candidates)),
        source_sha256=draw(st.just("") | SHA256),
        short_long=short_long,
        quantized_layers=draw(st.integers(0, 10**9)),
        class_scores=draw(st.none() | st.tuples(*[SHARES] * len(class_names))),
        float_layers=tuple(draw(st.lists(st.text(st.characters(codec="utf-8")), max_size=3))),
        edge_sigma=reg_max > 0 and draw(st.booleans()),
        sigma_scale=draw(st.tuples(*[st.floats(1e-9, 1e3)] * 4)),
    )


@st.composite
def sidecars(draw: st.DrawFn) -> Sidecar:
    """Any valid sidecar."""
    return Sidecar(
        flavor=draw(st.sampled_from(("tensorrt", "rtx"))),
        version=draw(st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,4}){1,3}", fullmatch=True)),
        targets=tuple(draw(st.lists(st.integers(10, 999).map("sm{}".format), min_size=1, max_size=4))),
        max_batch=draw(st.integers(1, 65536)),
        onnx_sha256=draw(SHA256),
        engine_sha256=draw(SHA256),
        spec=draw(specs()),
        build_seconds=draw(st.floats(0, 1e9)),
        convolutions=draw(st.integers(0, 10**6)),
        int8_convolutions=draw(st.integers(0, 10**6)),
        options=draw(st.builds(BuildOptions, st.sampled_from(("auto", "graph")), st.booleans(), WORKSPACES)),
        cut_nms=draw(st.booleans()),
        device=draw(st.none() | st.text("NVIDIA RTX 2080", max_size=20)),
    )
