"""The HTTP side: parse requests, call the registry, render answers. Errors become problems in one table.

Imports go one way only:
front > predict | models | health > description > inputs | outputs | body | requests > problems.
"""
