"""Events to real servers: a webhook, NATS with JetStream, RabbitMQ; and through kill -9, of the store and of the servers."""

import asyncio
import http.server
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import urllib.parse

import botocore.exceptions
import nats
import nats.errors
import pika
import pytest

from conftest import free_port, wait_for_port

HOOK, NATS, AMQP = (f"arn:aws:sqs:us-east-1:000000000000:{name}" for name in ("hook", "nats", "amqp"))
WAIT_SECONDS_MAX = 90
RABBITMQ = pathlib.Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def until(what, done):
    """Waits until `done()` gives something, and gives it back."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        got = done()
        if got:
            return got
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {WAIT_SECONDS_MAX} s")


class Hook:
    """An HTTP server that keeps what is posted to it, and refuses while it is told to."""

    def __init__(self):
        self.documents, self.refuses, self.authorizations, hook = [], False, set(), self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not hook.refuses:
                    hook.authorizations.add(self.headers["Authorization"])
                    hook.documents.append(json.loads(body))
                self.send_response(500 if hook.refuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/events"

    def records(self):
        return [record for document in list(self.documents) for record in document.get("Records", [])]

    def told(self):
        """(event, key) of what was told."""
        return [(r["eventName"], urllib.parse.unquote_plus(r["s3"]["object"]["key"])) for r in self.records()]


@pytest.fixture
def hook():
    hook = Hook()
    yield hook
    hook.server.shutdown()


@pytest.fixture
def targets(folder, hook):
    """The file of targets, with a webhook and whatever a test adds."""

    def write(more=""):
        path = folder / "events.toml"
        webhook = f'webhook = {{ url = "{hook.url}", authorization = "Bearer secret" }}'
        path.write_text(f'[[target]]\narn = "{HOOK}"\n{webhook}\n{more}')
        return path

    return write


def configure(client, bucket, arn, events=("s3:ObjectCreated:*", "s3:ObjectRemoved:*"), **filters):
    rules = [{"Name": name, "Value": value} for name, value in filters.items()]
    queue = {"Id": "rule", "QueueArn": arn, "Events": list(events)}
    if rules:
        queue["Filter"] = {"Key": {"FilterRules": rules}}
    client.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [queue]})


def error_code(call, *arguments, **keywords):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(*arguments, **keywords)
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"], caught.value.response["Error"]["Code"]


def test_configuration(start_store, targets):
    store = start_store(1, "--events", targets())
    client = store.client()
    client.create_bucket(Bucket="bucket")
    got = client.get_bucket_notification_configuration(Bucket="bucket")
    assert not any(key.endswith("Configurations") for key in got)
    configure(client, "bucket", HOOK, prefix="a/", suffix=".jpg")
    (rule,) = client.get_bucket_notification_configuration(Bucket="bucket")["QueueConfigurations"]
    assert (rule["Id"], rule["QueueArn"], rule["Events"]) == ("rule", HOOK, ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"])
    assert {r["Name"].lower(): r["Value"] for r in rule["Filter"]["Key"]["FilterRules"]} == {"prefix": "a/", "suffix": ".jpg"}
    assert error_code(configure, client, "bucket", HOOK + "x") == (400, "InvalidArgument")
    assert error_code(configure, client, "bucket", HOOK, ["s3:ObjectRestore:*"]) == (501, "NotImplemented")
    assert error_code(configure, client, "nowhere", HOOK) == (404, "NoSuchBucket")
    bridge = {"EventBridgeConfiguration": {}}
    put = client.put_bucket_notification_configuration
    assert error_code(put, Bucket="bucket", NotificationConfiguration=bridge) == (501, "NotImplemented")
    (rule,) = client.get_bucket_notification_configuration(Bucket="bucket")["QueueConfigurations"]
    client.put_bucket_notification_configuration(Bucket="bucket", NotificationConfiguration={})
    assert "QueueConfigurations" not in client.get_bucket_notification_configuration(Bucket="bucket")


def test_webhook(start_store, targets, hook):
    """Every kind of event, each once, and those of a key in its order."""
    store = start_store(1, "--events", targets(), "--lifecycle-day-seconds", 2)
    client = store.client()
    client.create_bucket(Bucket="bucket")
    every = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectTagging:*", "s3:LifecycleExpiration:*")
    configure(client, "bucket", HOOK, every, prefix="in/")
    test = until("the test event", lambda: hook.documents)[0]
    assert (test["Service"], test["Event"], test["Bucket"]) == ("Amazon S3", "s3:TestEvent", "bucket")
    put = client.put_object(Bucket="bucket", Key="in/a b+é", Body=b"1234")
    client.put_object(Bucket="bucket", Key="out/a", Body=b"not told")
    client.copy_object(Bucket="bucket", Key="in/copy", CopySource={"Bucket": "bucket", "Key": "in/a b+é"})
    upload = client.create_multipart_upload(Bucket="bucket", Key="in/parts")["UploadId"]
    etag = client.upload_part(Bucket="bucket", Key="in/parts", UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    client.complete_multipart_upload(Bucket="bucket", Key="in/parts", UploadId=upload, MultipartUpload=parts)
    client.put_object_tagging(Bucket="bucket", Key="in/copy", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    client.delete_object_tagging(Bucket="bucket", Key="in/copy")
    client.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "in/copy"}, {"Key": "out/a"}, {"Key": "in/none"}]})
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    marker = client.delete_object(Bucket="bucket", Key="in/parts")
    client.delete_object(Bucket="bucket", Key="in/parts", VersionId=marker["VersionId"])
    form = store.client(signature_version="s3v4").generate_presigned_post("bucket", "in/form")
    import requests

    assert requests.post(form["url"], data=form["fields"], files={"file": b"posted"}, timeout=60).status_code == 204
    want = [
        ("ObjectCreated:Put", "in/a b+é"), ("ObjectCreated:Copy", "in/copy"),
        ("ObjectCreated:CompleteMultipartUpload", "in/parts"), ("ObjectTagging:Put", "in/copy"),
        ("ObjectTagging:Delete", "in/copy"), ("ObjectRemoved:Delete", "in/copy"),
        ("ObjectRemoved:DeleteMarkerCreated", "in/parts"), ("ObjectRemoved:Delete", "in/parts"), ("ObjectCreated:Post", "in/form"),
    ]
    until("all events", lambda: len(hook.told()) >= len(want))
    assert sorted(hook.told()) == sorted(want)
    for key in {key for _, key in want}:
        of_key = [r for r, (_, k) in zip(hook.records(), hook.told()) if k == key]
        assert [r["eventName"] for r in of_key] == [event for event, k in want if k == key], "in the key's order"
        sequencers = [r["s3"]["object"]["sequencer"] for r in of_key]
        assert sequencers == sorted(set(sequencers))
    first = hook.records()[0] if hook.told()[0][1] == "in/a b+é" else next(r for r, t in zip(hook.records(), hook.told()) if t[1] == "in/a b+é")
    assert first["s3"]["object"]["size"] == 4 and f'"{first["s3"]["object"]["eTag"]}"' == put["ETag"]
    assert first["requestParameters"]["sourceIPAddress"] == "127.0.0.1" and first["userIdentity"]["principalId"].startswith("AWS:")
    assert first["responseElements"]["x-amz-request-id"] == put["ResponseMetadata"]["RequestId"]
    assert hook.authorizations == {"Bearer secret"}
    rule = {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": "in/form"}, "Expiration": {"Days": 1}}
    client.put_bucket_lifecycle_configuration(Bucket="bucket", LifecycleConfiguration={"Rules": [rule]})
    until("the expiration", lambda: ("LifecycleExpiration:DeleteMarkerCreated", "in/form") in hook.told())


def test_kill_nine_loses_no_event(start_store, targets, hook):
    """Every put that was acknowledged is told, whenever the store is killed, and whether or not the target was there."""
    store = start_store(1, "--events", targets())
    store.client().create_bucket(Bucket="bucket")
    configure(store.client(), "bucket", HOOK)
    acknowledged = []
    for round_number in range(4):
        hook.refuses = round_number == 1
        client, stop = store.client(retries={"total_max_attempts": 1}), threading.Event()

        def write(writer, client=client, stop=stop, round_number=round_number):
            number = 0
            while not stop.is_set():
                key = f"{round_number}/{writer}/{number}"
                try:
                    client.put_object(Bucket="bucket", Key=key, Body=b"x")
                except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError):
                    return
                acknowledged.append(key)
                number += 1

        writers = [threading.Thread(target=write, args=(writer,)) for writer in range(3)]
        before = len(acknowledged)
        for writer in writers:
            writer.start()
        until("some puts", lambda: len(acknowledged) >= before + 30)
        store.server.kill()
        stop.set()
        for writer in writers:
            writer.join(60)
        store.start()
    hook.refuses = False
    until("every event", lambda: {key for _, key in hook.told()} >= set(acknowledged))
    assert store.server.stop() == 0
    told, known = hook.told(), set(acknowledged)
    # What was told and not acknowledged was being put when the store was killed: three writers, four times.
    assert len({key for _, key in told} - known) <= 12
    # Sent again after a kill: no more than were on their way.
    assert len(told) - len(set(told)) <= 4 * 256


@pytest.fixture
def nats_server(folder):
    port = free_port()
    processes = []

    def start():
        arguments = ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "jetstream")]
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        processes.append(process)
        wait_for_port(port, process, folder / "none")
        return process

    yield port, start
    for process in processes:
        process.kill()
        process.wait()


def test_nats(start_store, targets, nats_server):
    """A stream of JetStream has every event, in order, though its server was killed and started again."""
    port, start = nats_server
    url = f"nats://127.0.0.1:{port}"
    server = start()
    more = f'[[target]]\narn = "{NATS}"\nnats = {{ url = "{url}", subject = "penstock.events" }}\n'

    async def make_stream():
        link = await nats.connect(url)
        await link.jetstream().add_stream(name="events", subjects=["penstock.>"])
        await link.close()

    asyncio.run(make_stream())
    store = start_store(1, "--events", targets(more))
    client = store.client()
    client.create_bucket(Bucket="bucket")
    configure(client, "bucket", NATS)
    for number in range(20):
        client.put_object(Bucket="bucket", Key="key", Body=b"x" * number)
        if number == 10:
            server.send_signal(signal.SIGKILL)
            server.wait()
        if number == 15:
            start()

    async def read():
        link = await nats.connect(url)
        pull = await link.jetstream().pull_subscribe("penstock.events", "reader")
        documents = []
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while len(documents) < 21 and time.monotonic() < deadline:
            try:
                for message in await pull.fetch(50, timeout=1):
                    documents.append(json.loads(message.data))
                    await message.ack()
            except (nats.errors.TimeoutError, asyncio.TimeoutError):
                pass
        await link.close()
        return documents

    documents = asyncio.run(read())
    assert documents[0]["Event"] == "s3:TestEvent"
    sizes = [document["Records"][0]["s3"]["object"]["size"] for document in documents[1:]]
    assert sorted(set(sizes)) == list(range(20)) and [s for n, s in enumerate(sizes) if s not in sizes[:n]] == list(range(20))


@pytest.fixture
def rabbitmq(folder):
    if not RABBITMQ.exists():
        pytest.fail("rabbitmq-server is missing: ./dev clients installs it")
    port, distribution = free_port(), free_port()
    environment = {
        **os.environ, "HOME": str(folder), "RABBITMQ_NODENAME": f"events{port}@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port), "RABBITMQ_DIST_PORT": str(distribution), "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "rabbit-log"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_PID_FILE": str(folder / "rabbit.pid"), "RABBITMQ_CONF_ENV_FILE": "/dev/null", "RABBITMQ_CONFIG_FILE": str(folder / "rabbit"),
        "ERL_EPMD_PORT": str(free_port()), "ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_EPMD_RELAXED_COMMAND_CHECK": "1",
    }
    (folder / "plugins").write_text("[].\n")
    log = open(folder / "rabbit.out", "wb")
    process = subprocess.Popen([RABBITMQ], env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_port(port, process, folder / "rabbit.out")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # Erlang's name server outlives its nodes, unless it is told.
        subprocess.run(["epmd", "-port", environment["ERL_EPMD_PORT"], "-kill"], check=True, capture_output=True)
        log.close()


def test_rabbitmq(start_store, targets, rabbitmq):
    """Confirmed and mandatory: an event that no queue takes waits until there is one."""
    url = f"amqp://guest:guest@127.0.0.1:{rabbitmq}/%2f"
    more = f'[[target]]\narn = "{AMQP}"\namqp = {{ url = "{url}", routing_key = "events" }}\n'
    store = start_store(1, "--events", targets(more))
    client = store.client()
    client.create_bucket(Bucket="bucket")
    configure(client, "bucket", AMQP)
    for number in range(5):
        client.put_object(Bucket="bucket", Key="key", Body=b"x" * number)
    until("a refusal", lambda: "no queue takes" in store.server.log.read_text())
    store.server.process.send_signal(signal.SIGUSR1)
    until("the counts", lambda: f"events for {AMQP}: 6 wait, 0 dropped" in store.server.out.read_text())

    def connect():
        try:
            return pika.BlockingConnection(pika.URLParameters(url))
        except pika.exceptions.AMQPError:
            return None

    link = until("a connection to RabbitMQ", connect)
    channel = link.channel()
    channel.queue_declare("events", durable=True)
    documents = []

    def take():
        frame, properties, body = channel.basic_get("events", auto_ack=True)
        if frame:
            assert properties.delivery_mode == 2 and properties.content_type == "application/json" and properties.message_id
            documents.append(json.loads(body))
        return len(documents) == 6

    until("all events", take)
    link.close()
    assert [d["Event"] for d in documents if "Event" in d] == ["s3:TestEvent"]
    sizes = [d["Records"][0]["s3"]["object"]["size"] for d in documents if "Records" in d]
    assert sizes == [0, 1, 2, 3, 4], "in the order of the key"
