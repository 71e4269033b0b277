"""Failures on purpose: ``python -m tests.chaos`` breaks things and counts what listeners notice."""
