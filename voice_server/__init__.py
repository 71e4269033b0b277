"""A speech server for agents: tokens in, speech out."""

__version__ = "0.1.0"
