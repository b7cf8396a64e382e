# The server, without torch. Targets: cpu (the default) and cuda; docs/containers.md says how to build and run them.
# A virtual environment needs Python at the path where it was made, so every stage starts from the same image.
ARG PYTHON_IMAGE=python:3.11-slim

# pip, the build backend and the wheel of this source tree. None of them is in a final image.
FROM ${PYTHON_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all:
WORKDIR /build
RUN python -m venv tools && python -m venv --without-pip /opt/venv
COPY constraints.txt .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    tools/bin/pip install --constraint constraints.txt hatchling
COPY . source
RUN tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir wheels ./source

FROM builder AS cpu-builder
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    tools/bin/pip --python /opt/venv install --constraint constraints.txt "$(echo wheels/*.whl)[serve,redis]"

# constraints.txt pins the CPU's packages. These are the GPU's, for the CUDA that onnxruntime-gpu is built with.
FROM builder AS cuda-builder
RUN printf '%s\n' \
    onnxruntime-gpu==1.31.1 \
    nvidia-cublas==13.1.1.3 \
    nvidia-cuda-nvrtc==13.0.88 \
    nvidia-cuda-runtime==13.0.96 \
    nvidia-cudnn-cu13==9.20.0.48 \
    nvidia-cufft==12.0.0.61 \
    nvidia-curand==10.4.0.35 \
    nvidia-nvjitlink==13.0.88 \
    > cuda-constraints.txt
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    tools/bin/pip --python /opt/venv install --constraint constraints.txt --constraint cuda-constraints.txt \
    "$(echo wheels/*.whl)[serve-gpu,redis]"

# The server writes no files, so the root file system may be read-only. Telemetry is off.
FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 ARRAYLSTM_HOST=0.0.0.0 ARRAYLSTM_PORT=8080
LABEL org.opencontainers.image.title="arraylstm-serve" org.opencontainers.image.licenses="MIT"
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "-c", "import http.client, os, sys; \
probe = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('ARRAYLSTM_ADMIN_PORT') or os.environ['ARRAYLSTM_PORT']), timeout=2); \
probe.request('GET', '/healthz'); sys.exit(probe.getresponse().status != 200)"]
ENTRYPOINT ["arraylstm-serve"]
CMD ["/bundle"]

FROM runtime AS cuda
# NVIDIA's container runtime adds the host's driver. Without it the start fails; the server does not run on the CPU then.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility ARRAYLSTM_DEVICE=cuda
COPY --from=cuda-builder /opt/venv /opt/venv
RUN arraylstm-serve --version && ! python -c "import torch" 2>/dev/null

FROM runtime AS cpu
COPY --from=cpu-builder /opt/venv /opt/venv
RUN arraylstm-serve --version && ! python -c "import torch" 2>/dev/null
