"""The dispatcher past the size of this machine: its own code, on a virtual clock, with environments that are events.

    workload  (synthetic.py, azure.py, plain.py)   functions: how long they run, when they are called
        │
        ▼
    run.py    pools, targets and sources in a core.dispatcher.SimulatedDispatcher
        │
        ▼
    report.py what came of it, beside formulas.py where there is a closed form
"""
