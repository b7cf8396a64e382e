"""The suite sets what its tests rely on."""

import os
import subprocess
import sys

import pytest

from .conftest import ROOT
from .surroundings import UMASK

PROGRAM = """
import http.server, os, subprocess, sys, threading, httpx
sys.path.insert(0, ".")
from tests.surroundings import settle
settle()
child = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(10)"
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
URL = f"http://127.0.0.1:{server.server_port}/pyproject.toml"
status = subprocess.run([sys.executable, "-c", child], stderr=subprocess.DEVNULL).returncode
names = sorted({"COLUMNS", "FORCE_COLOR", "ARRAYLSTM_PORT"} & os.environ.keys())
print(status, oct(os.umask(0)), os.environ["TZ"], os.environ["LC_ALL"], names, httpx.get(URL).status_code)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals and masks are Unix's")
def test_a_hostile_shell_is_put_right():
    """What a shell starts in the background ignores SIGINT; masks, languages, widths and proxies vary."""
    hostile = {
        "COLUMNS": "20",
        "FORCE_COLOR": "1",
        "http_proxy": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
    }
    hostile |= {"ARRAYLSTM_PORT": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "POSIX"}
    command = ["sh", "-c", 'trap "" INT; umask 077; exec "$@"', "sh", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | hostile, capture_output=True, text=True, check=True)
    assert done.stdout == f"-2 {oct(UMASK)} UTC C.UTF-8 [] 200\n"
