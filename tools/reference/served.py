"""`qianli serve` started for a check, and what the check finds."""

import re
import subprocess
import sys


def start(program, model, *options):
    """The process and its port."""
    server = subprocess.Popen([program, "serve", model, "--port", "0", *options], stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        if found := re.search(r"http://127.0.0.1:(\d+)/", line):
            return server, int(found[1])
    sys.exit("the server did not start")


def expect(condition, what):
    print(("ok      " if condition else "FAILED  ") + what, flush=True)
    expect.failed += not condition


expect.failed = 0
