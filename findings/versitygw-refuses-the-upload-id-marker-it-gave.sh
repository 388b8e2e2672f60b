#!/bin/sh
# versitygw 1.8.0, `posix`: a page of ListMultipartUploads that is not the last one has `NextKeyMarker` and `NextUploadIdMarker`. The next
# request with both as `key-marker` and `upload-id-marker`, which is how every client goes on, is answered 400 `InvalidArgument`. With
# `key-marker` alone it gets the next page. Whoever looks for abandoned uploads in a bucket of more than a page sees the first page only;
# who goes on by the key alone misses further uploads of the last key.
# Seen: "first page: one of three; with both markers: InvalidArgument; with the key alone: the second".
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
import sys, time
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionError

client = boto3.client(
    "s3",
    endpoint_url=f"http://127.0.0.1:{sys.argv[1]}",
    region_name="us-east-1",
    aws_access_key_id="name",
    aws_secret_access_key="secret-key",
    config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
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


def page(**markers):
    try:
        return client.list_multipart_uploads(Bucket="bucket", MaxUploads=1, **markers)
    except ClientError as error:
        return error.response["Error"]["Code"]


for key in ["a", "b", "c"]:
    client.create_multipart_upload(Bucket="bucket", Key=key)
first = page()
found = [upload["Key"] for upload in first["Uploads"]]
both = page(KeyMarker=first["NextKeyMarker"], UploadIdMarker=first["NextUploadIdMarker"])
alone = page(KeyMarker=first["NextKeyMarker"])
seen = found == ["a"] and first["IsTruncated"]
second = isinstance(alone, dict) and [upload["Key"] for upload in alone["Uploads"]] == ["b"]
print(
    f"first page: {'one of three' if seen else found}; with both markers: {both if isinstance(both, str) else 'a page'}; "
    f"with the key alone: {'the second' if second else alone}"
)
sys.exit(not seen or both != "InvalidArgument" or not second)
EOF
python/bin/python finding.py "$port"
