"""What ``chaos_transfers.py`` is made of: a scene, faults, and what must hold after each run."""
