"""What castray draws, one screen a module."""
