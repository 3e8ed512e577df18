"""Frozen records: what the control plane stores, what the data plane reads. No behaviour but names and keys."""
