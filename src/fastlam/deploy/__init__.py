"""Templates: what they describe is made in a daemon, and what a daemon holds is written as one.

    template file ── read (documents) ── parameters, conditions, Globals (template) ── plain resources (expansion)
                  ── in the order in which they need one another (stack) ── each created or updated (functions, …)

Speaks to a daemon, or to Lambda itself, through its API alone.
"""
