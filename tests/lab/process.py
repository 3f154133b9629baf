"""Programs that run in the lab. Each is started and ended by its own process id."""

import os
import re
import signal
import subprocess
import threading
import time

# What a sanitizer writes when it has found something. (That the relay's filter forbids the leak check is no finding.)
SANITIZER = re.compile(r"ERROR: (Address|Leak)Sanitizer|runtime error:|UndefinedBehaviorSanitizer")

# How many times slower than usual the machine is; every limit of time is so many times longer. For emulated machines.
SLOWNESS = float(os.environ.get("LAB_SLOWNESS", "1"))

# How many times longer than it should take at most something is waited for before that is a failure: the tests share their
# processors, and an event that is late proves nothing but that.
PATIENCE = 4

# Whether the tests go as far as was promised (./dev check --long): the usual run takes samples, which can fail as well.
LONG = bool(os.environ.get("GW_LONG"))


def amount(usual, long):
    """How much of something a test does."""
    return long if LONG else usual


class Timeout(Exception):
    """Something that had to happen did not."""


def wait_for(condition, seconds=10, what="condition", interval=0.01):
    """Polls until condition() is true; returns its value. An exception counts as not yet. seconds: what it takes at most on
    a machine of its own."""
    seconds *= SLOWNESS * PATIENCE
    deadline = time.monotonic() + seconds
    last = None
    while time.monotonic() < deadline:
        try:
            value = condition()
            if value:
                return value
        except (OSError, ValueError, KeyError, EOFError) as error:
            last = error
        time.sleep(interval)
    raise Timeout(f"{what}: not within {seconds} s" + (f" ({last})" if last else ""))


class Process:
    """A running program whose output goes to a file."""

    def __init__(self, command, log, env=None):
        self.log = str(log)
        with open(self.log, "ab") as output:
            self.popen = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=output,
                                          stderr=subprocess.STDOUT, env=env, start_new_session=True)

    @property
    def pid(self):
        """Process id; `ip netns exec` becomes the program, so it is the program's own."""
        return self.popen.pid

    def running(self):
        """Whether it has not ended."""
        return self.popen.poll() is None

    def output(self):
        """Everything it has written so far."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def signal(self, number):
        """Sends a signal, unless it has ended."""
        if self.running():
            self.popen.send_signal(number)

    def stop(self, seconds=10):
        """SIGTERM, and SIGKILL when that does not help; returns the exit code."""
        self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            return self.popen.wait(5)

    def kill(self):
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        return self.popen.wait(5)


def alive(pid):
    """Whether a process of this id exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


def descriptors(pid):
    """How many descriptors a process holds."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def rss_kib(pid, kind="VmRSS"):
    """Resident memory of a process in KiB; of one kind as in its status, RssAnon for what is its own."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(f"{kind}:"):
                return int(line.split()[1])
    return 0


def in_threads(functions):
    """Runs functions side by side; returns their values, or raises the first exception."""
    results = [None] * len(functions)
    errors = []

    def call(index, function):
        try:
            results[index] = function()
        except BaseException as error:  # handed to the caller below
            errors.append(error)

    threads = [threading.Thread(target=call, args=item, daemon=True) for item in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
