"""Says whether a payload is one well-formed JSON value in UTF-8, and if not, why, in Lambda's own words."""

def scan_json(data: bytes) -> str | None:
    """None when `data` is well formed; else the message of Lambda's InvalidRequestContentException."""
