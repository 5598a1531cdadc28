"""`fork` and `spawn`, while the parent is idle and while it is busy: child and parent both go on working."""

import asyncio
import multiprocessing
import os
import threading

import penstock
import pytest

from conftest import KIB, fresh_bucket

CHILDREN = 3
WAIT_SECONDS = 120


def read_all(client, bucket, expected):
    """In the child: by the inherited client, by a new one, and by asyncio."""
    for key, body in expected.items():
        if bytes(client.get(bucket, key)) != body:
            return f"{key} is another"
    many = client.get_many(bucket, list(expected))
    if [bytes(one) for one in many] != list(expected.values()):
        return "get_many gives others"
    client.put(bucket, f"from-{os.getpid()}", b"child")
    fresh = penstock.Client(**client._options)
    if bytes(fresh.get(bucket, next(iter(expected)))) != next(iter(expected.values())):
        return "a new client gives another"

    async def read():
        again = penstock.AsyncClient(**client._options)
        return [bytes(await again.get(bucket, key)) for key in expected]

    if asyncio.run(read()) != list(expected.values()):
        return "asyncio gives others"
    return "well"


def child(client, bucket, expected, queue):
    try:
        queue.put(read_all(client, bucket, expected))
    except BaseException as error:
        queue.put(repr(error))


@pytest.fixture
def filled(client, bucket):
    expected = {f"k{i}": os.urandom(20 * KIB + 37 * i) for i in range(8)}
    expected["by-plan"] = os.urandom(600 * KIB)
    for key, body in expected.items():
        client.put(bucket, key, body)
    return expected


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_and_parent_go_on(client, bucket, filled, method, busy):
    context = multiprocessing.get_context(method)
    assert read_all(client, bucket, filled) == "well"
    stop, wrong = threading.Event(), []

    def work():
        keys = list(filled)
        while not stop.is_set():
            for key, body in zip(keys, client.get_many(bucket, keys, at_a_time=4)):
                if bytes(body) != filled[key]:
                    wrong.append(key)

    threads = [threading.Thread(target=work) for _ in range(3 if busy else 0)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            queue = context.Queue()
            children = [context.Process(target=child, args=(client, bucket, filled, queue)) for _ in range(CHILDREN)]
            for process in children:
                process.start()
            said = [queue.get(timeout=WAIT_SECONDS) for _ in children]
            for process in children:
                process.join(WAIT_SECONDS)
            assert said == ["well"] * CHILDREN and [process.exitcode for process in children] == [0] * CHILDREN
            # The parent too.
            assert bytes(client.get(bucket, "k1")) == filled["k1"]
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_SECONDS)
    assert wrong == [] and not any(thread.is_alive() for thread in threads)
    assert read_all(client, bucket, filled) == "well"


def test_asyncio_in_the_parent_and_after_fork(ours, request):
    """A parent whose background threads are busy forks: they are not in the child, which has its own."""
    client = ours.client()
    bucket = fresh_bucket(client, request.node.name)
    body = os.urandom(100 * KIB)
    client.put(bucket, "k", body)

    async def parent():
        busy = ours.async_client()
        reads = [asyncio.ensure_future(busy.get(bucket, "k")) for _ in range(50)]
        await asyncio.sleep(0)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                # The client that the parent was using, and one of its own.
                code = 0 if bytes(client.get(bucket, "k")) == body and bytes(ours.client().get(bucket, "k")) == body else 2
            finally:
                os._exit(code)
        assert [bytes(one) for one in await asyncio.gather(*reads)] == [body] * 50
        return pid

    pid = asyncio.run(parent())
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_children_of_children(ours, request):
    client = ours.client()
    bucket = fresh_bucket(client, request.node.name)
    client.put(bucket, "k", b"1" * 1000)

    def down(depth):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if bytes(client.get(bucket, "k")) == b"1" * 1000:
                    code = down(depth - 1) if depth > 0 else 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert bytes(client.get(bucket, "k")) == b"1" * 1000
        return code

    assert down(2) == 0
    assert bytes(client.get(bucket, "k")) == b"1" * 1000
