"""The Open Inference Protocol without a transport: what REST and gRPC share.

Imports go one way only: `infer | description | statistics` > `messages`.
"""
