"""Runtimes, one file a language: what an environment of that language is started with."""
