#!/bin/sh
# versitygw 1.8.0, `posix`: a DELETE with `If-Match` of a version, sent together with a PUT with `If-Match` of the same version, is
# sometimes answered 204 although the PUT is answered 200 as well, and the object of the PUT is gone. One after the other both keep the
# condition. Whoever removes a marker on the condition that nobody replaced it loses what replaced it; on Amazon's service one of two
# such requests at most succeeds.
# Seen, on two cores after some hundred rounds: "replaced and deleted, both on condition of one version; one after the other: 412".
set -eu
folder=$(mktemp -d)
trap 'kill -9 "$gateway" 2> /dev/null; rm -rf "$folder"' EXIT
gateway=
cd "$folder"
GOBIN="$folder" go install github.com/versity/versitygw/cmd/versitygw@v1.8.0 2> /dev/null
python3 -m venv python
python/bin/pip install --quiet boto3==1.43.11
mkdir -p data/bucket
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
ROOT_ACCESS_KEY=name ROOT_SECRET_KEY=secret-key ./versitygw --port "127.0.0.1:$port" posix data > log 2>&1 &
gateway=$!
cat > finding.py <<'EOF'
import sys, threading, time
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionError

port = int(sys.argv[1])
client = boto3.client(
    "s3",
    endpoint_url=f"http://127.0.0.1:{port}",
    region_name="us-east-1",
    aws_access_key_id="name",
    aws_secret_access_key="secret-key",
    config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}, max_pool_connections=32),
)
deadline = time.monotonic() + 60
while True:
    try:
        client.list_objects_v2(Bucket="bucket")
        break
    except (ClientError, ConnectionError):
        if time.monotonic() > deadline:
            sys.exit("versitygw does not answer:\n" + open("log").read())
        time.sleep(0.1)


def status(request):
    try:
        return request()["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]


def put(key, **condition):
    return client.put_object(Bucket="bucket", Key=key, Body=f"{time.monotonic_ns()}".encode(), **condition)


def delete(key, version):
    return client.delete_object(Bucket="bucket", Key=key, IfMatch=version)


def is_there(key):
    return any(found["Key"] == key for found in client.list_objects_v2(Bucket="bucket", Prefix=key).get("Contents", []))


lost = 0


def race(number):
    global lost
    key = f"race-{number}"
    version = put(key)["ETag"]
    answers = {}
    barrier = threading.Barrier(2)

    def send(name, request):
        barrier.wait()
        answers[name] = status(request)

    threads = [
        threading.Thread(target=send, args=("put", lambda: put(key, IfMatch=version))),
        threading.Thread(target=send, args=("delete", lambda: delete(key, version))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if answers == {"put": 200, "delete": 204} and not is_there(key):
        lost += 1


rounds = 0
while not lost and rounds < 10_000:
    racing = [threading.Thread(target=race, args=(number,)) for number in range(rounds, rounds + 8)]
    rounds += 8
    for thread in racing:
        thread.start()
    for thread in racing:
        thread.join()

old = put("sequence")["ETag"]
put("sequence", IfMatch=old)
refused = status(lambda: delete("sequence", old))
print(
    f"{'replaced and deleted' if lost else 'replaced or deleted'}, both on condition of one version; "
    f"one after the other: {refused}"
)
print(f"({rounds} rounds)", file=sys.stderr)
sys.exit(not lost or refused != 412 or not is_there("sequence"))
EOF
python/bin/python finding.py "$port"
