"""Fixtures of the API tests: raw requests over either transport, a gateway with something to lose, and the document
that every exchange is held against."""

import pytest

from api.contract import CONTRACT, ObservedConnection
from api.support import Raw


@pytest.fixture(params=["unix", "tcp"])
def raw(request, gateway):
    """Raw requests, over either transport."""
    return Raw(gateway, request.param == "tcp")


@pytest.fixture
def furnished(gateway):
    """A gateway with something to lose."""
    gateway.upstream("pool", [("10.71.2.3", 0), ("10.71.2.4", 8080)])
    gateway.listener("web", ports=["8000"], upstream="pool", destinations=["10.71.2.0/24"])
    gateway.listener("dns", protocol="tcp", ports=["53"], action="reject")
    return gateway


@pytest.fixture(autouse=True)
def observed(request, monkeypatch):
    """What gateways are asked in these tests is held against their OpenAPI document."""
    monkeypatch.setattr("lab.gateway.UnixConnection", ObservedConnection)
    CONTRACT.where = request.node.name


def pytest_collection_modifyitems(items):
    """The test that tells what all the others met comes after them."""
    items.sort(key=lambda item: item.name.startswith("test_all_exchanges"))
