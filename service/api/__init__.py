"""The HTTP side: parse requests, call the registry, render answers. Errors become problems in one table.

Imports go one way only: predict > inputs | outputs | body > problems > requests; models and health stand
beside predict.
"""
