#!/bin/sh
# azurite 3.37.0, Azure's emulator of its blob store: a GET whose range begins at the end of a blob is 206 with a Content-Range that
# ends before it begins, and so is any range of an empty blob. RFC 9110, section 15.5.17, has 416, which Azure documents too
# (InvalidRange), and section 14.4 calls such a Content-Range invalid. A client that is to find out by 416 that it has all of a
# blob, as one does that resumes a download, reads an empty success instead.
# Seen: "10 bytes from 10: 206 bytes 10-9/10", "0 bytes from 0: 206 bytes 0--1/0".
set -eu
folder=$(mktemp -d)
trap 'kill -9 "$azurite" 2> /dev/null; rm -rf "$folder"' EXIT
azurite=
cd "$folder"
npm install --silent --no-fund --no-audit azurite@3.37.0 > /dev/null
key=$(head -c 32 /dev/urandom | base64)
AZURITE_ACCOUNTS="account:$key" node node_modules/.bin/azurite-blob --blobPort 0 --location data --skipApiVersionCheck > log 2>&1 &
azurite=$!
cat > finding.py <<'END'
import base64, hashlib, hmac, http.client, re, sys, time
from email.utils import formatdate

key = base64.b64decode(sys.argv[1])
deadline = time.monotonic() + 60
while not (port := re.search(r"successfully listens on http://127\.0\.0\.1:(\d+)", open("log").read())):
    if time.monotonic() > deadline:
        sys.exit("azurite does not listen:\n" + open("log").read())
    time.sleep(0.1)


def request(method, path, query="", fields={}, body=b""):
    """Sends a request signed with the account's key."""
    fields = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2023-11-03", **fields}
    signed = "".join(f"{name}:{fields[name]}\n" for name in sorted(fields) if name.startswith("x-ms-"))
    resource = f"/account/account{path}" + "".join(f"\n{pair.replace('=', ':')}" for pair in query.split("&") if pair)
    length = str(len(body)) if body else ""
    text = "\n".join([method, "", "", length, "", "", "", "", "", "", "", fields.get("Range", "")]) + f"\n{signed}{resource}"
    mac = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", int(port[1]))
    target = f"/account{path}" + ("?" + query if query else "")
    connection.request(method, target, body or None, {**fields, "Content-Length": str(len(body)), "Authorization": f"SharedKey account:{mac}"})
    response = connection.getresponse()
    response.read()
    return response


assert request("PUT", "/blobs", "restype=container").status == 201
seen = []
for size in (10, 0):
    created = request("PUT", f"/blobs/{size}", fields={"x-ms-blob-type": "BlockBlob"}, body=b"x" * size)
    assert created.status == 201, created.status
    response = request("GET", f"/blobs/{size}", fields={"Range": f"bytes={size}-"})
    seen.append(f"{size} bytes from {size}: {response.status} {response.getheader('Content-Range')}")
print("\n".join(seen))
sys.exit(seen != ["10 bytes from 10: 206 bytes 10-9/10", "0 bytes from 0: 206 bytes 0--1/0"])
END
python3 finding.py "$key"
