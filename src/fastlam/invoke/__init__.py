"""The invoke door: one file an invocation type. What comes in is a resolved target and a raw payload; nothing is parsed
here.
"""
