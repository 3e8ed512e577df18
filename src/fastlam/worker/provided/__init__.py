"""Modules that Lambda's Python runtimes bring along and that no package on the index has to bring: found by their own
names, in this directory, by functions only (worker.imports).
"""
