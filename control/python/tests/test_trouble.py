"""What goes wrong: each is an exception that says what to do, never a hang, never short or changed data."""

import base64
import os
import signal
import subprocess
import sys
import threading
import time

import penstock
import pytest
from penstock import errors

from conftest import MIB, fresh_bucket, processes

BODY = bytes(range(256)) * 40
# CRC64NVME of BODY is asked of the Rust client, which has its own tests of it: see `crc64`.


@pytest.fixture(scope="session")
def crc64(moto):
    """BODY's checksum, as a header has it."""
    client = moto.client()
    client.create_bucket("crc64-of-body")
    value = client.put("crc64-of-body", "k", BODY).crc64
    return base64.b64encode(value.to_bytes(8, "big")).decode()


def head(length=len(BODY), status="200 OK", etag="e", **headers):
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f'HTTP/1.1 {status}\r\nETag: "{etag}"\r\nContent-Length: {length}\r\n{more}\r\n'.encode()


def error(status, code, message="said the server"):
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return head(len(body), status) + body


QUICK = {"tries": 2, "connect_timeout": 5.0, "silence_timeout": 0.5}


def test_endpoints_that_are_none(bare_server):
    for bad in ("localhost:9000", "ftp://x", "http://", "http://x:99999", "http://h/path"):
        with pytest.raises(errors.ConfigurationError, match="http://host:port|port"):
            penstock.Client(bad)
    nobody = f"http://127.0.0.1:{processes.free_port()}"
    client = penstock.Client(nobody, access_key="a", secret_key="b", tries=1)
    with pytest.raises(errors.EndpointError, match="endpoint") as refused:
        client.get("b", "k")
    assert refused.value.retryable and isinstance(refused.value, ConnectionError)
    client = penstock.Client("http://no-such-host.invalid", access_key="a", secret_key="b", tries=1)
    with pytest.raises(errors.EndpointError, match="no-such-host"):
        client.get("b", "k")
    ssh = bare_server(lambda n, request: [b"SSH-2.0-OpenSSH_9\r\n\r\n", None])
    with pytest.raises(errors.EndpointError, match="S3"):
        ssh.client(**QUICK).get("b", "k")


def test_options_that_make_no_sense():
    for options in (
        {"transport": "pigeon"},
        {"access_key": "only one"},
        {"session_token": "only that"},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"tries": 0},
        {"connections": 0},
    ):
        with pytest.raises(errors.ConfigurationError):
            penstock.Client("http://127.0.0.1:1", **options)
    with pytest.raises(TypeError):
        penstock.Client("http://127.0.0.1:1", timeout="soon")
    with pytest.raises(TypeError):
        penstock.Client("http://127.0.0.1:1", no_such_option=1)
    client = penstock.Client("http://127.0.0.1:1", access_key="a", secret_key="b")
    for timeout in (0, -1, float("inf")):
        with pytest.raises(ValueError):
            client.get("b", "k", timeout=timeout)
    for start, length in ((-1, 5), (0, 0), (0, -1)):
        with pytest.raises(ValueError, match="range"):
            client.get("b", "k", start=start, length=length)
    with pytest.raises(ValueError, match="at_a_time"):
        client.get_many("b", ["k"], at_a_time=0)
    with pytest.raises(errors.ConfigurationError, match="s3://bucket/key"):
        client.get_many(None, ["k"])


def test_keys_that_are_wrong(ours, request):
    bucket = fresh_bucket(ours.client(), request.node.name)
    for keys, code in ((("nobody", "secret"), "InvalidAccessKeyId"), ((ours.keys[0], "wrong"), "SignatureDoesNotMatch")):
        client = penstock.Client(ours.endpoint, access_key=keys[0], secret_key=keys[1])
        with pytest.raises(errors.AccessDenied, match="access_key") as denied:
            client.get(bucket, "k")
        assert denied.value.code == code and isinstance(denied.value, PermissionError)
    with pytest.raises(errors.NotFound, match="bucket"):
        ours.client().get("no-such-bucket-here", "k")


def test_no_keys_at_all(ours):
    code = (
        "import penstock, sys\n"
        f"client = penstock.Client({ours.endpoint!r}, timeout=30)\n"
        "try: client.get('b', 'k')\n"
        "except penstock.errors.AccessDenied as error: print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment.update(AWS_EC2_METADATA_DISABLED="true", HOME="/nonexistent")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "AWS_ACCESS_KEY_ID" in done.stdout and "access_key" in done.stdout


def test_credentials_that_have_expired(bare_server):
    server = bare_server(lambda n, request: [error("400 Bad Request", "ExpiredToken")])
    with pytest.raises(errors.ExpiredToken, match="new credentials"):
        server.client(transport="http", **QUICK).get("b", "k")
    assert len(server.requests) == 1, "to ask again would not help"


def test_a_body_that_ends_early_is_taken_up_again(bare_server):
    """The rest is asked for, of the same object."""

    def answer(n, request):
        if n == 1:
            return [head(), BODY[:5000], None]
        assert "if-match: \"e\"" in request and f"range: bytes=5000-{len(BODY) - 1}" in request, request
        rest = f"bytes 5000-{len(BODY) - 1}/{len(BODY)}"
        return [head(len(BODY) - 5000, "206 Partial Content", content_range=rest), BODY[5000:]]

    server = bare_server(answer)
    client = server.client(transport="http", **QUICK)
    assert bytes(client.get("b", "k")) == BODY
    assert client.stats()["resumed"] == 1


def test_a_body_that_always_ends_early(bare_server):
    server = bare_server(lambda n, request: [head(), BODY[:5000], None] if n == 1 else [error("500 X", "InternalError"), None])
    with pytest.raises(errors.PenstockError) as broken:
        server.client(transport="http", **QUICK).get("b", "k")
    assert broken.value.retryable


def test_an_object_that_is_replaced_meanwhile(bare_server):
    """First the rest of another object is refused, and all of it read anew."""

    def answer(n, request):
        if n == 1:
            return [head(), BODY[:5000], None]
        if "if-match" in request:
            return [error("412 Precondition Failed", "PreconditionFailed")]
        return [head(3, etag="new"), b"new"]

    server = bare_server(answer)
    assert bytes(server.client(transport="http", **QUICK).get("b", "k")) == b"new"


def test_bytes_that_were_changed(bare_server, crc64):
    wrong = b"\0" + BODY[1:]
    wrong = wrong if wrong != BODY else b"\1" + BODY[1:]
    # Once: it is read again.
    server = bare_server(lambda n, request: [head(x_amz_checksum_crc64nvme=crc64), wrong if n == 1 else BODY])
    client = server.client(transport="http", **QUICK)
    assert bytes(client.get("b", "k")) == BODY
    assert len(server.requests) == 2
    # Each time: nothing is returned, and the checksum named.
    server = bare_server(lambda n, request: [head(x_amz_checksum_crc64nvme=crc64), wrong])
    client = server.client(transport="http", **QUICK)
    for read in (lambda: client.get("b", "k"), lambda: client.get_into("b", "k", bytearray(len(BODY)))):
        with pytest.raises(errors.Corrupt, match="CRC64NVME") as corrupt:
            read()
        assert corrupt.value.retryable
    assert len(server.requests) <= 12, "and it is not asked for ever"


def test_a_server_that_stalls(bare_server):
    """In the middle of a body, and before it: the silence has an end, and so has the operation."""
    stop = threading.Event()

    def stall(state):
        while not state["stop"] and not stop.is_set():
            time.sleep(0.01)

    server = bare_server(lambda n, request: [head(), BODY[:100], stall])
    began = time.monotonic()
    with pytest.raises(errors.PenstockError):
        server.client(transport="http", tries=2, silence_timeout=0.2).get("b", "k")
    with pytest.raises(errors.Timeout, match="timeout=") as late:
        server.client(transport="http").get("b", "k", timeout=0.3)
    assert late.value.retryable and isinstance(late.value, TimeoutError)
    with pytest.raises(errors.Timeout):
        server.client(transport="http", timeout=0.3).get("b", "k")
    with pytest.raises(errors.Timeout):
        server.client(transport="http").get_into("b", "k", bytearray(len(BODY)), timeout=0.3)
    stop.set()
    assert time.monotonic() - began < 60


def test_ctrl_c_ends_a_wait(bare_server):
    def stall(state):
        while not state["stop"]:
            time.sleep(0.01)

    server = bare_server(lambda n, request: [stall])
    code = (
        "import penstock\n"
        f"client = penstock.Client({server.endpoint!r}, access_key='a', secret_key='b', transport='http')\n"
        "print('waiting', flush=True)\n"
        "try: client.get('b', 'k')\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waiting\n"
    deadline = time.monotonic() + 60
    while not server.requests:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "interrupted\n"


def test_a_server_that_goes_away_and_comes_back(tmp_path_factory, folder):
    """`kill -9` and a restart in the middle: what was acknowledged is there, and the same client goes on."""
    store = processes.Store(folder).start()
    try:
        client = penstock.Client(store.endpoint, access_key=store.keys[0], secret_key=store.keys[1], tries=2)
        client.create_bucket("bucket")
        body = os.urandom(2 * MIB)
        client.put("bucket", "k", body)
        store.server.kill()
        with pytest.raises(errors.EndpointError):
            client.get("bucket", "k")
        store.start()
        assert bytes(client.get("bucket", "k")) == body
    finally:
        store.server.kill()


def test_keys_that_vanish(client, bucket):
    for i in range(10):
        client.put(bucket, f"k{i}", b"1")
    keys = [entry.key for entry in client.list(bucket)]
    client.delete(bucket, "k5")
    with pytest.raises(errors.NotFound, match="k5.*deleted meanwhile"):
        client.get_many(bucket, keys)
    kept = client.get_many(bucket, keys, errors="return")
    assert [isinstance(one, errors.NotFound) for one in kept] == [key == "k5" for key in keys]


def test_what_the_server_does_not_have(bare_server):
    server = bare_server(lambda n, request: [error("501 Not Implemented", "NotImplemented")])
    with pytest.raises(errors.ServerError, match="do without"):
        server.client(transport="http", **QUICK).get("b", "k")
    server = bare_server(lambda n, request: [error("503 Slow Down", "SlowDown")])
    with pytest.raises(errors.ServerError, match="overloaded") as slow:
        server.client(transport="http", **QUICK).get("b", "k")
    assert slow.value.retryable and slow.value.status == 503
