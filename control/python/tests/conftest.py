"""Two S3 servers for every test of the client: ours, and moto's."""

import importlib.util
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import penstock
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
_spec = importlib.util.spec_from_file_location("penstock_processes", ROOT / "control/cli/tests/clients/conftest.py")
processes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(processes)

START_SECONDS_MAX = 60
KIB, MIB = 1 << 10, 1 << 20


class Server:
    """Where a server is, and by which keys."""

    def __init__(self, name, endpoint, keys):
        self.name, self.endpoint, self.keys = name, endpoint, keys

    def options(self, **options):
        return {"endpoint": self.endpoint, "access_key": self.keys[0], "secret_key": self.keys[1], **options}

    def client(self, **options):
        return penstock.Client(**self.options(**options))

    def async_client(self, **options):
        return penstock.AsyncClient(**self.options(**options))


@pytest.fixture(scope="session")
def ours():
    base = ROOT / "target" / "tmp"
    base.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="python-", dir=base))
    store = processes.Store(folder, 6).start()
    yield Server("penstock", store.endpoint, store.keys)
    code = store.server.stop()
    shutil.rmtree(folder, ignore_errors=True)
    assert code == 0, "the store did not end well on SIGTERM"


@pytest.fixture(scope="session")
def moto():
    port = processes.free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, "moto's server did not start"
            time.sleep(0.05)
    yield Server("moto", f"http://127.0.0.1:{port}", ("testing", "testing"))
    process.terminate()
    process.wait()


@pytest.fixture(params=["penstock", "moto"])
def server(request):
    return request.getfixturevalue("ours" if request.param == "penstock" else "moto")


@pytest.fixture
def client(server):
    return server.client(timeout=120)


def fresh_bucket(client, node):
    name = "".join(c if c.isalnum() else "-" for c in node.lower())[:40].strip("-")
    name = f"b-{name}-{os.urandom(4).hex()}"
    client.create_bucket(name)
    return name


@pytest.fixture
def bucket(client, request):
    """A fresh bucket. The server goes away at the end, and what is in it."""
    return fresh_bucket(client, request.node.name)


@pytest.fixture
def bare_server():
    """A server that answers each request by what `answer(n, request)` yields: for what no honest server does."""
    import threading

    stops = []

    def start(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(0.1)
        state = {"stop": False, "requests": []}

        def one(connection):
            connection.settimeout(30)
            with connection:
                try:
                    while not state["stop"]:
                        request = b""
                        while b"\r\n\r\n" not in request:
                            piece = connection.recv(65536)
                            if not piece:
                                return
                            request += piece
                        state["requests"].append(request.decode("latin-1"))
                        for piece in answer(len(state["requests"]), request.decode("latin-1")):
                            if piece is None:
                                return
                            if callable(piece):
                                piece(state)
                            else:
                                connection.sendall(piece)
                except OSError:
                    return

        def accept():
            while not state["stop"]:
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                threading.Thread(target=one, args=(connection,), daemon=True).start()
            listener.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        stops.append((state, thread))
        server = Server("bare", f"http://127.0.0.1:{listener.getsockname()[1]}", ("key", "secret"))
        server.requests = state["requests"]
        return server

    yield start
    for state, thread in stops:
        state["stop"] = True
        thread.join()


@pytest.fixture
def folder():
    """A folder on a real file system, removed afterwards."""
    base = ROOT / "target" / "tmp"
    base.mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(tempfile.mkdtemp(prefix="python-", dir=base))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def bucket_of_ours(ours, request):
    return fresh_bucket(ours.client(), request.node.name)
