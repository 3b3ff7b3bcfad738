"""Dagbok runs agent plans as DAGs and keeps a durable diary of every step."""

__version__ = "0.1.0"
