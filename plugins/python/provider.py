#!/usr/bin/env python3
"""A provider in Python, to copy: sandboxes are plain directories, commands plain processes. It isolates nothing and says so.

It has the six methods that are enough; alpine's adapter does the rest. The upper half is a provider of frames on descriptor
3 and can stay as it is; the lower half, from `Directories` on, is what you write. Every call runs in a thread of its own,
is answered once, and may come from a new process: all that is known is in files.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

HEADER = struct.Struct("<QIII")  # call, kind, code, length
MAX_CONTROL, MAX_CHUNK, CREDIT, MIN_CHARGE = 1 << 20, 64 << 10, 256 << 10, 64
CALL, CANCEL, GRANT, INPUT, PING, PONG, OK, ERR, EVENT = 1, 2, 3, 4, 5, 6, 16, 17, 18
HELLO, OPEN, READY = 32, 33, 34
STDOUT, STDERR = 2, 3
INPUT_DATA, INPUT_EOF, INPUT_SIGNAL = 0, 1, 3
KINDS = ["invalid_argument", "not_found", "conflict", "fenced", "destroyed", "unsupported", "isolation_unavailable",
         "auth_rejected", "branch_not_found", "commit_not_found", "unreachable", "config_invalid", "install_failed",
         "agent_not_ready", "workspace_lost", "too_large", "corrupt", "no_space", "cancelled", "timeout", "crashed", "io",
         "internal"]  # their numbers are their places, from 1
METHODS = {1: "describe", 2: "provision", 7: "inspect", 8: "list", 9: "exec", 11: "stop", 16: "destroy"}


class Failure(Exception):
    """What a call answers when it can't do what it was asked."""

    def __init__(self, kind, message, retry="never"):
        super().__init__(message)
        self.kind, self.message, self.retry = kind, message, retry


class Call:
    """A call that runs: what the host says to it meanwhile, and what it says to the host."""

    def __init__(self, port, number):
        self.port, self.number, self.fence = port, number, 0
        self.lock = threading.Lock()
        self.cancelled, self.credit, self.signals = False, CREDIT, []
        self.input, self.input_over, self.owed = bytearray(), False, 0
        self.woken, self.wake_end = os.pipe()  # becomes readable with every change of these
        os.set_blocking(self.woken, False)
        os.set_blocking(self.wake_end, False)

    def take(self, kind, code, payload):
        """Takes a frame of the host."""
        with self.lock:
            if kind == CANCEL:
                self.cancelled = True
            elif kind == GRANT:
                self.credit += code
            elif code == INPUT_DATA:
                self.input += payload
                self.owed += max(len(payload), MIN_CHARGE)
            elif code == INPUT_EOF:
                self.input_over = True
            elif code == INPUT_SIGNAL:
                self.signals.append(json.loads(payload)["signal"])
        self.wake()

    def wake(self):
        with contextlib.suppress(OSError):  # one that is full, or over, needs no more
            os.write(self.wake_end, b"!")

    def check(self):
        """Ends the call if the caller has given up."""
        if self.cancelled:
            raise Failure("cancelled", "the caller gave up")

    def event(self, code, data):
        """Sends output, for which there has to be credit."""
        with self.lock:
            self.credit -= max(len(data), MIN_CHARGE)
        self.port.send(self.number, EVENT, code, data)

    def close(self):
        os.close(self.woken)
        os.close(self.wake_end)


class Port:
    """The provider's end of the wire."""

    def __init__(self, wire):
        self.wire, self.sending = wire, threading.Lock()
        self.calls, self.changed, self.provider = {}, threading.Condition(), None

    def send(self, number, kind, code=0, payload=b""):
        # A host that has gone needs no answer.
        with self.sending, contextlib.suppress(OSError):
            self.wire.sendall(HEADER.pack(number, kind, code, len(payload)) + payload)

    def refuse(self, number, failure):
        said = {"kind": failure.kind, "message": failure.message, "retry": failure.retry}
        self.send(number, ERR, KINDS.index(failure.kind) + 1, json.dumps(said).encode())

    def read(self, size):
        data = bytearray()
        while len(data) < size:
            part = self.wire.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def serve(self, make):
        """Serves until the host has gone; `make` makes the provider of what OPEN says."""
        hello = {"magic": "ALPNPRV1", "abi_min": 1, "abi_max": 1, "name": NAME, "version": VERSION, "features": ["ping"]}
        self.send(0, HELLO, 0, json.dumps(hello).encode())
        greeted = False
        while True:
            number, kind, code, size = HEADER.unpack(self.read(HEADER.size))
            if size > MAX_CONTROL:
                raise Failure("too_large", f"a frame of {size} bytes, of at most {MAX_CONTROL}")
            payload = self.read(size)
            if kind == HELLO:
                greeted = self.is_fit(payload)
            elif kind == OPEN:
                if not greeted or self.provider:
                    raise Failure("invalid_argument", "OPEN comes once, after HELLO")
                self.provider = make(parsed(payload, "config_invalid"))
                self.send(0, READY)
            elif kind == PING:
                self.send(number, PONG, code)
            elif kind == CALL:
                self.begin(number, code, payload)
            elif kind in (CANCEL, GRANT, INPUT):
                with self.changed:
                    call = self.calls.get(number)
                    if call:
                        call.take(kind, code, payload)
            # What a later version says is left out.

    @staticmethod
    def is_fit(payload):
        hello = parsed(payload, "unsupported")
        if hello.get("magic") != "ALPNPRV1" or not hello.get("abi_min", 0) <= 1 <= hello.get("abi_max", 0):
            raise Failure("unsupported", f"the host speaks {hello.get('magic')} {hello.get('abi_min')} to"
                                         f" {hello.get('abi_max')}, where ALPNPRV1 1 is expected")
        return True

    def begin(self, number, code, payload):
        call = Call(self, number)
        with self.changed:
            self.calls[number] = call
        threading.Thread(target=self.answer, args=(call, code, payload), daemon=True).start()

    def answer(self, call, code, payload):
        try:
            if code not in METHODS:
                raise Failure("unsupported", f"this provider does not have method {code}")
            asked = parsed(payload, "invalid_argument")
            try:
                call.fence, request = int(asked["meta"]["fence"]), dict(asked["request"])
            except (KeyError, TypeError, ValueError) as error:
                raise Failure("invalid_argument", f"the call is malformed: {error!r}") from error
            reply, failure = getattr(self.provider, METHODS[code])(call, request), None
        except Failure as why:
            failure = why
        except OSError as error:
            failure = Failure("no_space" if error.errno in (28, 122) else "io", str(error))
        except Exception as error:  # a fault of ours is an answer, too
            failure = Failure("internal", repr(error))
        with self.changed:
            del self.calls[call.number]
            self.changed.notify_all()
        if failure:
            self.refuse(call.number, failure)
        else:
            self.send(call.number, OK, 0, json.dumps(reply).encode())
        call.close()

    def end(self, limit):
        """Cancels what still runs, and waits until it is answered."""
        with self.changed:
            for call in self.calls.values():
                call.take(CANCEL, 0, b"")
            self.changed.wait_for(lambda: not self.calls, limit)


def parsed(payload, kind):
    try:
        value = json.loads(payload)
    except ValueError as error:
        raise Failure(kind, f"no JSON: {error}") from error
    if not isinstance(value, dict):
        raise Failure(kind, "no JSON object")
    return value


# ---- the provider ----

NAME, VERSION = "python", "0.1.0"
# The variables that every process of a sandbox carries: its directory, and which command it is of.
MARK, COMMAND = "ALPINE_PYTHON_SANDBOX", "ALPINE_PYTHON_COMMAND"
ISOLATION = {"tier": "process", "layers": [], "limits": {}, "missing": [
    {"what": what, "why": why, "fix": "use a provider that isolates"} for what, why in {
        "isolation": "commands are plain processes of the user",
        "processes": "one that clears its environment, loses its parent, and leaves the directory or sets a `HOME` is not ended",
    }.items()]}


class Directories:
    """Sandboxes as directories: ROOT/ID/{about.json,fence,made,stopped,workspace}, ROOT/.destroyed/ID."""

    def __init__(self, asked):
        config, place = asked.get("config") or {}, asked.get("place") or {}
        if not isinstance(config, dict) or set(config) - {"root"} or not isinstance(config.get("root", ""), str):
            raise Failure("config_invalid", "the configuration takes `root`, a path, and nothing else")
        self.root = config.get("root") or os.path.join(place.get("state", ""), "sandboxes")
        self.env = place.get("env", {})
        if not os.path.isabs(self.root):
            raise Failure("config_invalid", "the directory of sandboxes has to be an absolute path")

    def describe(self, _call, _request):
        return {"name": NAME, "version": VERSION, "isolation": ISOLATION,
                "methods": list(METHODS.values()), "features": ["exec_input", "exec_signals", "host_network"], "limits": {},
                "config_schema": {"type": "object", "properties": {"root": {"type": "string"}},
                                  "additionalProperties": False}}

    def provision(self, call, request):
        name = id_of(request)
        about = {field: text_of(request, field) for field in ("ledger_id", "session_id")}
        about["allow_unsandboxed"] = bool(request.get("allow_unsandboxed"))
        with self.locked():
            self.refuse_destroyed(name)
            before = self.about(name)
            if before:
                self.raise_fence(name, call.fence)
                if before != about:
                    raise Failure("conflict", f"sandbox `{name}` was made with other arguments")
            else:
                os.makedirs(self.path(name), mode=0o700, exist_ok=True)
                # Before anything else of it, so that `list` finds what is half made; that it is whole is written last.
                write(self.path(name, "about.json"), json.dumps(about))
                self.raise_fence(name, call.fence)
            if not os.path.exists(self.path(name, "made")):
                os.makedirs(self.path(name, "workspace"), mode=0o700, exist_ok=True)
                os.makedirs(self.path(name, "tmp"), mode=0o700, exist_ok=True)
                write(self.path(name, "made"), "")
        return {"workspace_path": self.path(name, "workspace"), "isolation": ISOLATION}

    def inspect(self, _call, request):
        name = id_of(request)
        reply = {"state": self.state(name)}
        if reply["state"] == "running" and request.get("probe"):
            reply["probe"] = {"head": None, "writable": is_writable(self.path(name, "workspace")), "agent_ready": None}
        return reply

    def list(self, _call, request):
        ledger, found = text_of(request, "ledger_id"), []
        for name in os.listdir(self.root) if os.path.isdir(self.root) else []:
            about, state = self.about(name), self.state(name)
            if about and about["ledger_id"] == ledger and state != "missing":
                found.append({"sandbox_id": name, "session_id": about["session_id"], "state": state})
        return {"sandboxes": found}

    def exec(self, call, request):
        name, argv, env = id_of(request), request.get("argv"), request.get("env", {})
        self.must_run(name)
        try:
            names_fit = all(key and "=" not in key for key in env)
            if not argv[0] or "\0" in "".join([*argv, *env.keys(), *env.values()]) or not names_fit:
                raise ValueError("a word, or a variable's name, is malformed")
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise Failure("invalid_argument", f"the command can't be read: {error}") from error
        # The program is looked for where the sandbox would look for it.
        command = f"{os.getpid()}-{call.number}-{time.monotonic_ns()}"
        env = {**self.env, "TMPDIR": self.path(name, "tmp"), **env, MARK: self.path(name), COMMAND: command}
        try:
            child = subprocess.Popen(argv, env=env, cwd=self.path(name, "workspace"), start_new_session=True, bufsize=0,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            raise Failure("invalid_argument", f"`{argv[0]}` can't be run: {error}") from error
        try:
            # Looked at when the process is there, so that no `stop` misses it.
            self.must_run(name)
            attend(call, child, command)
            call.check()
        except Failure:
            # All that it has started ends with a command that was given up, whatever group it is in.
            left = ()
            while left := belonging(COMMAND, command, None, left):
                signal_each(left, signal.SIGKILL)
                time.sleep(0.005)
            raise
        finally:
            if child.returncode is None:
                kill_group(child, signal.SIGKILL)
                child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                stream.close()
        code = child.returncode
        return {"exited": code} if code >= 0 else {"signalled": -code}

    def stop(self, call, request):
        name, grace = id_of(request), request.get("grace_ms")
        if not isinstance(grace, int):
            raise Failure("invalid_argument", "`grace_ms` is a number")
        with self.locked():
            self.refuse_destroyed(name)
            if not self.about(name):
                raise Failure("not_found", f"there is no sandbox `{name}`")
            self.raise_fence(name, call.fence)
            write(self.path(name, "stopped"), "")
        return {"forced": end_all(call, self.path(name), grace / 1000)}

    def destroy(self, call, request):
        name = id_of(request)
        with self.locked():
            if self.about(name):
                self.raise_fence(name, call.fence)
            write(self.path(".destroyed", name), "")
        end_all(call, self.path(name), 0)
        shutil.rmtree(self.path(name), onerror=loosen)
        return {}

    # What is known of a sandbox.

    def path(self, *names):
        return os.path.join(self.root, *names)

    @contextlib.contextmanager
    def locked(self):
        """Holds the lock under which it is decided what becomes of a sandbox."""
        os.makedirs(self.path(".destroyed"), mode=0o700, exist_ok=True)
        with open(self.path(".lock"), "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def about(self, name):
        try:
            with open(self.path(name, "about.json"), encoding="utf-8") as file:
                return json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_destroyed(self, name):
        return os.path.exists(self.path(".destroyed", name))

    def refuse_destroyed(self, name):
        if self.is_destroyed(name):
            raise Failure("destroyed", f"sandbox `{name}` was destroyed")

    def state(self, name):
        if self.is_destroyed(name) or not os.path.exists(self.path(name, "about.json")):
            return "missing"
        runs = os.path.exists(self.path(name, "made")) and not os.path.exists(self.path(name, "stopped"))
        return "running" if runs else "exited"

    def must_run(self, name):
        if self.state(name) != "running":
            raise Failure("not_found", f"there is no sandbox `{name}` that runs")

    def raise_fence(self, name, fence):
        """Refuses a fence lower than the highest seen, and remembers a higher one. The lock is held."""
        path = self.path(name, "fence")
        seen = 0
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                seen = int(file.read())
        if fence < seen:
            raise Failure("fenced", f"fence {fence} of sandbox `{name}` is lower than {seen}, which was seen already")
        if fence > seen:
            write(path, str(fence))


def text_of(request, field):
    if not isinstance(request.get(field), str):
        raise Failure("invalid_argument", f"`{field}` is missing or no text")
    return request[field]


def id_of(request):
    name = text_of(request, "sandbox_id")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}", name):
        raise Failure("invalid_argument", "`sandbox_id` is malformed")
    return name


def write(path, text):
    """Replaces a file as a whole, flushed to disk."""
    part = f"{path}.part"
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def is_writable(workspace):
    try:
        write(os.path.join(workspace, ".alpine-probe"), "")
        os.unlink(os.path.join(workspace, ".alpine-probe"))
    except OSError:
        return False
    return True


def loosen(again, path, why):
    """Makes what can't be removed removable, and tries again."""
    if isinstance(why[1], FileNotFoundError):
        return
    os.chmod(os.path.dirname(path), 0o700)
    os.chmod(path, 0o700, follow_symlinks=os.chmod not in os.supports_follow_symlinks)
    if again in (os.scandir, os.open, os.listdir):
        shutil.rmtree(path)
    else:
        again(path)


# ---- processes ----

def kill_group(child, number):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def attend(call, child, command):
    """Passes a command's streams on until it has ended, and what it wrote by then has been sent."""
    os.set_blocking(child.stdin.fileno(), False)
    threading.Thread(target=lambda: (child.wait(), call.wake()), daemon=True).start()
    streams, stdin = {child.stdout.fileno(): STDOUT, child.stderr.fileno(): STDERR}, child.stdin.fileno()
    while True:
        over = child.returncode is not None
        with call.lock:
            cancelled, may, signals, call.signals = call.cancelled, call.credit >= MIN_CHARGE, call.signals, []
            with contextlib.suppress(BlockingIOError):
                try:
                    if stdin and call.input:
                        del call.input[:os.write(stdin, call.input)]
                except BrokenPipeError:
                    stdin = None  # a command that reads no more is no failure
            if stdin is None:
                call.input.clear()
            waits, owed = bool(call.input), 0
            if not waits:
                owed, call.owed = call.owed, 0
                if call.input_over and stdin:
                    child.stdin.close()
                    stdin = None
        if owed:
            call.port.send(call.number, GRANT, owed)  # all of what was sent has been used
        for number in signals:
            kill_group(child, number)
        if cancelled:
            signal_each(belonging(COMMAND, command, None, ()), signal.SIGKILL)
        if over and (cancelled or not streams):
            return
        # What it left in the background may hold its streams for ever: that is not waited for.
        limit = 0.05 if over and may else None
        readable, writable, _ = select.select([call.woken, *(streams if may else [])], [stdin] if waits else [], [], limit)
        if not readable and not writable:
            return
        for stream in readable:
            if stream == call.woken:
                os.read(stream, 4096)
                continue
            data = os.read(stream, min(MAX_CHUNK, call.credit)) if call.credit >= MIN_CHARGE else None
            if data:
                call.event(streams[stream], data)
            elif data == b"":
                del streams[stream]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def stat(process):
    """What the kernel tells of a process: its state, its parent, …, from the third field of proc(5) on."""
    return read(f"/proc/{process}/stat").rpartition(b")")[2].split()


def environment(process):
    """A process's variables. They can't be read while it executes a program: a moment, which is waited for."""
    for _ in range(1000):
        variables = read(f"/proc/{process}/environ")
        os.readlink(f"/proc/{process}/exe")  # the kernel's own processes have no program
        fields = stat(process)
        code_end, begin, end = fields[24], fields[47], fields[48]
        if variables or (code_end != b"0" and begin == end):
            return variables.split(b"\0")
        time.sleep(0.001)
    return []


def belonging(variable, value, directory, known):
    """The processes that carry this; those below the directory that have cleared their environment: one with a `HOME` may be a
    shell of the user's; those that were known; and all that descend from any of these. Each is its id and when it started."""
    mark, parents, found = f"{variable}={value}".encode(), {}, set()
    below = directory and os.path.join(os.path.realpath(directory), "")
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = stat(name)
            if fields[0] in (b"Z", b"X"):
                continue
            process = (int(name), fields[19])
            parents[process] = int(fields[1])
            variables = environment(name)
            is_cleared = not any(one.startswith(b"HOME=") for one in variables)
            places = (os.readlink(f"/proc/{name}/{link}") for link in ("cwd", "root", "exe"))
            if process in known or mark in variables or below and is_cleared and any(at.startswith(below) for at in places):
                found.add(process)
    count = -1
    while count != len(found):
        count, pids = len(found), {pid for pid, _ in found}
        found |= {process for process, parent in parents.items() if parent in pids}
    return found


def signal_each(processes, *numbers):
    for pid, _ in processes:
        with contextlib.suppress(ProcessLookupError):
            for number in numbers:
                os.kill(pid, number)


def end_all(call, directory, grace):
    """Ends every process: asks, and after the grace period forces. Says whether it had to."""
    begun, left, asked, forced = time.monotonic(), (), False, False

    def find():
        return belonging(MARK, directory, directory, left)

    # Who forks and ends meanwhile may be missed by one look.
    while left := find() or find():
        call.check()
        passed = time.monotonic() - begun
        if passed > grace + 5:
            raise Failure("io", f"processes can't be ended: {[pid for pid, _ in left]}")
        if passed >= grace:
            forced = True
            signal_each(left, signal.SIGKILL)
        elif not asked:
            signal_each(left, signal.SIGTERM, signal.SIGCONT)
        asked = True
        time.sleep(0.005)
    return forced


def main():
    port = Port(socket.socket(fileno=3))
    os.set_inheritable(3, False)
    try:
        port.serve(Directories)
    except Failure as failure:
        port.refuse(0, failure)
        sys.exit(1)
    except (EOFError, ConnectionError):
        port.end(0.5)
    os._exit(0)


if __name__ == "__main__":
    main()
