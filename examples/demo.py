"""`make demo`: train on a generated event log, export with the parity table, serve, talk to the server, and kill it.

The script runs the commands that a user would type, and shows the answers.
"""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.text import Text

from arraylstm.console import make_table, show_any_text

FOLDER = Path("demo")
PROGRAMS = Path(sys.executable).parent
CONVERSATION = [
    ("anna", "session.start"),
    ("ben", "session.start"),
    ("anna", "login.ok"),
    ("ben", "login.failed"),
    ("anna", "search"),
    ("ben", "login.failed"),
    ("ben", "account.locked"),
    ("anna", "results"),
    ("anna", "product.view"),
]
UNTIL = 5
"""How many of these events come before the server is killed."""

LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy: the server is on this machine

out = Console()


def main():
    show_any_text()
    FOLDER.mkdir(exist_ok=True)
    run("arraylstm-train", "-o", FOLDER / "model.pt", "--overwrite", "--epochs", "6")
    run("arraylstm-export", FOLDER / "model.pt")
    sessions = FOLDER / "sessions.db"
    for path in FOLDER.glob("sessions.db*"):
        path.unlink()
    server, url = serve(sessions)
    try:
        converse(url, CONVERSATION[:UNTIL])
        announce("kill", "-9", "the server")
        server.kill()
        server.wait()
        server, url = serve(sessions)
        out.print("Both sessions go on where they stood:")
        converse(url, CONVERSATION[UNTIL:])
    finally:
        server.terminate()
        status = server.wait(30)
    out.print(f"The server was told to stop and exited with {status}.")


def serve(sessions):
    """Start a server that keeps its sessions in a file; return its process and address."""
    arguments = [FOLDER / "model", "--port", "0", "--sessions", f"sqlite:{sessions}"]
    announce("arraylstm-serve", *arguments)
    server = subprocess.Popen(
        [PROGRAMS / "arraylstm-serve", *arguments], stdout=subprocess.PIPE, text=True, errors="replace"
    )
    return server, wait_until_ready(server)


def run(program, *arguments):
    announce(program, *arguments)
    subprocess.run([PROGRAMS / program, *arguments], check=True)


def announce(*words):
    out.print(Text(f"\n$ {' '.join(map(str, words))}", style="bold green"))


def wait_until_ready(server):
    """Print the server's greeting, which it writes once it is ready, and return its address from it."""
    url = ""
    for line in server.stdout:
        print(line, end="")
        if "serving" in line:
            url = line.split()[-1]
        if "docs" in line:
            return url
    raise SystemExit("The server did not start.")


def converse(url, events):
    """Send two sessions' events in turn; each is answered from its own state."""
    announce("POST", f"{url}/v1/sessions/SESSION/events", '{"items": [EVENT], "top_k": 2}')
    table = make_table("session", "event", "expected", "rank", "what comes next")
    for session, event in events:
        answer = post(f"{url}/v1/sessions/{session}/events", {"items": [event], "top_k": 2})
        (seen,) = answer["observed"]
        expected = "-" if seen["rank"] is None else f"{seen['probability']:.1%}"
        following = ", ".join(f"{entry['item']} {entry['probability']:.0%}" for entry in answer["predictions"])
        table.add_row(session, event, expected, str(seen["rank"] or "-"), following)
    out.print(table)


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with LOCAL.open(request) as response:
        return json.load(response)


if __name__ == "__main__":
    main()
