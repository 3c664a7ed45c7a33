"""Measuring on this machine: time in turns, transient memory, and what machine it is."""
