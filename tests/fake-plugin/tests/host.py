"""A host of the first version: sends what it sent then to a provider of today, and prints each method's answer.

Usage: host.py PROGRAM RECORDED STATE"""

import json
import os
import socket
import struct
import subprocess
import sys

HEADER = struct.Struct("<QIII")
CALL, OK, ERR, HELLO, OPEN, READY = 1, 16, 17, 32, 33, 34

program, recorded, state = sys.argv[1], json.load(open(sys.argv[2])), sys.argv[3]
wire, theirs = socket.socketpair()
subprocess.Popen([program], pass_fds=[3], preexec_fn=lambda: os.dup2(theirs.fileno(), 3))
theirs.close()
reader = wire.makefile("rb")


def send(call, kind, code, payload):
    wire.sendall(HEADER.pack(call, kind, code, len(payload)) + payload.encode())


def until(*wanted):
    """The next frame of such a kind."""
    while True:
        _call, kind, _code, length = HEADER.unpack(reader.read(HEADER.size))
        payload = reader.read(length).decode()
        if kind in wanted:
            return kind, json.loads(payload or "null")


send(0, HELLO, 0, recorded["hello"])
opening = json.loads(recorded["open"])
opening["config"] = {"state": state}
send(0, OPEN, 0, json.dumps(opening))
until(READY)
answers, given = {}, {}
for method, payload in recorded["calls"].items():
    call = json.loads(payload)
    # What a provider has given is handed back to it.
    call["request"].update({name: value for name, value in given.items() if name in call["request"]})
    send(int(method), CALL, int(method), json.dumps(call))
    kind, answer = until(OK, ERR)
    answers[method] = [kind, answer]
    if "staging_id" in answer:
        given["snapshot"] = answer
    if "durable_object_id" in answer:
        given["durable_object_id"] = answer["durable_object_id"]
print(json.dumps(answers))
