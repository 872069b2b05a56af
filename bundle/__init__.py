"""The contract between the job that makes a model and the server that runs it.

A *bundle* is an immutable directory `models/<name>/<version>/` that holds everything needed to
answer a request: two graphs (int8 and fp32), a manifest that describes them, golden examples that
prove them, and a model card. This package reads, checks and runs bundles. It knows neither the
training framework nor the transport.

Imports go one way only:
predictor > golden | rows > decoding | confidence | session | repository > onnx_file | manifest > errors.
"""
