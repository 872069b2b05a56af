"""A FastAPI service around the bundles of a model repository: `python -m service`.

Imports go one way only:
__main__ > supervisor > server > app > api > registry > batcher > metrics | logs | pool >
settings | errors > cpus.
Only `api` and what stands above it know HTTP.
"""

__version__ = "0.1.0"
