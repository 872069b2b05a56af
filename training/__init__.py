"""PyTorch jobs that turn real data into bundles: `python -m training --help`.

Imports go one way only:
__main__ > recipes > publish > export | quantize | calibrate > data | networks | scores > config.
Stages are shared, recipes are straight lines that never import each other.
"""
