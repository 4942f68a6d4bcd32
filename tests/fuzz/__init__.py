"""Damaged and hostile inputs, made by seed from small good ones, put through all that reads them.

    make fuzz SEED=7 N=4000 AREAS="readers images"       or, from the repository: python -m tests.fuzz --help

    inputs.py      small good data sets, pictures and caches, made in code, and what reads each of them
    stages.py      the same for runs, evaluations, models, overrides and settings
    mutations.py   what is done to them: bytes, trees of JSON and YAML, the files themselves
    harness.py     worker processes with limits on time and memory, and what counts as a finding

Every input has to be accepted, or refused with one message of the workbench's own.
"""
