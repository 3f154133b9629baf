"""What all test suites share: a limit of time for each test, the lab, and gateways in it."""

import os
import signal

import pytest

from lab import Gateway, Lab
from lab.gateway import ROOT
from lab.lender import Lender
from lab.process import SLOWNESS
from lab.servers import Nginx

DEFAULT_TIMEOUT = 120
LENDER = Lender()


@pytest.fixture(autouse=True)
def time_limit(request):
    """A test that hangs fails, and the rest goes on."""
    marker = request.node.get_closest_marker("timeout")
    seconds = int((marker.args[0] if marker else DEFAULT_TIMEOUT) * SLOWNESS)

    def expired(_number, _frame):
        raise TimeoutError(f"the test took more than {seconds} s")

    old = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture(scope="session")
def lab():
    """One network for the whole run, with every host."""
    if os.geteuid():
        pytest.skip("making network namespaces needs root")
    with Lab(client2=True, hop=True) as made:
        yield made


@pytest.fixture(scope="session")
def nginx(lab):
    """nginx on the server, ports 8000 to 8002."""
    return Nginx(lab, lab.server)


def borrows(node):
    """Whether a test takes a gateway with a past."""
    return bool(node.get_closest_marker("shared_gateway")) and not node.get_closest_marker("own_gateway")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Within a module whose tests share gateways, those with the same mover come together: each mover has its own."""
    modules = {}
    for item in items:
        modules.setdefault(item.path, len(modules))

    def place(item):
        mover = getattr(item, "callspec", None) and item.callspec.params.get("mover")
        return modules[item.path], (mover or "") if borrows(item) else ""

    items.sort(key=place)


@pytest.fixture(autouse=True)
def nothing_lent(request):
    """A test that does not borrow finds no other gateway than its own."""
    if not borrows(request.node):
        LENDER.end()


@pytest.fixture(scope="module", autouse=True)
def lent_in_one_module():
    """What was lent ends with the module."""
    yield
    LENDER.end()


@pytest.fixture
def make_gateway(lab, request):
    """Starts gateways with the arguments of lab.Gateway; they end with the test, and a sanitizer report fails it. A test
    marked shared_gateway gets one that has served tests of its module before, if there is one with these arguments."""
    made = []

    def make(**options):
        made.append(LENDER.lend(lab, **options) if borrows(request.node) else Gateway(lab, **options))
        if options.get("mover") == "sockmap":
            state, why = made[-1].sockmap()
            if state != "on":
                pytest.skip(f"sockmap {state}: {why}")
        return made[-1]

    yield make
    for gateway in made:
        try:
            if LENDER.gateway is gateway and not getattr(request.node, "failed", False):
                gateway.check_sanitizers()
            elif LENDER.gateway is gateway:
                LENDER.end()
            else:
                gateway.close()
        finally:
            show_log_on_failure(request, gateway)


@pytest.fixture
def gateway(make_gateway):
    """A running gateway without any configuration."""
    return make_gateway()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Lets fixtures see whether their test failed."""
    outcome = yield
    if call.when == "call":
        item.failed = outcome.get_result().failed


def show_log_on_failure(request, gateway):
    """The daemon's last words, with the report of a failed test."""
    if getattr(request.node, "failed", False):
        print(f"--- {gateway.log}\n{gateway.tail()}")


def built(name):
    """Path of one of the lab's own programs."""
    for preset in ("release", "dev"):
        path = ROOT / "build" / preset / "tests" / name
        if path.exists():
            return path
    return pytest.fail(f"{name} is not built")


@pytest.fixture(scope="session")
def gwload():
    """Path of the load generator."""
    return built("gwload")


@pytest.fixture(scope="session")
def gwudp():
    """Path of the datagram tool."""
    return built("gwudp")


@pytest.fixture
def figure(request, capfd):
    """figure("what", value): prints a measurement so that it shows up in the log of a good run too."""
    def show(what, value):
        with capfd.disabled():
            print(f"\n   {request.node.name}: {what}: {value}", end="", flush=True)
    return show
