"""The command line for people: a thin layer above the service and the training jobs.

Nothing of either is imported before a command needs it. Containers run `python -m service`.
"""
