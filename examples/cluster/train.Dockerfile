# What examples/cluster/train.yaml runs: PyTorch and this checkout.
#   docker build -f examples/cluster/train.Dockerfile -t registry.example.com/gfl-edge-train:latest .
# Linted, but not built where it was written.
FROM pytorch/pytorch:2.7.1-cuda12.8-cudnn9-runtime
WORKDIR /opt/gfl_edge
COPY . .
RUN pip install --no-cache-dir --editable '.[headless,train]'
WORKDIR /data
