"""The engine: finds clusters, watches them and moves files, without any terminal."""
