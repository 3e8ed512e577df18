"""Data-plane policy: which targets there are, what limits they have, how their failures are worded. `core` counts and
places.

The control plane is never asked while an invocation is on its way: `Targets` watches the store, builds a handle (a core
Target) for each function when it is first invoked, and replaces it when the function has changed.
"""
