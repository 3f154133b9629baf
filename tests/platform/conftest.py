"""What the platform tests share."""

import os

import pytest

from lab.golden import Net


@pytest.fixture(scope="module")
def net():
    """One network for the module; what a test finds in it is its own to make."""
    if os.geteuid():
        pytest.skip("making network namespaces needs root")
    with Net() as made:
        yield made
