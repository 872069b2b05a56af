"""The Open Inference Protocol over gRPC, on a port of its own and on the event loop of the HTTP server.

Imports go one way only: `server` > `handlers` > `inference | inference_service | health` > `answering |
tensors` > `failures` > the generated messages. Tensors are checked, run and described by `service.oip`, as
for REST.
"""
