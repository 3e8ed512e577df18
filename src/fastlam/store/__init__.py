"""Records with watchers, and code artifacts by their SHA-256: everything that outlives a request."""
