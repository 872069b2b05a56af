"""The benchmark: how fast the service is beside bare ONNX Runtime and beside other servers, in one run.

Imports go one way only: __main__ > report | suite > figures | soak > contenders > nginx | octet | results >
server | ceiling | load | peers > wire | inputs.
"""
