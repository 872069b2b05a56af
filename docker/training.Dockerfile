# syntax=docker/dockerfile:1
# The training jobs. PyTorch's wheel for CPUs is not on PyPI, so it comes from PyTorch's own index, or from a
# folder that is handed in:
#   docker build --file docker/training.Dockerfile --tag octet/training .
#   docker build --build-context wheels=/folder/with/wheels --build-arg TORCH_OPTIONS="--find-links /wheels" …
# For GPUs, TORCH_OPTIONS="" takes PyPI's, with CUDA.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM scratch AS wheels

FROM ${PYTHON_IMAGE} AS packages
ARG TORCH_OPTIONS="--index-url https://download.pytorch.org/whl/cpu"
COPY constraints.txt pyproject.toml README.md LICENSE /source/
COPY bundle /source/bundle
COPY training /source/training
WORKDIR /source
# The versions are those of constraints.txt.
# hadolint ignore=SC2046,SC2086
RUN --mount=type=cache,target=/root/.cache/pip --mount=from=wheels,target=/wheels \
    python3 -m venv /opt/octet \
    && /opt/octet/bin/pip install --disable-pip-version-check ${TORCH_OPTIONS} $(grep '^torch==' constraints.txt) \
    && /opt/octet/bin/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print('\n'.join(p['dependencies'] + p['optional-dependencies']['cpu'] + p['optional-dependencies']['training']))" \
        > requirements.txt \
    && /opt/octet/bin/pip install --disable-pip-version-check --constraint constraints.txt --requirement requirements.txt

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Octet training" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=packages /opt/octet /opt/octet
COPY bundle /app/bundle
COPY training /app/training
# A volume takes its owner from this folder when it is first used: data, checkpoints, and models where none are mounted.
RUN install -d -o 1000 -g 1000 /octet /octet/models
ENV PATH=/opt/octet/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    OCTET_DATA_DIR=/octet/data \
    HOME=/tmp
WORKDIR /octet
USER 1000:1000
ENTRYPOINT ["python", "-m", "training"]
