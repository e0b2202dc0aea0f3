"""Data sets as messages."""
