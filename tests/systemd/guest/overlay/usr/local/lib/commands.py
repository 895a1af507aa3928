"""Runs in the guest: one JSON object a line comes in over a serial line, {"argv": […], "stdin": "…"}; one goes out for it."""

import json
import subprocess
import sys
import tty


def run(request):
    try:
        done = subprocess.run(request["argv"], input=request["stdin"].encode(), capture_output=True)
    except OSError as error:
        return {"code": 127, "stdout": "", "stderr": str(error)}
    return {
        "code": done.returncode,
        "stdout": done.stdout.decode(errors="replace"),
        "stderr": done.stderr.decode(errors="replace"),
    }


with open(sys.argv[1], "r+b", buffering=0) as line:
    tty.setraw(line)
    line.write(b'{"up": true}\n')
    for received in iter(line.readline, b""):
        answer = json.dumps(run(json.loads(received))).encode() + b"\n"
        while answer:
            answer = answer[line.write(answer) :]
