# syntax=docker/dockerfile:1
# The service: `bundle` and `service` alone, without a training framework. Build it from the repository's root:
#   docker build --file docker/service.Dockerfile --tag octet/service .
# FLAVOUR is cpu, openvino or cuda; docs/deployment.md tells what each was tested on.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
ARG FLAVOUR=cpu
COPY docker/locks/${FLAVOUR}.txt /requirements.txt
# Every file is pinned by its digest. pip stays out of the environment, and so do tests and what prepares models.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv --without-pip /opt/octet \
    && python3 -m pip --python /opt/octet/bin/python install \
        --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes --requirement /requirements.txt \
    && rm -rf /opt/octet/lib/python3.*/site-packages/onnxruntime/transformers \
        /opt/octet/lib/python3.*/site-packages/onnxruntime/tools \
        /opt/octet/lib/python3.*/site-packages/onnxruntime/quantization \
    && find /opt/octet/lib/python3.*/site-packages/numpy -type d -name tests -prune -exec rm -rf {} + \
    && find /opt/octet/lib -type d -path '*/nvidia/*/lib' > /libraries.conf
COPY bundle /app/bundle
COPY service /app/service
RUN /opt/octet/bin/python -m compileall -q /app

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Octet" \
      org.opencontainers.image.description="A model server for quantized models with honest confidence" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# Of the CUDA flavour, the linker finds the libraries among the packages; of others the list is empty.
COPY --from=packages /libraries.conf /etc/ld.so.conf.d/octet.conf
COPY --from=packages /opt/octet /opt/octet
COPY --from=packages /app /app
# A volume takes its owner from this folder when it is first used.
RUN ldconfig && install -d -o 10001 -g 10001 -m 700 /secrets
WORKDIR /app
ENV PATH=/opt/octet/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    OCTET_HOST=0.0.0.0 \
    OCTET_PORT=8000 \
    OCTET_GRPC_PORT=8001 \
    OCTET_MODELS=/models \
    OCTET_LOG_FORMAT=json
EXPOSE 8000 8001
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --start-interval=1s --retries=3 \
    CMD ["python", "-m", "service.healthcheck"]
ENTRYPOINT ["python", "-m", "service"]
