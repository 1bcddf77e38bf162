"""Reading Ray: its dashboard over HTTP, its GCS, its jobs, its tokens; tolerant of versions."""
