"""Faults: real servers over real stores under load, one fault each, and what the checker says of the clients' history.

`make test-faults` runs the trials (`trials_*.py`); the ordinary suite runs the quick one (`test_quick.py`). `trial` has
the load and what was seen, `disks` and `networks` have what fails. `deployments` runs the load over each deployment:

    python -m tests.faults.deployments sqlite --seconds 600
"""
