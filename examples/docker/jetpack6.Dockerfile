# gfl_edge on a Jetson with JetPack 6. On the board, in a checkout; BASE is
# NVIDIA's image l4t-jetpack of the board's release, such as r36.4.0, which has CUDA and TensorRT:
#   docker build -f examples/docker/jetpack6.Dockerfile --build-arg BASE=IMAGE -t gfl-edge .
#   docker run --rm --runtime nvidia -v "$PWD:/data" gfl-edge build --model MODEL.onnx --flavor tensorrt
#   docker run --rm --runtime nvidia --device /dev/video0 -v "$PWD:/data" gfl-edge camera --model MODEL.engine --headless
# pip's OpenCV has no GStreamer; a CSI camera needs one that has. Linted, but not built where it was written.
ARG BASE
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-libnvinfer python3-venv \
    && rm -rf /var/lib/apt/lists/*
# The environment sees the system's packages, TensorRT's module among them
RUN python3 -m venv --system-site-packages /opt/gfl_edge
ENV PATH=/opt/gfl_edge/bin:${PATH}
WORKDIR /source
COPY . .
# hadolint ignore=DL3013
RUN pip install --no-cache-dir build==1.6.1 \
    && python -m build --wheel --outdir /wheel \
    && wheel="$(echo /wheel/*.whl)" \
    && pip install --no-cache-dir "${wheel}[jetson6,headless]" \
    && rm -r /wheel /source/* \
    && useradd --uid 10001 --create-home --groups video detector
USER 10001
WORKDIR /data
ENTRYPOINT ["gfl-edge"]
CMD ["doctor"]
