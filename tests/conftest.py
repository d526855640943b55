"""Shared fixtures: the catalogue, read once."""

import pytest
from bugbench.catalogue import Catalogue, load


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return load()
