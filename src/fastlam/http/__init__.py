"""The HTTP server: uvloop, httptools, bounds. It knows nothing of Lambda."""
