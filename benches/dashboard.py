#!/usr/bin/env python3
"""What the dashboard costs with many apps: first paint, every table page, and the memory of a tab that stays open.

    python3 benches/dashboard.py target/release/tidings [--apps N] [--watches N] [--letters N] [--live SECONDS]

Starts the binary once to make a database, fills that with rows directly (copies of what one real app has), starts it
again and looks at each page in Chromium. Needs chromedriver, chromium and git. Prints one line for each figure with
its bound, and ends with 1 where a bound is not kept. The bounds are those of a release build. Server, browser and
database end with it, also when it is interrupted.
"""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

PAINT_MS = 300
TABLE_MS = 200
HEAP_GROWTH_BYTES = 4 << 20
NODES_GROWTH = 500
LISTENERS_GROWTH = 100
TASKS = 200_000
ENTRIES = 200_000
AUDIT_ROWS = 200_000
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
SETTINGS = {
    "onboarding.mode": "open",
    "egress.allow": "127.0.0.0/8",
    "egress.allow_http": "true",
    "git.allow_local": "true",
    "git.poll_min": "1h",
    "git.poll_max": "2h",
    "git.free_min_bytes": "1",
    "telemetry.log_filter": "warn",
}
IS_SHOWN = """
    const main = document.querySelector('main[aria-busy]');
    return main?.getAttribute('aria-busy') === 'false' && document.querySelector('h1') !== null
        && !document.body.innerText.includes('Loading …');"""


def ulid(kind, number):
    """An id with a moment of now and this number."""
    text, value = [], (int(time.time() * 1000) << 80) | number
    for _ in range(26):
        text.append(CROCKFORD[value & 31])
        value >>= 5
    return kind + "".join(reversed(text))


class Server:
    def __init__(self, binary, folder):
        self.binary, self.folder, self.process = binary, folder, None

    def start(self):
        address = self.folder / "address"
        address.unlink(missing_ok=True)
        environment = {"HOME": str(self.folder), "PATH": os.environ["PATH"], "TIDINGS__DATA_DIR": str(self.folder / "data"),
                       "TIDINGS__SERVER__LISTEN": "127.0.0.1:0"}
        for key, value in SETTINGS.items():
            environment["TIDINGS__" + key.upper().replace(".", "__")] = value
        log = open(self.folder / "log", "a")
        began = time.monotonic()
        self.process = subprocess.Popen([self.binary, "serve", "--address-file", str(address)], env=environment,
                                        cwd=self.folder, stdout=log, stderr=log)
        while True:
            if self.process.poll() is not None:
                sys.exit("the server ended: " + (self.folder / "log").read_text()[-2000:])
            try:
                self.address = address.read_text().strip()
                if self.address and urllib.request.urlopen(f"http://{self.address}/readyz").status == 200:
                    break
            except (OSError, urllib.error.URLError):
                pass
            time.sleep(0.05)
        self.admin = (self.folder / "data" / "admin-token").read_text().strip()
        return time.monotonic() - began

    def ask(self, method, path, token=None, body=None):
        request = urllib.request.Request(f"http://{self.address}{path}", method=method)
        request.add_header("authorization", f"Bearer {token or self.admin}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        return json.loads(urllib.request.urlopen(request).read() or b"null")

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Browser:
    def __init__(self):
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                       start_new_session=True)
        self.session = ""

    def begin(self):
        for line in self.driver.stdout:
            found = re.search(rb"successfully on port (\d+)", line)
            if found:
                self.port = int(found[1])
                break
        else:
            sys.exit("chromedriver did not start")
        threading.Thread(target=lambda: [None for _ in self.driver.stdout], daemon=True).start()
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--enable-precise-memory-info", "--force-device-scale-factor=1"]
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}}
        self.session = "/session/" + self.command("POST", "/session", wanted)["sessionId"]

    def command(self, method, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{self.session}{path}", method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
        return json.load(urllib.request.urlopen(request))["value"]

    def run(self, script, *arguments):
        return self.command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script, what):
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if self.run(script):
                return
            time.sleep(0.02)
        sys.exit(f"{what} is not shown: " + self.run("return document.body.innerText")[:1000])

    def sign_in(self, server):
        self.command("POST", "/url", {"url": f"http://{server.address}/dashboard/"})
        self.wait("return document.querySelector('#token') !== null", "the page to sign in")
        field = self.command("POST", "/element", {"using": "css selector", "value": "#token"})[ELEMENT]
        self.command("POST", f"/element/{field}/value", {"text": server.admin})
        self.run("document.querySelector('form').requestSubmit()")
        self.wait(IS_SHOWN, "the overview")

    def load(self, server, page):
        """Loads a page anew: milliseconds until its first paint, and until all of it is there."""
        self.command("POST", "/url", {"url": f"http://{server.address}/dashboard/{page}"})
        self.wait(IS_SHOWN, page)
        self.wait("return performance.getEntriesByType('paint').length > 0", "a paint of " + page)
        return self.run("return performance.getEntriesByType('paint').at(-1).startTime")

    def go(self, page):
        """Goes from page to page, as a click does: milliseconds until its rows are there."""
        script = """
            const [page, done] = arguments;
            const anchor = document.body.appendChild(Object.assign(document.createElement('a'), { href: '/dashboard/' + page }));
            const began = performance.now();
            anchor.click();
            anchor.remove();
            const look = () => {
                const main = document.querySelector('main[aria-busy]');
                const isThere = main?.getAttribute('aria-busy') === 'false' && location.href.endsWith(page);
                if (isThere && !document.body.innerText.includes('Loading …')) done(performance.now() - began);
                else requestAnimationFrame(look);
            };
            requestAnimationFrame(look);"""
        return self.command("POST", "/execute/async", {"script": script, "args": [page]})

    def cdp(self, name):
        return self.command("POST", "/goog/cdp/execute", {"cmd": name, "params": {}})

    def memory(self):
        """What the tab holds once garbage is collected: bytes of its heap, nodes and listeners."""
        self.cdp("Performance.enable")
        for _ in range(2):
            self.cdp("HeapProfiler.collectGarbage")
        found = {one["name"]: one["value"] for one in self.cdp("Performance.getMetrics")["metrics"]}
        return [found[name] for name in ("JSHeapUsedSize", "Nodes", "JSEventListeners")]

    def stop(self):
        if self.session:
            # Chromium removes its profile, which a killed one leaves behind.
            with contextlib.suppress(OSError):
                self.command("DELETE", "")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.driver.pid, signal.SIGKILL)
        self.driver.wait()


def copy(database, table, rows):
    """Writes rows that are the first one of the table but for what each says."""
    cursor = database.execute(f"select * from {table} limit 1")
    names = [column[0] for column in cursor.description]
    first = dict(zip(names, cursor.fetchone()))
    marks = ", ".join("?" for _ in names)
    filled = ([{**first, **row}[name] for name in names] for row in rows)
    database.executemany(f"insert into {table} ({', '.join(names)}) values ({marks})", filled)


def seed(path, wanted):
    database = sqlite3.connect(path)
    database.executescript("pragma synchronous = off; pragma cache_size = -200000;")
    now = int(time.time() * 1000)
    watch = database.execute("select id, app_id from watch").fetchone()
    cursor = database.execute("select id from cursor").fetchone()[0]
    apps = [ulid("app_", number) for number in range(1, wanted.apps)]
    watches = [(ulid("repo_", number), ulid("cur_", number)) for number in range(1, wanted.watches)]
    of_app = [apps[at % len(apps)] for at in range(len(watches))]
    copy(database, "app", ({"id": id, "name": f"app {at}", "token_public_id": f"seed{at}"} for at, id in enumerate(apps)))
    copy(database, "watch", ({"id": id, "app_id": of_app[at], "alias": f"w{at // len(apps)}"}
                             for at, (id, _) in enumerate(watches)))
    copy(database, "cursor", ({"id": id, "watch_id": watches[at][0]} for at, (_, id) in enumerate(watches)))
    places = [(watch[0], cursor, watch[1])] + [(id, lane, of_app[at]) for at, (id, lane) in enumerate(watches)]

    def letter(at):
        of = places[at % len(places)]
        return (ulid("dead_", at), of[2], of[0], of[1], now, at // len(places), f"docs/page-{at}.md".encode(), "create",
                f"dlv_{at:052d}".replace("0", "a").replace("1", "b").replace("8", "c").replace("9", "d"), "rejected", "open",
                422, "it is not wanted", now - at, 0, 0)

    names = ("id, app_id, watch_id, cursor_id, round, position, path, operation, delivery_id, reason, status, http_status, "
             "excerpt, created_at, counted, self_redriven")
    marks = ", ".join("?" for _ in names.split(","))
    database.executemany(f"insert into dead_letter ({names}) values ({marks})", map(letter, range(wanted.letters)))
    others(database, apps, now)
    database.commit()
    database.close()
    return watch[1], watch[0], [(of, id) for id, _, of in places]


def others(database, apps, now):
    """Rows of the lists beside watches and letters: queues, tasks, schedules, entries of ledgers, and the audit log."""
    queue = database.execute("select id, app_id, command from queue").fetchone()
    tasks = [ulid("tsk_", number) for number in range(1, TASKS)]
    copy(database, "task", ({"id": id, "state": "ready", "run_at": None} for id in tasks))
    copy(database, "task_body", ({"task_id": id} for id in tasks))
    database.execute("update queue set ready = ready + ? where id = ?", (len(tasks), queue[0]))
    copy(database, "queue", ({"id": f"{id}/{queue[2]}", "app_id": id} for id in apps))
    copy(database, "schedule", ({"app_id": id, "name": f"nightly-{at}", "last_task": None} for at, id in enumerate(apps)))
    of_ledger = database.execute("select app_id, max(number) from entry").fetchone()
    copy(database, "entry", ({"number": of_ledger[1] + at, "at": now - ENTRIES + at} for at in range(1, ENTRIES)))
    database.execute("update ledger set last = ? where app_id = ?", (of_ledger[1] + ENTRIES - 1, of_ledger[0]))
    last, = database.execute("select max(id) from audit").fetchone()
    copy(database, "audit", ({"id": last + at, "action": f"seed_{at % 50}", "target": f"row_{at}"} for at in range(1, AUDIT_ROWS)))


def prepared(server, folder):
    """One app with one watch, of which the others are copies."""
    repository = folder / "handbook"
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-C", str(repository)]
    repository.mkdir()
    for arguments in (["init", "-q", "-b", "main"], ["commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(git + arguments, check=True)
    server.start()
    key = "whsec_" + base64.b64encode(b"k" * 32).decode()
    app = server.ask("POST", "/api/apps/onboard", None, {"app_name": "first app", "email": "a@example.org",
                                                         "base_url": "http://127.0.0.1:65000/", "client_auth_key": key})
    watch = server.ask("POST", "/api/repositories", app["token"], {"url": str(repository), "start": "now"})
    server.ask("POST", "/api/tasks", app["token"], {"command": "report", "payload": {"page": 1}})
    server.ask("PUT", "/api/schedules/nightly", app["token"], {"cron": "0 3 * * *", "command": "report"})
    server.ask("POST", f"/api/repositories/{watch['repository_id']}/pause", app["token"])
    server.ask("POST", f"/api/repositories/{watch['repository_id']}/resume", app["token"])
    server.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--apps", type=int, default=10_000)
    parser.add_argument("--watches", type=int, default=100_000)
    parser.add_argument("--letters", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=60, help="seconds of live updates")
    parser.add_argument("--slack", type=float, default=1.0, help="by how much the bounds are wider, for a debug build")
    wanted = parser.parse_args()
    faults = []

    def figure(name, value, bound, unit="ms"):
        is_kept = value <= bound
        print(f"{name:44} {value:10.0f} {unit} (at most {bound:.0f}){'' if is_kept else '  TOO MUCH'}", flush=True)
        if not is_kept:
            faults.append(name)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("interrupted"))
    with contextlib.ExitStack() as begun:
        folder = pathlib.Path(begun.enter_context(tempfile.TemporaryDirectory()))
        server = Server(os.path.abspath(wanted.binary), folder)
        begun.callback(server.stop)
        prepared(server, folder)
        began = time.monotonic()
        app, watch, places = seed(folder / "data" / "tidings.db", wanted)
        print(f"{wanted.apps} apps, {wanted.watches} watches, {wanted.letters} letters: written in {time.monotonic() - began:.0f} s")
        print(f"ready {server.start():.1f} s after the start", flush=True)
        browser = Browser()
        begun.callback(browser.stop)
        browser.begin()
        look(browser, server, wanted, app, watch, figure)
        live(browser, server, wanted, places, figure)
    if faults:
        sys.exit("beyond the bound: " + ", ".join(faults))


def look(browser, server, wanted, app, watch, figure):
    browser.sign_in(server)
    time.sleep(20)
    pages = ["", "apps", "apps?q=name%3A~9999", "watches", "watches?condition=behind", "watches?q=name%3Ahandbook", "watches?condition=paused", "watches?q=name%3A~nowhere", "letters", "letters?q=path%3Adocs%2F**",
             "letters?q=answer%3A~nowhere", "letters?status=open", f"letters?app={app}", f"letters?app={app}&watch={watch}", "deliveries", f"deliveries?app={app}", "queues", "queues?q=dead%3A1", f"queue?app={app}&command=report",
             f"queue?app={app}&command=report&state=ready", "schedules", "schedules?q=state%3Apaused", f"schedule?app={app}&name=nightly", "ledger", f"ledger?app={app}", "tree", "system", "system?tab=sources", "system?tab=sources&failing=false", "system?tab=hooks", "system?tab=tokens", "system?tab=storage", "system?tab=replicas", "audit", "audit?action=seed_7",
             "audit?target=nothing", f"app?app={app}", f"app?app={app}&tab=ledger", f"watch?app={app}&id={watch}"]
    browser.load(server, "")
    for page in ("", "watches", "letters"):
        figure(f"first paint of /{page}", browser.load(server, page), PAINT_MS * wanted.slack)
    for page in pages:
        browser.go("system?tab=settings")
        named = page.replace(app, "APP").replace(watch, "WATCH")
        figure(f"page /{named}", browser.go(page), TABLE_MS * wanted.slack)
    for page in ("apps", "watches", "letters", "queues", "schedules", "ledger", "audit"):
        browser.go(page)
        following = browser.run("return document.querySelector('.pager a')?.getAttribute('href') ?? null")
        if following:
            named = f"next page of /{page}"
            figure(named, browser.go(following.removeprefix("/dashboard/")), TABLE_MS * wanted.slack)


def live(browser, server, wanted, places, figure):
    """A tab that stays open while things happen, on the pages that show most of it: what the tab holds once garbage is
    collected. An hour brings some thousand updates; here they come as fast as the server takes them."""
    app, watch = places[0]
    told = 0
    for page in ("ledger", "", f"app?app={app}", "tree"):
        browser.go(page)
        until, found, before = time.monotonic() + wanted.live / 4, [], told
        while time.monotonic() < until:
            # Another watch each time: changes of one state that follow each other soon share an entry.
            of, watch = places[told % len(places)] if page == "ledger" else (app, places[0][1])
            verb = "pause" if page == "ledger" or told % 2 == 0 else "resume"
            server.ask("POST", f"/api/admin/apps/{of}/repositories/{watch}/{verb}")
            # As its timer does, and much oftener than that.
            browser.run("document.dispatchEvent(new Event('visibilitychange'))")
            told += 1
            if told % 10 == 0:
                found.append(browser.memory())
        if len(found) < 4:
            print(f"too few live updates on /{page} for a figure of memory: raise --live")
            continue
        half = len(found) // 2
        early, late = ([min(column) for column in zip(*part)] for part in (found[:half], found[half:]))
        shown = browser.run("return document.querySelectorAll('tbody tr').length")
        print(f"/{page.split('?')[0]}: {told - before} live updates, {shown} rows, heap {early[0] / 2**20:.1f} MiB, then {late[0] / 2**20:.1f} MiB")
        named = page.split("?")[0]
        figure(f"growth of the heap on /{named}", max(0, late[0] - early[0]) / 1024, HEAP_GROWTH_BYTES / 1024, "KiB")
        figure(f"growth of nodes on /{named}", max(0, late[1] - early[1]), NODES_GROWTH, "")
        figure(f"growth of listeners on /{named}", max(0, late[2] - early[2]), LISTENERS_GROWTH, "")


if __name__ == "__main__":
    main()
