"""Faults: real servers over real stores under load, one fault each, and the checker's verdict on what clients saw.

`make test-faults` runs the trials (`trials_*.py`); the ordinary suite runs the quick ones (`test_quick.py`). `trial` has
the load and what was seen, `disks` and `networks` have what fails, and `deployments` runs the load over each deployment:

    python -m tests.faults.deployments sqlite --seconds 600
"""
