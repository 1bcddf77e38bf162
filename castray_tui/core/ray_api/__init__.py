"""Reading Ray, whatever its version: dashboard over HTTP, jobs, tokens, the GCS."""
