"""Users, keys, policies, temporary credentials, strangers, CORS and the public access block, as boto3 sees them."""

import json
import os
import subprocess
import urllib.error
import urllib.request

import boto3
import botocore
import botocore.config
import pytest
from botocore.exceptions import ClientError

from conftest import BINARY, LIMITS


def code(error):
    return error.value.response["Error"]["Code"], error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def service(store, name, keys, token=None):
    # boto3 signs presigned URLs by SigV2 unless it is told.
    more = {"signature_version": "s3v4"} if name == "s3" else {}
    return boto3.client(
        name,
        endpoint_url=store.endpoint,
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
        aws_session_token=token,
        region_name="us-east-1",
        config=botocore.config.Config(**LIMITS, **more, s3={"addressing_style": "path"}),
    )


def anonymous(store):
    config = botocore.config.Config(
        **LIMITS, signature_version=botocore.UNSIGNED, s3={"addressing_style": "path"}
    )
    return boto3.client("s3", endpoint_url=store.endpoint, region_name="us-east-1", config=config)


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


@pytest.fixture
def iam(shared_store):
    return service(shared_store, "iam", shared_store.keys)


@pytest.fixture
def user(shared_store, iam):
    """A user with a key and no rights, removed afterwards."""
    name = "u-" + os.urandom(4).hex()
    made = iam.create_user(UserName=name)["User"]
    key = iam.create_access_key(UserName=name)["AccessKey"]
    yield name, (key["AccessKeyId"], key["SecretAccessKey"]), made["Arn"]
    for inline in iam.list_user_policies(UserName=name)["PolicyNames"]:
        iam.delete_user_policy(UserName=name, PolicyName=inline)
    for attached in iam.list_attached_user_policies(UserName=name)["AttachedPolicies"]:
        iam.detach_user_policy(UserName=name, PolicyArn=attached["PolicyArn"])
    for left in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=name, AccessKeyId=left["AccessKeyId"])
    iam.delete_user(UserName=name)


def test_a_user_may_do_what_its_policies_say(shared_store, s3, iam, bucket, user):
    name, keys, _ = user
    theirs = service(shared_store, "s3", keys)
    s3.put_object(Bucket=bucket, Key="home/a", Body=b"a")
    for call in (
        lambda: theirs.list_objects_v2(Bucket=bucket),
        lambda: theirs.get_object(Bucket=bucket, Key="home/a"),
        lambda: theirs.put_object(Bucket=bucket, Key="home/b", Body=b"b"),
        lambda: theirs.create_bucket(Bucket="not-" + bucket[:50]),
        lambda: theirs.list_buckets(),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code(error) == ("AccessDenied", 403)
    statements = [
        allow("s3:ListBucket", f"arn:aws:s3:::{bucket}", Condition={"StringLike": {"s3:prefix": "home/*"}}),
        allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], f"arn:aws:s3:::{bucket}/home/*"),
    ]
    iam.put_user_policy(UserName=name, PolicyName="home", PolicyDocument=policy(*statements))
    assert iam.get_user_policy(UserName=name, PolicyName="home")["PolicyDocument"]["Statement"] == statements
    assert [o["Key"] for o in theirs.list_objects_v2(Bucket=bucket, Prefix="home/")["Contents"]] == ["home/a"]
    theirs.put_object(Bucket=bucket, Key="home/b", Body=b"b")
    theirs.copy_object(Bucket=bucket, Key="home/c", CopySource={"Bucket": bucket, "Key": "home/a"})
    assert theirs.get_object(Bucket=bucket, Key="home/c")["Body"].read() == b"a"
    s3.put_object(Bucket=bucket, Key="secret", Body=b"s")
    for call in (
        lambda: theirs.list_objects_v2(Bucket=bucket),
        lambda: theirs.get_object(Bucket=bucket, Key="secret"),
        lambda: theirs.copy_object(Bucket=bucket, Key="home/s", CopySource={"Bucket": bucket, "Key": "secret"}),
        lambda: theirs.get_bucket_policy(Bucket=bucket),
        # Who may not list is not told what is not there.
        lambda: theirs.get_object(Bucket=bucket, Key="home/none"),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code(error) == ("AccessDenied", 403)
    # Of many, each is asked for.
    answer = theirs.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "home/b"}, {"Key": "secret"}]})
    assert [d["Key"] for d in answer["Deleted"]] == ["home/b"]
    assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [("secret", "AccessDenied")]
    iam.put_user_policy(UserName=name, PolicyName="list", PolicyDocument=policy(allow("s3:ListBucket")))
    with pytest.raises(ClientError) as error:
        theirs.get_object(Bucket=bucket, Key="home/none")
    assert code(error) == ("NoSuchKey", 404)


def test_attached_policies_and_keys(shared_store, iam, bucket, user):
    name, keys, _ = user
    theirs = service(shared_store, "s3", keys)
    iam.attach_user_policy(UserName=name, PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    theirs.list_objects_v2(Bucket=bucket)
    with pytest.raises(ClientError) as error:
        theirs.put_object(Bucket=bucket, Key="k", Body=b"")
    assert code(error) == ("AccessDenied", 403)
    iam.update_access_key(UserName=name, AccessKeyId=keys[0], Status="Inactive")
    with pytest.raises(ClientError) as error:
        theirs.list_objects_v2(Bucket=bucket)
    assert code(error) == ("InvalidAccessKeyId", 403)


def test_iam_says_what_is_wrong(shared_store, iam, user):
    name, keys, arn = user
    assert iam.get_user(UserName=name)["User"]["Arn"] == arn
    assert name in [u["UserName"] for u in iam.list_users()["Users"]]
    for call, want in (
        (lambda: iam.create_user(UserName=name), ("EntityAlreadyExists", 409)),
        (lambda: iam.get_user(UserName="nobody"), ("NoSuchEntity", 404)),
        (lambda: iam.delete_user(UserName=name), ("DeleteConflict", 409)),
        (lambda: iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument="{}"), ("MalformedPolicyDocument", 400)),
        (lambda: iam.create_group(GroupName="g"), ("InvalidAction", 400)),
        (lambda: service(shared_store, "iam", keys).list_users(), ("AccessDenied", 403)),
        (lambda: service(shared_store, "iam", (keys[0], "wrong")).list_users(), ("SignatureDoesNotMatch", 403)),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code(error) == want


def test_temporary_credentials(shared_store, s3, iam, bucket, user):
    name, keys, arn = user
    s3.put_object(Bucket=bucket, Key="a", Body=b"a")
    sts = service(shared_store, "sts", keys)
    assert sts.get_caller_identity()["Arn"] == arn
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy(allow("s3:GetObject")))
    made = sts.get_session_token(DurationSeconds=900)["Credentials"]
    temporary = (made["AccessKeyId"], made["SecretAccessKey"])
    theirs = service(shared_store, "s3", temporary, made["SessionToken"])
    assert theirs.get_object(Bucket=bucket, Key="a")["Body"].read() == b"a"
    url = theirs.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a"})
    assert urllib.request.urlopen(url).read() == b"a"
    for token, want in ((None, "InvalidAccessKeyId"), (made["SessionToken"][:-2] + "AA", "InvalidToken")):
        with pytest.raises(ClientError) as error:
            service(shared_store, "s3", temporary, token).get_object(Bucket=bucket, Key="a")
        assert code(error)[0] == want

    role = "r-" + os.urandom(4).hex()
    trust = policy({"Effect": "Allow", "Principal": {"AWS": arn}, "Action": "sts:AssumeRole"})
    role_arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=policy(allow("s3:*")))
    narrowed = sts.assume_role(
        RoleArn=role_arn, RoleSessionName="session", Policy=policy(allow(["s3:PutObject", "s3:GetObject"]))
    )
    assert narrowed["AssumedRoleUser"]["Arn"].endswith(f":assumed-role/{role}/session")
    made = narrowed["Credentials"]
    assumed = service(shared_store, "s3", (made["AccessKeyId"], made["SecretAccessKey"]), made["SessionToken"])
    assumed.put_object(Bucket=bucket, Key="b", Body=b"b")
    assert assumed.get_object(Bucket=bucket, Key="b")["Body"].read() == b"b"
    with pytest.raises(ClientError) as error:
        assumed.delete_object(Bucket=bucket, Key="b")
    assert code(error) == ("AccessDenied", 403)
    with pytest.raises(ClientError) as error:
        service(shared_store, "sts", shared_store.keys).assume_role(RoleArn=role_arn, RoleSessionName="root")
    assert code(error) == ("AccessDenied", 403)
    iam.delete_role_policy(RoleName=role, PolicyName="p")
    iam.delete_role(RoleName=role)
    with pytest.raises(ClientError) as error:
        assumed.get_object(Bucket=bucket, Key="b")
    assert code(error) == ("AccessDenied", 403)


def test_bucket_policies_let_strangers_in_and_keep_users_out(shared_store, s3, iam, bucket, user):
    name, keys, arn = user
    s3.put_object(Bucket=bucket, Key="public/a", Body=b"a")
    s3.put_object(Bucket=bucket, Key="private", Body=b"p")
    stranger = anonymous(shared_store)
    with pytest.raises(ClientError) as error:
        stranger.get_object(Bucket=bucket, Key="public/a")
    assert code(error) == ("AccessDenied", 403)
    with pytest.raises(ClientError) as error:
        s3.get_bucket_policy(Bucket=bucket)
    assert code(error) == ("NoSuchBucketPolicy", 404)
    public = {**allow("s3:GetObject", f"arn:aws:s3:::{bucket}/public/*"), "Principal": "*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=policy(public))
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"] == [public]
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is True
    assert stranger.get_object(Bucket=bucket, Key="public/a")["Body"].read() == b"a"
    for call in (
        lambda: stranger.get_object(Bucket=bucket, Key="private"),
        lambda: stranger.get_object(Bucket=bucket, Key="public/none"),
        lambda: stranger.list_objects_v2(Bucket=bucket),
        lambda: stranger.put_object(Bucket=bucket, Key="public/b", Body=b""),
        lambda: stranger.delete_object(Bucket=bucket, Key="public/a"),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code(error) == ("AccessDenied", 403)

    # A user by name; a Deny that is stronger than its own policy; a condition on the request.
    named = {**allow("s3:GetObject", f"arn:aws:s3:::{bucket}/*"), "Principal": {"AWS": arn}}
    guarded = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
        "Condition": {"Null": {"s3:if-none-match": "true"}},
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=policy(named, guarded))
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy(allow("s3:PutObject")))
    theirs = service(shared_store, "s3", keys)
    assert theirs.get_object(Bucket=bucket, Key="private")["Body"].read() == b"p"
    theirs.put_object(Bucket=bucket, Key="once", Body=b"", IfNoneMatch="*")
    for client in (theirs, s3):
        with pytest.raises(ClientError) as error:
            client.put_object(Bucket=bucket, Key="twice", Body=b"")
        assert code(error) == ("AccessDenied", 403)
    s3.delete_bucket_policy(Bucket=bucket)
    for wrong, want in (
        ("{", "MalformedPolicy"),
        (policy({**public, "Resource": "arn:aws:s3:::other/*"}), "MalformedPolicy"),
        (policy({**public, "Principal": {"AWS": arn + "x"}}), "MalformedPolicy"),
        (policy({**public, "Condition": {"StringIs": {"aws:username": "x"}}}), "MalformedPolicy"),
    ):
        with pytest.raises(ClientError) as error:
            s3.put_bucket_policy(Bucket=bucket, Policy=wrong)
        assert code(error) == (want, 400)


def test_public_access_block(shared_store, s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"a")
    with pytest.raises(ClientError) as error:
        s3.get_public_access_block(Bucket=bucket)
    assert code(error) == ("NoSuchPublicAccessBlockConfiguration", 404)
    public = policy({**allow("s3:GetObject", f"arn:aws:s3:::{bucket}/*"), "Principal": "*"})
    s3.put_bucket_policy(Bucket=bucket, Policy=public)
    stranger = anonymous(shared_store)
    stranger.get_object(Bucket=bucket, Key="a")
    block = {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": True,
        "RestrictPublicBuckets": True,
    }
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"] == block
    with pytest.raises(ClientError) as error:
        stranger.get_object(Bucket=bucket, Key="a")
    assert code(error) == ("AccessDenied", 403)
    with pytest.raises(ClientError) as error:
        s3.put_bucket_policy(Bucket=bucket, Policy=public)
    assert code(error) == ("AccessDenied", 403)
    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"a"
    s3.delete_public_access_block(Bucket=bucket)
    stranger.get_object(Bucket=bucket, Key="a")


def test_accounts_are_apart(shared_store, s3, bucket, folder):
    def admin(*arguments):
        command = [BINARY, "admin", "--endpoint", shared_store.endpoint, "--data", shared_store.data, *arguments]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
        lines = [line.partition(" ")[::2] for line in done.stdout.splitlines()]
        return done.returncode, dict(lines), done.stderr

    status, made, _ = admin("account", "create", "a-" + os.urandom(4).hex())
    assert status == 0
    theirs = service(shared_store, "s3", (made["AccessKeyId"], made["SecretAccessKey"]))
    assert theirs.list_buckets()["Buckets"] == []
    assert theirs.list_buckets()["Owner"]["ID"] == made["CanonicalId"]
    for call, want in (
        (lambda: theirs.list_objects_v2(Bucket=bucket), ("AccessDenied", 403)),
        (lambda: theirs.create_bucket(Bucket=bucket), ("BucketAlreadyExists", 409)),
        (lambda: theirs.delete_bucket(Bucket=bucket), ("AccessDenied", 403)),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code(error) == want
    mine = "mine-" + os.urandom(4).hex()
    theirs.create_bucket(Bucket=mine)
    assert [b["Name"] for b in theirs.list_buckets()["Buckets"]] == [mine]
    assert mine not in [b["Name"] for b in s3.list_buckets()["Buckets"]]
    with pytest.raises(ClientError) as error:
        s3.list_objects_v2(Bucket=mine)
    assert code(error) == ("AccessDenied", 403)
    theirs.put_object(Bucket=mine, Key="a", Body=b"a")
    root = "arn:aws:iam::000000000000:root"
    theirs.put_bucket_policy(
        Bucket=mine, Policy=policy({**allow("s3:GetObject", f"arn:aws:s3:::{mine}/*"), "Principal": {"AWS": root}})
    )
    assert s3.get_object(Bucket=mine, Key="a")["Body"].read() == b"a"
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=mine, Key="a", ExpectedBucketOwner="000000000000")
    assert code(error) == ("AccessDenied", 403)
    s3.get_object(Bucket=mine, Key="a", ExpectedBucketOwner=made["Id"])
    theirs.delete_object(Bucket=mine, Key="a")
    theirs.delete_bucket(Bucket=mine)
    assert admin("account", "delete", made["Id"])[0] == 0

    name = "cli-" + os.urandom(4).hex()
    assert admin("user", "create", name)[0] == 0
    status, key, _ = admin("key", "create", name)
    (folder / "p.json").write_text(policy(allow("s3:ListBucket")))
    assert status == 0 and admin("policy", "put", name, "p", folder / "p.json")[0] == 0
    service(shared_store, "s3", (key["AccessKeyId"], key["SecretAccessKey"])).list_objects_v2(Bucket=bucket)
    status, _, complaint = admin("user", "delete", name)
    assert status != 0 and "DeleteConflict" in complaint
    assert admin("policy", "delete", name, "p")[0] == 0
    assert admin("key", "delete", name, key["AccessKeyId"])[0] == 0
    assert admin("user", "delete", name)[0] == 0
    assert key["SecretAccessKey"] not in shared_store.server.log.read_text()


def test_identities_survive_a_restart(start_store):
    store = start_store()
    iam = service(store, "iam", store.keys)
    iam.create_user(UserName="jane")
    key = iam.create_access_key(UserName="jane")["AccessKey"]
    iam.put_user_policy(UserName="jane", PolicyName="p", PolicyDocument=policy(allow("s3:*")))
    theirs = service(store, "s3", (key["AccessKeyId"], key["SecretAccessKey"]))
    theirs.create_bucket(Bucket="kept")
    store.server.kill()
    store.start()
    assert [b["Name"] for b in theirs.list_buckets()["Buckets"]] == ["kept"]
    assert (store.data / "identity.key").stat().st_mode & 0o777 == 0o600


def test_acls_are_off(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"a", ACL="bucket-owner-full-control")
    owner = s3.list_buckets()["Owner"]["ID"]
    for answer in (s3.get_bucket_acl(Bucket=bucket), s3.get_object_acl(Bucket=bucket, Key="a")):
        assert answer["Owner"]["ID"] == owner
        assert [(g["Grantee"]["ID"], g["Permission"]) for g in answer["Grants"]] == [(owner, "FULL_CONTROL")]
    for call in (
        lambda: s3.put_bucket_acl(Bucket=bucket, ACL="public-read"),
        lambda: s3.put_object_acl(Bucket=bucket, Key="a", ACL="public-read"),
        lambda: s3.put_object(Bucket=bucket, Key="b", Body=b"", ACL="public-read"),
        lambda: s3.put_object(Bucket=bucket, Key="b", Body=b"", GrantRead="id=" + owner),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code(error) == ("AccessControlListNotSupported", 400)
    with pytest.raises(ClientError) as error:
        s3.create_bucket(Bucket="acl-" + bucket[:50], ACL="public-read")
    assert code(error) == ("InvalidBucketAclWithObjectOwnership", 400)
    rules = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert rules == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def ask(method, url, **headers):
    request = urllib.request.Request(url, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_cors(shared_store, s3, bucket):
    with pytest.raises(ClientError) as error:
        s3.get_bucket_cors(Bucket=bucket)
    assert code(error) == ("NoSuchCORSConfiguration", 404)
    url = f"{shared_store.endpoint}/{bucket}/a"
    asks = {"Origin": "http://app.example", "Access_Control_Request_Method": "PUT"}
    assert ask("OPTIONS", url, **asks)[0] == 403
    rules = [
        {
            "AllowedOrigins": ["http://*.example"],
            "AllowedMethods": ["GET", "PUT"],
            "AllowedHeaders": ["x-amz-*", "content-type"],
            "ExposeHeaders": ["ETag"],
            "MaxAgeSeconds": 300,
        }
    ]
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == rules
    status, headers = ask("OPTIONS", url, **asks, Access_Control_Request_Headers="X-Amz-Date, Content-Type")
    assert status == 200
    assert headers["Access-Control-Allow-Origin"] == "http://app.example"
    assert headers["Access-Control-Allow-Methods"] == "GET, PUT"
    assert headers["Access-Control-Allow-Headers"] == "x-amz-date, content-type"
    assert headers["Access-Control-Max-Age"] == "300"
    assert ask("OPTIONS", url, **asks, Access_Control_Request_Headers="authorization")[0] == 403
    assert ask("OPTIONS", url, Origin="http://elsewhere", Access_Control_Request_Method="GET")[0] == 403
    assert ask("OPTIONS", url, Origin="http://a.example", Access_Control_Request_Method="DELETE")[0] == 403
    # Answers say it too, refusals among them.
    status, headers = ask("GET", url, Origin="http://app.example")
    assert status == 403 and headers["Access-Control-Allow-Origin"] == "http://app.example"
    assert headers["Access-Control-Expose-Headers"] == "ETag"
    s3.put_object(Bucket=bucket, Key="a", Body=b"a")
    signing = service(shared_store, "s3", shared_store.keys)
    url = signing.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a"})
    status, headers = ask("GET", url, Origin="http://app.example")
    assert status == 200 and headers["Access-Control-Allow-Origin"] == "http://app.example"
    assert "Access-Control-Allow-Origin" not in ask("GET", url, Origin="http://elsewhere")[1]
    s3.delete_bucket_cors(Bucket=bucket)
    assert "Access-Control-Allow-Origin" not in ask("GET", url, Origin="http://app.example")[1]


def test_probes_get_the_answers_that_clients_expect(s3, bucket):
    assert s3.get_bucket_accelerate_configuration(Bucket=bucket).get("Status") is None
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)
    with pytest.raises(ClientError) as error:
        s3.get_bucket_replication(Bucket=bucket)
    assert code(error) == ("ReplicationConfigurationNotFoundError", 404)
    with pytest.raises(ClientError) as error:
        s3.get_bucket_website(Bucket=bucket)
    assert code(error) == ("NotImplemented", 501)
