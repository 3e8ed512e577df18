"""Requests to AWS, or to what speaks its protocols, without a thread for each that waits: botocore's serializers,
signers and parsers over an HTTP client of the loop's own.
"""
