"""Fixtures of the API tests: raw requests over either transport, and a gateway with something to lose."""

import pytest

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
