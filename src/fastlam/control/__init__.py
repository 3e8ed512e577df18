"""What the control plane does, one file a resource: checks a request against the rules, changes records, answers with
records.

Requests are mappings with the API's member names, as boto3 takes them, blobs as bytes. Nothing here knows of HTTP.
"""
