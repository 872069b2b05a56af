"""The HTTP side: parse requests, call the registry, render answers. Errors become problems in one table.

Imports go one way only:
lane > heads > predict | models | health > description | paths > inputs | outputs | body | requests >
problems.
"""
