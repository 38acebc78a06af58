"""A provider that speaks frames on descriptor 3: as much of one as the checks of the boundary ask for.

Its argument names what it does wrong; without one it does nothing wrong.
"""
import json, os, signal, socket, struct, subprocess, sys, threading

wrong = sys.argv[1] if len(sys.argv) > 1 else ""
wire = socket.socket(fileno=3)
lock = threading.Lock()
credits, calls, made = {}, {}, set()
changed = threading.Condition()


def send(call, kind, code, payload=b""):
    with lock:
        wire.sendall(struct.pack("<QIII", call, kind, code, len(payload)) + payload)


def fail(call, kind):
    send(call, 17, 0, json.dumps({"kind": kind, "message": kind}).encode())


def exactly(size):
    data = b""
    while len(data) < size:
        part = wire.recv(size - len(data))
        if not part:
            if wrong == "stays":
                threading.Event().wait()
            for child in list(calls.values()):
                os.killpg(child.pid, signal.SIGKILL)
            os._exit(0)
        data += part
    return data


def run(call, argv):
    if wrong == "starts_late":
        # Not wrong, but as a busy machine is.
        argv = ["sh", "-c", "sleep 1; exec \"$@\"", "sh"] + argv
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    calls[call] = child
    credits.setdefault(call, 256 * 1024)
    if wrong == "answer_first":
        send(call, 16, 0, b'{"exited":0}')
    while True:
        text = child.stdout.read(200000) if wrong == "long_chunks" else child.stdout.read1(65536)
        if not text:
            break
        with changed:
            while wrong != "no_credit" and credits[call] < len(text):
                changed.wait()
            credits[call] -= len(text)
        send(call, 18, 2, text)
    status = child.wait()
    # Before the answer: what comes late for this call finds nothing.
    calls.pop(call, None)
    if status < 0 and wrong != "silent_cancel":
        fail(call, "cancelled")
        if wrong == "answers_twice":
            fail(call, "cancelled")
    elif status >= 0 and wrong != "answer_first":
        send(call, 16, 0, json.dumps({"exited": status}).encode())


def called(call, method, payload):
    try:
        value = json.loads(payload)
        request, _ = value["request"], value["meta"]["fence"]
        if method == 2:
            if wrong != "lax":
                request["ledger_id"], request["session_id"]
            if wrong == "strict" and set(request) - {"sandbox_id", "ledger_id", "session_id", "allow_unsandboxed"}:
                raise KeyError("unknown")
            made.add(request["sandbox_id"])
            isolation = {"tier": "process"}
            return send(call, 16, 0, json.dumps({"workspace_path": None, "isolation": isolation}).encode())
        if method == 7:
            state = "running" if request["sandbox_id"] in made else "missing"
            return send(call, 16, 0, json.dumps({"state": state}).encode())
        if method == 9:
            if wrong == "prints":
                print("a command runs", flush=True)
            return threading.Thread(target=run, args=(call, request["argv"]), daemon=True).start()
    except (ValueError, KeyError, TypeError):
        if wrong == "dies_of_garbage":
            os._exit(1)
        return fail(call, "invalid_argument")
    if wrong == "knows_everything":
        return send(call, 16, 0, b"{}")
    fail(call, "unsupported")


def refuse():
    if wrong != "refuses_silently":
        fail(0, "unsupported")
    os._exit(1)


magic = "SOMETHING" if wrong == "magic" else "ALPNPRV1"
send(0, 32, 0, json.dumps({"magic": magic, "abi_min": 1, "abi_max": 1}).encode())
is_open = False
while True:
    call, kind, code, length = struct.unpack("<QIII", exactly(20))
    if length > 1 << 20 and wrong != "takes_all":
        refuse()
    payload = exactly(length)
    if kind == 32:
        hello = json.loads(payload)
        if wrong != "greets_all" and (hello["magic"] != "ALPNPRV1" or not hello["abi_min"] <= 1 <= hello["abi_max"]):
            refuse()
    elif kind == 33:
        if is_open and wrong != "opens_twice":
            refuse()
        try:
            json.loads(payload)
        except ValueError:
            if wrong != "opens_anything":
                refuse()
        is_open = True
        send(0, 34, 0)
    elif kind == 1:
        called(call, code, payload)
    elif kind == 2 and call in calls:
        os.killpg(calls[call].pid, signal.SIGKILL)
    elif kind == 3:
        with changed:
            credits[call] = credits.get(call, 0) + code
            changed.notify_all()
    elif kind == 5 and not (wrong == "no_pong" and calls):
        send(0, 6, code)
    elif kind == 77 and wrong == "dies_of_a_kind":
        os._exit(1)
