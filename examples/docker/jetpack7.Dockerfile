# gfl_edge on a Jetson with JetPack 7. On the board, in a checkout; BASE is
# an image of Ubuntu 24.04 with the CUDA and TensorRT of the board's release, such as NVIDIA's tensorrt:25.08-py3 for
# JetPack 7.0; l4t-jetpack ended with JetPack 6:
#   docker build -f examples/docker/jetpack7.Dockerfile --build-arg BASE=IMAGE -t gfl-edge .
#   docker run --rm --runtime nvidia --user "$(id -u):$(id -g)" -v "$PWD:/data" gfl-edge build --model MODEL.onnx --flavor tensorrt
#   docker run --rm --runtime nvidia --device /dev/video0 -v "$PWD:/data" gfl-edge camera --model MODEL.engine --headless
# With -p 8080:8080 and --serve 0.0.0.0:8080, the camera has its live page. pip's OpenCV has no GStreamer; a CSI camera needs
# one that has. Linted, but not built where it was written.
ARG BASE
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir build==1.6.1 && python -m build --wheel --outdir /wheel

# hadolint ignore=DL3006
FROM ${BASE}
COPY --from=wheel /wheel /wheel
# The environment sees the system's packages, TensorRT's module among them
# hadolint ignore=DL3008,DL3013
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && (python3 -c "import tensorrt" || apt-get install --yes --no-install-recommends python3-libnvinfer) \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/gfl_edge \
    && wheel="$(echo /wheel/*.whl)" \
    && /opt/gfl_edge/bin/pip install --no-cache-dir "${wheel}[jetson7,headless,web]" \
    && rm -r /wheel \
    && useradd --uid 10001 --create-home --groups video detector
# With --user there is no home, and caches need a place
ENV HOME=/tmp PATH=/opt/gfl_edge/bin:${PATH}
USER 10001
WORKDIR /data
ENTRYPOINT ["gfl-edge"]
CMD ["doctor"]
