#!/usr/bin/env python3
"""Whether a binary is as fast as an older one: both measured in alternating turns on the same machine.

    python3 benches/side_by_side.py OLDER NEWER [--turns 5] [--files N] [--repositories N] [--window SECONDS]

Each turn starts its binary with a fresh data directory and a free port, first the older one, then the newer one. The
figures are read over the wire and from /proc: the start, the first synchronisation of a local repository, the time
from a commit to its delivery, memory and processor of idle repositories. Prints the median of each figure for both
binaries, and as ratio the median of the ratios of the turns: what slows the machine for some minutes slows both
halves of a turn. Ends with 1 where a ratio is beyond its bound. Needs git and setpriv. Servers and folders end with
the script, also when it is interrupted. The default run takes about a quarter of an hour.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import re
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from typing import NamedTuple

# How much worse the newer binary may be: a handful of turns cannot tell a smaller loss from chance. Where the ratios
# of the turns, which are printed as well, lie further apart than this, the machine is too busy for a verdict.
BOUND = 1.05
# Starts of each kind in a turn, of which the median counts: a start or a synchronisation lasts less than a second.
STARTS = 5
# Commits after each first synchronisation whose deliveries are timed; one more before them warms the server up.
COMMITS = 10
# The wait between two of them in seconds, in which the round of the commit before ends.
BETWEEN_COMMITS = 0.1
APPS = 10
FILE_BYTES = 1024
# The longest wait for anything in seconds.
PATIENCE = 300
TICKS = os.sysconf("SC_CLK_TCK")
# Two ticks of the processor's account over the 3,000 deliveries or polls of a turn, in seconds for 1,000 of them.
PROCESSOR_RESOLUTION = 2 / TICKS / 3

# Only settings that every release knows.
SETTINGS = {
    "onboarding.mode": "open",
    "onboarding.apps_per_hour": "1000000",
    "egress.allow": "127.0.0.0/8",
    "egress.allow_http": "true",
    "git.allow_local": "true",
    "git.host_rate": "2000/s",
    "git.free_min_bytes": "1",
    "delivery.first_delay": "10ms",
    "telemetry.log_filter": "error",
}
# Nothing is polled while the first synchronisation runs.
RARELY = {"git.poll_min": "1h", "git.poll_max": "2h"}
# The commit waits for the next poll: a short interval leaves little to chance.
AT_ONCE = {"git.poll_min": "20ms", "git.poll_max": "20ms"}
# Often enough that a short window sees thousands of polls.
IDLE = {"git.poll_min": "5s", "git.poll_max": "5s"}


class Figure(NamedTuple):
    """A row of the result."""

    name: str
    unit: str
    # A difference of the medians up to this is not seen by the way of measuring, whatever the ratio.
    resolution: float = 0.0
    is_more_better: bool = False
    has_bound: bool = True


FIGURES = {
    "empty": Figure("ready, empty data directory", "ms", resolution=5),
    "full": Figure("ready, idle repositories", "ms", resolution=5),
    "rate": Figure("first synchronisation, deliveries", "/s", is_more_better=True),
    "cpu": Figure("processor of 1,000 deliveries", "s", resolution=PROCESSOR_RESOLUTION),
    "latency": Figure("commit to delivery, median", "ms", resolution=1),
    "memory": Figure("memory, idle repositories", "MiB", resolution=1),
    "pages": Figure("  of it files, such as the binary", "MiB", has_bound=False),
    "polls": Figure("processor of 1,000 polls", "s", resolution=PROCESSOR_RESOLUTION),
}


class Peer:
    """A thread that reads requests of HTTP/1.1 from connections that stay, and answers each request at once."""

    LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        selector = selectors.DefaultSelector()
        selector.register(self.listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is self.listener:
                    connection, _ = self.listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(connection, selectors.EVENT_READ, bytearray())
                elif not self.read(key.fileobj, key.data):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()

    def read(self, connection, unread):
        """Answers the requests that are whole; whether the connection stays."""
        try:
            piece = connection.recv(1 << 18)
            unread += piece
            while (end := unread.find(b"\r\n\r\n") + 4) > 3:
                found = self.LENGTH.search(unread, 0, end)
                whole = end + (int(found[1]) if found else 0)
                if len(unread) < whole:
                    break
                path = bytes(unread[:end]).split(b" ", 2)[1]
                connection.sendall(self.answer(path, unread, end))
                del unread[:whole]
            return bool(piece)
        except OSError:
            # A server that is stopped or killed hangs up.
            return False


class Receiver(Peer):
    """Accepts every change, and notes when each one came."""

    ACCEPTED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    def __init__(self):
        self.arrived, self.wanted, self.reached = [], 0, threading.Event()
        super().__init__()

    def answer(self, path, _unread, _end):
        if path.endswith((b"/create", b"/update", b"/delete")):
            self.arrived.append(time.monotonic())
            if len(self.arrived) >= self.wanted:
                self.reached.set()
        return self.ACCEPTED

    def until(self, count):
        """Waits for this many changes in all, without taking the processor meanwhile."""
        self.wanted = count
        while len(self.arrived) < count:
            if not self.reached.wait(PATIENCE):
                sys.exit(f"{len(self.arrived)} of {count} changes came within {PATIENCE} s")
            self.reached.clear()


class Host(Peer):
    """A Git host with any number of repositories: one branch each that never moves, all with the same commit."""

    ADVERTISED = (b"000eversion 2\n", b"0014agent=git/bench\n", b"0013ls-refs=unborn\n", b"0012fetch=shallow\n",
                  b"0017object-format=sha1\n", b"0000")

    def __init__(self, folder):
        repository = Repository(folder / "model.git")
        commit, = repository.commits([{"README.md": b"model\n"}])
        pack = repository.git("pack-objects", "--revs", "--stdout", "-q", given=commit + b"\n")
        refs = [commit + b" HEAD symref-target:refs/heads/main\n", commit + b" refs/heads/main\n"]
        self.discovered = self.message("advertisement", b"".join(self.ADVERTISED))
        self.listed = self.message("result", b"".join(map(self.packet, refs)) + b"0000")
        self.fetched = self.message("result", self.packet(b"packfile\n") + self.packet(b"\x01" + pack) + b"0000")
        # The listings of each repository.
        self.polls = {}
        super().__init__()

    @staticmethod
    def packet(data):
        return b"%04x" % (len(data) + 4) + data

    @staticmethod
    def message(kind, body):
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-{kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def answer(self, path, unread, end):
        if b"/info/refs" in path:
            return self.discovered
        if unread.find(b"command=fetch", end) >= 0:
            return self.fetched
        self.polls[path] = self.polls.get(path, 0) + 1
        return self.listed

    def count(self):
        return sum(list(self.polls.values()))

    def until_polled(self, repositories, times):
        """Waits until each repository was polled so often from now on."""
        before, until = dict(self.polls), time.monotonic() + PATIENCE
        while True:
            now = list(self.polls.items())
            if sum(count - before.get(path, 0) >= times for path, count in now) >= repositories:
                return
            if time.monotonic() > until:
                sys.exit(f"not every repository was polled within {PATIENCE} s")
            time.sleep(0.2)


class Repository:
    """A bare repository on this machine."""

    def __init__(self, path):
        self.path = path
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)

    def git(self, *arguments, given=b""):
        command = ["git", "-C", str(self.path), *arguments]
        return subprocess.run(command, input=given, check=True, stdout=subprocess.PIPE).stdout

    def commits(self, changes):
        """Makes a commit of each change, a dictionary of contents by path; their ids."""
        stream = []
        for at, files in enumerate(changes):
            stream.append(b"commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata 1\nc\n" % (1_700_000_000 + at))
            for path, content in files.items():
                stream.append(b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(content), content))
        self.git("fast-import", "--quiet", given=b"".join(stream))
        return self.git("rev-list", "--reverse", "--first-parent", "main").split()

    def move(self, commit):
        """Moves the branch as git does, without the time of a process."""
        fresh = self.path / "refs" / "heads" / "main.lock"
        fresh.write_bytes(commit + b"\n")
        fresh.rename(fresh.with_suffix(""))


class Server:
    """The binary over a data directory in this folder."""

    def __init__(self, binary, folder):
        self.binary, self.folder, self.process = binary, folder, None
        folder.mkdir()

    def start(self, more):
        """Starts the server and waits until it is ready; how long that took, in milliseconds."""
        address = self.folder / "address"
        address.unlink(missing_ok=True)
        environment = {"HOME": str(self.folder), "TIDINGS__DATA_DIR": str(self.folder / "data"),
                       "TIDINGS__SERVER__LISTEN": "127.0.0.1:0",
                       # As the image and the unit of systemd set it.
                       "MALLOC_ARENA_MAX": "2"}
        for key, value in {**SETTINGS, **more}.items():
            environment["TIDINGS__" + key.upper().replace(".", "__")] = value
        # The kernel kills the server when this script ends, however it ends.
        command = [shutil.which("setpriv"), "--pdeathsig", "KILL", self.binary, "serve", "--address-file", str(address)]
        # What was written before this start is no work of this start.
        os.sync()
        with open(self.folder / "log", "a") as log:
            began = time.monotonic()
            self.process = subprocess.Popen(command, env=environment, cwd=self.folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)
        while not self.is_ready(address):
            if self.process.poll() is not None or time.monotonic() > began + PATIENCE:
                sys.exit(f"{self.binary} is not ready: " + (self.folder / "log").read_text()[-2000:])
            time.sleep(0.002)
        return 1e3 * (time.monotonic() - began)

    def is_ready(self, address):
        try:
            self.address = address.read_text().strip()
            if not self.address:
                return False
            connection = http.client.HTTPConnection(self.address, timeout=10)
            with contextlib.closing(connection):
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False

    def ask(self, method, path, token=None, body=None):
        request = urllib.request.Request(f"http://{self.address}{path}", method=method)
        if token is not None:
            request.add_header("authorization", f"Bearer {token}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        try:
            return json.loads(urllib.request.urlopen(request, timeout=60).read())
        except urllib.error.HTTPError as error:
            sys.exit(f"{self.binary}: {method} {path}: {error.code} {error.read().decode()}")

    def onboard(self, base_url):
        body = {"app_name": "side by side", "email": "a@example.org", "base_url": base_url}
        return self.ask("POST", "/api/apps/onboard", None, body)["token"]

    def processor(self):
        """The processor time that the server took so far, in seconds."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self, kind):
        """Resident memory in MiB: `VmRSS`, all of it, or `RssFile`, the pages of files."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(kind + r":\s+(\d+)", status)[1]) / 1024

    def stop(self):
        if self.process is None:
            return
        process, self.process = self.process, None
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def serving(binary, folder):
    """A server, not started yet, that takes its folder along."""
    server = Server(binary, folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def prepare(binary, folder, host, repositories):
    """Makes a data directory with repositories whose apps hold everything."""
    server = Server(binary, folder)
    try:
        server.start(IDLE)
        for app in range(APPS):
            # Nothing is ever sent there.
            token = server.onboard("http://127.0.0.1:65000/")
            for number in range(app, repositories, APPS):
                body = {"url": f"{host.url}/side/{number:05}", "start": "now"}
                server.ask("POST", "/api/repositories", token, body)
        # The poll after the first scan comes when that scan ended.
        host.until_polled(repositories, 2)
    finally:
        server.stop()


def fresh(binary, folder, receiver, repository, commits, files):
    """A start over nothing, the first synchronisation, then small commits."""
    repository.move(commits[0])
    receiver.arrived = []
    with serving(binary, folder) as server:
        found = {"empty": server.start(RARELY)}
        token = server.onboard(receiver.url)
        before = server.processor()
        watch = server.ask("POST", "/api/repositories", token, {"url": f"file://{repository.path}"})
        receiver.until(files)
        path, until = "/api/repositories/" + watch["repository_id"], time.monotonic() + PATIENCE
        while server.ask("GET", path, token)["branches"][0].get("held_commit") != commits[0].decode():
            if time.monotonic() > until:
                sys.exit(f"{server.binary} does not end the first round")
            time.sleep(0.1)
        found["cpu"] = (server.processor() - before) * 1000 / files
        found["rate"] = (files - 1) / (receiver.arrived[files - 1] - receiver.arrived[0])
        server.stop()
        server.start(AT_ONCE)
        latencies = []
        for commit in commits[1:]:
            time.sleep(BETWEEN_COMMITS)
            count, moved = len(receiver.arrived), time.monotonic()
            repository.move(commit)
            receiver.until(count + 1)
            latencies.append(1e3 * (receiver.arrived[count] - moved))
        return {**found, "latency": statistics.median(latencies[1:])}


def idle(binary, folder, model, host, wanted):
    """Starts with idle repositories, then memory, and the processor time of polls that find nothing."""
    with serving(binary, folder) as server:
        shutil.copytree(model / "data", folder / "data")
        times = []
        for _ in range(STARTS):
            server.stop()
            times.append(server.start(IDLE))
        # The first round learns the capabilities of the host, and looks into each mirror.
        host.until_polled(wanted.repositories, 2)
        asked, before = host.count(), server.processor()
        time.sleep(wanted.window)
        polls, took = host.count() - asked, server.processor() - before
        memory = {"memory": server.memory("VmRSS"), "pages": server.memory("RssFile")}
        return {"full": statistics.median(times), **memory, "polls": took * 1000 / polls}


def measure(binary, folder, model, peers, repository, commits, wanted):
    """The figures of one binary in one turn."""
    host, receiver = peers
    runs = [fresh(binary, folder, receiver, repository, commits, wanted.files) for _ in range(STARTS)]
    found = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {**found, **idle(binary, folder, model, host, wanted)}


def content(name):
    """Text of the size of a file that no other file has."""
    return (f"{name}\n" * FILE_BYTES).encode()[:FILE_BYTES]


def shown(figure, value):
    return f"{value:.{0 if value >= 1000 else 1 if value >= 10 else 3}f} {figure.unit}"


def compare(turns):
    """Prints the figures of all turns; the names of those beyond the bound."""
    faults = []
    print(f"{'':36} {'older':>12} {'newer':>12}   ratio")
    for key, figure in FIGURES.items():
        older, newer = ([turn[side][key] for turn in turns] for side in (0, 1))
        ratios = sorted(after / before for before, after in zip(older, newer))
        ratio = statistics.median(ratios)
        before, after = statistics.median(older), statistics.median(newer)
        worse = 1 / ratio if figure.is_more_better else ratio
        bound = f"at least {1 / BOUND:.2f}" if figure.is_more_better else f"at most {BOUND:.2f}"
        is_beyond = figure.has_bound and worse > BOUND and abs(after - before) > figure.resolution
        told = f"{ratio:.3f}, turns {ratios[0]:.2f} to {ratios[-1]:.2f}"
        if figure.has_bound:
            told += f" ({bound}){'  WORSE' if is_beyond else ''}"
        print(f"{figure.name:36} {shown(figure, before):>12} {shown(figure, after):>12}   {told}", flush=True)
        if is_beyond:
            faults.append(figure.name.strip())
    return faults


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("older", help="release binary of the commit before")
    parser.add_argument("newer", help="release binary of the change")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--files", type=int, default=3_000, help="files of the first synchronisation")
    parser.add_argument("--repositories", type=int, default=1_000, help="idle repositories")
    parser.add_argument("--window", type=float, default=30, help="seconds in which idle repositories are watched")
    wanted = parser.parse_args()
    binaries = [os.path.abspath(wanted.older), os.path.abspath(wanted.newer)]
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit("interrupted"))
    with tempfile.TemporaryDirectory() as name:
        folder, turns = pathlib.Path(name), []
        peers, repository = (Host(folder), Receiver()), Repository(folder / "files.git")
        all_files = {f"d{at // 100:03}/f{at:05}.txt": content(f"file {at}") for at in range(wanted.files)}
        changes = [{"d000/f00000.txt": content(f"change {at}")} for at in range(COMMITS + 1)]
        commits = repository.commits([all_files, *changes])
        models = [folder / "older", folder / "newer"]
        for binary, model in zip(binaries, models):
            prepare(binary, model, peers[0], wanted.repositories)
        for turn in range(1, wanted.turns + 1):
            turns.append([])
            for binary, model in zip(binaries, models):
                found = measure(binary, folder / "turn", model, peers, repository, commits, wanted)
                turns[-1].append(found)
                told = ", ".join(f"{key} {shown(FIGURES[key], value)}" for key, value in found.items())
                print(f"turn {turn}, {model.name}: {told}", flush=True)
        faults = compare(turns)
    if faults:
        sys.exit("beyond the bound: " + ", ".join(faults))


if __name__ == "__main__":
    main()
