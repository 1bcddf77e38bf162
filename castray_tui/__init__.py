"""castray: every Ray cluster in reach in one terminal, and files cast to any of their nodes."""

__version__ = "0.1.0"
