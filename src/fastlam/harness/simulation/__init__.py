"""The dispatcher past the size of this machine: its own code, on a virtual clock, with environments that are events.

A workload (plain.py, synthetic.py, azure.py) is a list of functions: how long they run, and when they are called.
run.py puts them into a core.dispatcher.SimulatedDispatcher, report.py tells what came of it, beside the closed forms
of formulas.py where there is one.
"""
