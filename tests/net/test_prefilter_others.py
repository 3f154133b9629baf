"""The prefilter beside the programs of Debian's xdp-tools: whoever is there first stays whole, and is named.

libxdp's dispatcher needs a kernel that takes programs which extend others. Where there is none its tools put a lone
program on the interface; what is about the dispatcher itself is skipped there, and runs in ./dev check-61.
"""

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from lab.process import wait_for
from net.test_prefilter import CLIENT, FAMILIES, GATEWAY, pings, prefilter, red, status

pytestmark = [
    pytest.mark.shared_gateway,
    pytest.mark.skipif(not (shutil.which("xdp-loader") and shutil.which("xdp-filter")), reason="xdp-tools is not installed"),
]


@pytest.fixture
def gateway(make_gateway):
    """A gateway whose programs can be pinned, in a file system that libxdp's tools use, too."""
    return make_gateway(bpf=True)


@pytest.fixture
def tool(lab, gateway):
    """Runs a command of xdp-tools beside the gateway, which has its bpf file system; what it left on in0 goes in the end."""
    def command(*words, check=True):
        # A namespace's command has mounts of its own.
        return lab.gateway.run("sh", "-c", 'mount --bind "$0" /sys/fs/bpf && exec "$@"', gateway.bpf, *words, check=check)

    yield command
    command("xdp-loader", "unload", "in0", "--all", check=False)


@pytest.fixture
def objects(lab, tmp_path):
    """Files of programs that let everything pass, by name."""
    def make(name):
        source = tmp_path / f"{name}.c"
        # Behind a dispatcher the kernel compares the argument's type with the one that is extended, by its name.
        source.write_text('struct xdp_md { unsigned data; };\n'
                          f'__attribute__((section("xdp"), used)) int {name}(struct xdp_md *c) {{ return 2; }}\n'
                          'char l[] __attribute__((section("license"), used)) = "GPL";\n')
        lab.gateway.run("clang", "-g", "-O2", "-target", "bpf", "-c", source, "-o", tmp_path / f"{name}.o")
        return tmp_path / f"{name}.o"

    return make


def xdp_id(lab, interface="in0"):
    """Id of the program on the interface; None: there is none."""
    return json.loads(lab.gateway.run("ip", "-j", "link", "show", interface).stdout)[0].get("xdp", {}).get("prog", {}).get("id")


def behind(gateway, program):
    """How many programs a dispatcher of this id has by its pins; 0: it is none."""
    return sum(len(list(found.glob("prog*-prog"))) for found in Path(gateway.bpf / "xdp").glob(f"dispatch-*-{program}"))


def need_dispatcher(gateway, program):
    """Skips where libxdp had to do without."""
    if not behind(gateway, program):
        pytest.skip("this kernel refuses programs that extend others (BPF_PROG_TYPE_EXT), which libxdp's dispatcher needs")


@contextlib.contextmanager
def filtered(tool, *denied):
    """xdp-filter on in0, in the stack, with these sources denied."""
    tool("xdp-filter", "load", "-m", "skb", "in0")
    try:
        for address in denied:
            tool("xdp-filter", "ip", "-m", "src", address)
        yield
    finally:
        tool("xdp-filter", "unload", "in0")


@pytest.mark.parametrize("mode", ["generic", "native"])
def test_nobodys_tool_takes_ours_off(lab, gateway, tool, objects, mode):
    """Load, replace and unload by xdp-tools fail in words, and ours goes on, with what it drops."""
    program = prefilter(gateway, mode=mode, deny=[CLIENT[4]])["program"]
    other = objects("other")
    for words in (["xdp-loader", "load", "-m", "skb", "in0", other], ["xdp-loader", "load", "-m", "native", "in0", other],
                  ["xdp-filter", "load", "-m", "skb", "in0"], ["xdp-loader", "unload", "in0", "--all"],
                  ["xdp-loader", "unload", "in0", "-i", program]):
        done = tool(*words, check=False)
        assert done.returncode != 0 and "unknown" not in done.stderr, (words, done)
        assert xdp_id(lab) == program and pings(lab.client, GATEWAY[4], 1) == 0, words
    tool("xdp-loader", "clean")
    assert "prefilter" in tool("xdp-loader", "status", "in0").stdout
    row = status(gateway)
    assert (row["state"], row["program"], row["pinned"], row["foreign"]) == ("on", program, True, None)
    assert pings(lab.client, GATEWAY[6], 1) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_their_filter_is_left_whole(lab, gateway, tool, family):
    """A write beside xdp-filter is refused and named, --dry-run or not; it drops on; when it has gone, ours takes over."""
    with filtered(tool, CLIENT[family]):
        theirs = xdp_id(lab)
        assert theirs and pings(lab.client, GATEWAY[family], 1) == 0
        answer = gateway.api("PUT", "prefilters/in0", {"interface": "in0", "deny": ["203.0.113.0/24"]})
        assert answer.status == 422, answer
        if behind(gateway, theirs):
            assert f"dispatcher (id {theirs})" in answer.text and "xdp-loader unload in0 --all" in answer.text
            assert "xdpfilt_alw_all" in answer.text
        else:
            assert f"somebody else (id {theirs}; bpftool prog show id {theirs} names it)" in answer.text
        assert xdp_id(lab) == theirs and pings(lab.client, GATEWAY[family], 1) == 0
    assert pings(lab.client, GATEWAY[family], 1) == 1
    assert prefilter(gateway, deny=[CLIENT[family]])["state"] == "on" and pings(lab.client, GATEWAY[family], 1) == 0


@pytest.fixture
def outrun(gateway, tool, objects):
    """A gateway with a prefilter of in0 that finds somebody else's program there when it starts; the program's id."""
    prefilter(gateway, deny=[CLIENT[4]])
    gateway.stop()
    shutil.rmtree(gateway.bpf / "gatewayd/xdp/in0")
    tool("xdp-loader", "load", "-m", "skb", "in0", objects("first"))
    gateway.start(ready=False)
    wait_for(lambda: gateway.status()["relay"]["state"] == "running", 10, "the relay")
    yield status(gateway)["foreign"]
    tool("xdp-loader", "unload", "in0", "--all", check=False)
    gateway.wait_ready()


def test_when_theirs_goes_ours_comes_at_once(lab, gateway, tool, outrun):
    """The kernel tells of it, so nobody waits for the look that comes every five seconds."""
    assert outrun == xdp_id(lab) and status(gateway)["state"] == "failed" and str(outrun) in red(gateway)
    assert pings(lab.client, GATEWAY[4], 1) == 1
    tool("xdp-loader", "unload", "in0", "--all")
    wait_for(lambda: status(gateway)["state"] == "on", 1, "our program", interval=0.02)
    assert pings(lab.client, GATEWAY[4], 1) == 0 and red(gateway) is None


def test_a_dispatcher_that_changes_is_named_anew(gateway, tool, objects, outrun):
    """Each load and unload makes another dispatcher: id and names follow, in the order in which the programs run."""
    need_dispatcher(gateway, outrun)
    assert status(gateway)["why"].endswith(", with first")
    tool("xdp-loader", "load", "-m", "skb", "-P", 10, "in0", objects("sooner"))
    wait_for(lambda: status(gateway)["why"].endswith(", with sooner, first"), 2, "both names")
    now = status(gateway)
    assert now["foreign"] != outrun and f"(id {now['foreign']})" in now["why"] and now["why"] in red(gateway)
    for number in range(8):
        tool("xdp-loader", "load", "-m", "skb", "-P", 60 + number, "in0", objects(f"fifteen_chars_{number}"))
    wait_for(lambda: status(gateway)["why"].endswith(", fifteen_chars_7"), 2, "all ten names")
    assert status(gateway)["why"].count(", ") == 11


def test_cleanup_leaves_theirs(lab, gateway, tool, outrun):
    """--cleanup takes off what is ours only."""
    gateway.stop()
    gateway.run_once("--cleanup")
    assert xdp_id(lab) == outrun
    gateway.start(ready=False)
