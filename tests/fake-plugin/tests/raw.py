"""A provider of raw frames, for what no provider of the SDK would send. Usage: raw.py MODE [FILE]"""

import json
import os
import socket
import struct
import sys

HEADER = struct.Struct("<QIII")
CALL, CANCEL, PING, PONG, OK, ERR, EVENT, LOG = 1, 2, 5, 6, 16, 17, 18, 19
HELLO, OPEN, READY = 32, 33, 34

mode = sys.argv[1]
wire = socket.socket(fileno=3)
reader = wire.makefile("rb")


def send(call, kind, code=0, payload=b""):
    wire.sendall(HEADER.pack(call, kind, code, len(payload)) + payload)


def receive():
    header = reader.read(HEADER.size)
    if len(header) < HEADER.size:
        sys.exit(0)
    call, kind, code, length = HEADER.unpack(header)
    return call, kind, code, reader.read(length)


def answer(call, method):
    """Answers a call of `describe` as the mode says."""
    reply = json.dumps({"name": "raw", "version": "1", "isolation": {"tier": "none"}}).encode()
    match mode:
        case "double":
            send(call, OK, 0, reply)
            send(call, OK, 0, reply)
            send(call, ERR, 22, b"changed its mind")
        case "stranger":
            send(call + 1000, OK, 0, reply)
            send(call + 1000, EVENT, 2, b"for nobody")
            send(call, OK, 0, reply)
        case "never":
            pass
        case "unknown-kind":
            send(call, 99)
        case "host-kind":
            send(call, CALL, 1)
        case "too-large":
            wire.sendall(HEADER.pack(call, OK, 0, 0xFFFFFFFF))
        case "large-log":
            send(0, LOG, 3, b"x" * 9000)
        case "no-json":
            send(call, OK, 0, b"{not json")
        case "other-json":
            send(call, OK, 0, b"[]")
        case "bad-progress":
            send(call, EVENT, 1, b"{not json")
        case "no-credit":
            for _ in range(8):
                send(call, EVENT, 2, b"x" * 65536)
        case "small-chunks":
            for _ in range(5200):
                send(call, EVENT, 2, b"")
        case "later":
            send(call, EVENT, 77, b"of a later version")
            send(call, OK, 0, reply[:-1] + b', "later": {"a": [1]}}')
        case "text":
            send(call, ERR, 18, b"no room")
        case "garbage":
            wire.sendall(os.urandom(65536))
        case "half":
            wire.sendall(HEADER.pack(call, OK, 0, 1000) + b"half of it")
            os._exit(0)


def replay(call, method, recorded):
    for kind, code, payload in recorded["answers"][str(method)]:
        send(call, kind, code, payload.encode())


def main():
    recorded = json.load(open(sys.argv[2])) if mode == "replay" else None
    hello = {"magic": "ALPNPRV1", "abi_min": 1, "abi_max": 1, "name": "raw", "version": "1", "features": []}
    if mode == "magic":
        hello["magic"] = "ELEPHANT"
    if mode == "abi":
        hello["abi_min"] = hello["abi_max"] = 7
    send(0, HELLO, 0, json.dumps(recorded["hello"] if recorded else hello).encode())
    while True:
        call, kind, code, payload = receive()
        if kind == OPEN:
            send(0, READY)
        elif kind == PING:
            send(call, PONG, code)
        elif kind == CALL and recorded:
            replay(call, code, recorded)
        elif kind == CALL and mode != "late":
            answer(call, code)
        elif kind == CANCEL and mode == "late":
            send(call, EVENT, 2, b"too late")
            send(call, ERR, 19, b"cancelled at last")


main()
