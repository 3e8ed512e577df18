"""The version of this package, in one place: read by pyproject.toml, the command line and the health answer."""

VERSION = "0.1.0"
