"""Finding Ray clusters: one module a method, one that merges."""
