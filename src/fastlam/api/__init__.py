"""The Lambda REST API: requests in, model-driven validation, the control plane's answers out; one file a resource."""
