"""The HTTP side: parse requests, call the registry, render answers. Errors become problems in one table.

Imports go one way only:
lane > heads | description > schemas > predict | infer | models | oip | repository | health | docs >
answering | roles > paths | signatures > inputs | outputs | raw | tensors | body | requests | compression >
instances | forms > calls | problems.
"""
