"""Load for people who measure. `simulation` runs the dispatcher on a virtual clock."""
