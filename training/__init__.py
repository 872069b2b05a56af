"""PyTorch jobs that turn real data into bundles: `python -m training --help`.

Imports go one way only:
__main__ > recipes > assemble > publish | card | evaluate > quantize | calibrate | latency | fit >
export | scores > data | networks | synthetic | provenance > config > errors.
Stages are shared, recipes are straight lines that never import each other.
"""
