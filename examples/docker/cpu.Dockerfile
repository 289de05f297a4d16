# gfl_edge on a CPU, x86_64 or aarch64. In a checkout:
#   docker build -f examples/docker/cpu.Dockerfile -t gfl-edge .
#   docker run --rm -v "$PWD:/data" gfl-edge detect photo.jpg
# Linted, but not built where it was written.
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir build==1.6.1 && python -m build --wheel --outdir /wheel

FROM python:3.12-slim
COPY --from=wheel /wheel /wheel
# hadolint ignore=DL3013
RUN wheel="$(echo /wheel/*.whl)" \
    && pip install --no-cache-dir "${wheel}[cpu,headless,eval]" \
    && rm -r /wheel \
    && useradd --uid 10001 --create-home detector
USER 10001
WORKDIR /data
ENTRYPOINT ["gfl-edge"]
CMD ["doctor"]
