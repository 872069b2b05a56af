# syntax=docker/dockerfile:1
# The model repository as an image, which Kubernetes unpacks beside the service. Build it from the repository's
# directory, after the image of the service:
#   docker build --file docker/models.Dockerfile --tag octet/models:1 models
# It stands on the image of the service, whose package `bundle` verifies what is unpacked.
ARG SERVICE_IMAGE=octet/service:0.1.0
# hadolint ignore=DL3006
FROM ${SERVICE_IMAGE}
LABEL org.opencontainers.image.title="Octet: models"
COPY . /models
