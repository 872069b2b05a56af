"""The evaluation report of a bundle: its figures for programs, and pages for people.

`report.json` and `report.html` become part of the bundle, so they hold aggregates of the data and pictures of
the network alone. The gallery shows items of the data set, and never leaves the machine that made it.
"""
