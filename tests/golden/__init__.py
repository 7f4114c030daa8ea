"""One module a golden case: our numbers for its outputs. The module's name is the case's.

    outputs(case: GoldenCase) -> Mapping[str, Tensor]   by the output's name; more than asked for is fine
    LEFT_OUT: Mapping[str, str]                         outputs that are not ours, with the reason (optional)

`python -m tests.golden DIR` runs every case of a folder; tests/test_golden.py those of the shared material.
"""
