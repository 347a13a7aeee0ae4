"""One instance for the whole run; a test that must break it makes its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import httpx
import pytest

from .instance import Instance, delete


@pytest.fixture(scope="session")
def instance() -> Iterator[Instance]:
    made = Instance.start()
    yield made
    made.remove()


@pytest.fixture
def own_instance() -> Iterator[Instance]:
    """An instance that the test may break."""
    made = Instance.start()
    yield made
    made.remove()


@pytest.fixture
def api(instance: Instance) -> Iterator[httpx.Client]:
    with instance.client() as client:
        yield client


@pytest.fixture
def name(api: httpx.Client) -> Iterator[str]:
    """A name for a container; the container is deleted afterwards if the test made it."""
    chosen = f"t-{uuid.uuid4().hex[:8]}"
    yield chosen
    delete(api, chosen)
