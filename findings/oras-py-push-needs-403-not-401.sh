#!/bin/sh
# oras-py 0.2.43: a push first asks whether the blob is there and logs in for `pull`; the token of that does not allow the upload
# that follows. Where the registry answers the upload with 401 and error="insufficient_scope" (RFC 6750, section 3.1, would
# have 403, distribution's token specification has 401, and registries send that), oras-py sends the same token again and
# gives up; only after a 403 it asks for another token, which is what other clients do after a 401.
# Seen: "401: asked for pull, failed" and "403: asked for pull, pull,push, pushed".
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check oras==0.2.43
cat > finding.py <<'END'
import http.server, json, pathlib, sys, threading, urllib.parse
import oras.client, oras.logger

oras.logger.setup_logger(quiet=True)
pathlib.Path("file.txt").write_text("hello")


def push(refusal):
    """Pushes to a registry that refuses a token of too little with that status."""
    asked = []

    class Registry(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, fields={}, body=b"{}"):
            self.send_response(status)
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def serve(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = urllib.parse.urlsplit(self.path)
            if url.path == "/token":
                scope = urllib.parse.parse_qs(url.query)["scope"][0].split(":")[-1]
                asked.append(scope)
                return self.answer(200, body=json.dumps({"token": scope}).encode())
            needed = "pull" if self.command in ("GET", "HEAD") else "pull,push"
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if not token.startswith(needed):
                challenge = f'Bearer realm="http://{host}/token",service="s",scope="repository:a:{needed}"'
                enough = refusal if token.startswith("pull") else 401
                more = ',error="insufficient_scope"' if token.startswith("pull") else ""
                return self.answer(enough, {"WWW-Authenticate": challenge + more})
            status = {"HEAD": 404, "POST": 202, "PUT": 201}[self.command]
            self.answer(status, {"Location": f"http://{host}/v2/a/blobs/uploads/1"})

        do_GET = do_HEAD = do_POST = do_PUT = serve

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    host = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = oras.client.OrasClient(insecure=True, auth_backend="token")
    client.auth.set_basic_auth("user", "password")
    try:
        client.push(target=f"{host}/a:v1", files=["file.txt"], disable_path_validation=True)
        end = "pushed"
    except ValueError:
        end = "failed"
    server.shutdown()
    said = f"{refusal}: asked for {', '.join(asked)}, {end}"
    print(said)
    return said


seen = [push(401), push(403)]
sys.exit(seen != ["401: asked for pull, failed", "403: asked for pull, pull,push, pushed"])
END
HOME="$folder" venv/bin/python finding.py
