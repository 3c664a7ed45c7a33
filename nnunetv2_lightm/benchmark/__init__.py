"""Comparisons of trainers under equal conditions, and their reports.

:mod:`.results` is the file that a comparison leaves; :mod:`.report` turns one or several such files into pages.
"""
