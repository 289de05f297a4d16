# gfl_edge on a CPU, x86_64 or aarch64. In a checkout:
#   docker build -f examples/docker/cpu.Dockerfile -t gfl-edge .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" gfl-edge detect photo.jpg
#   docker run --rm --user "$(id -u):$(id -g)" -p 8080:8080 gfl-edge camera --source rtsp://... --serve 0.0.0.0:8080 --headless
# Linted, but not built where it was written.
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir build==1.6.1 && python -m build --wheel --outdir /wheel

FROM python:3.12-slim
COPY --from=wheel /wheel /wheel
# hadolint ignore=DL3013
RUN wheel="$(echo /wheel/*.whl)" \
    && pip install --no-cache-dir "${wheel}[cpu,headless,eval,web]" \
    && rm -r /wheel \
    && useradd --uid 10001 --create-home detector
# With --user there is no home, and caches need a place
ENV HOME=/tmp
USER 10001
WORKDIR /data
ENTRYPOINT ["gfl-edge"]
CMD ["doctor"]
