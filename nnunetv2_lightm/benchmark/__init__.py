"""Trainers compared under equal conditions, and the report of it.

:mod:`.results` is the file that a comparison leaves, :mod:`.report` makes pages of one or several such files.
"""
