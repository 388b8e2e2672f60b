#!/bin/sh
# podman 4.3.1 (containers/storage), pulling an image in `zstd:chunked` of which it has some files already, asks for the chunks that it
# lacks by hundreds of ranges in one request, many of which follow each other. RFC 9110, section 15.3.7.2, lets a server send ranges
# that touch as one part. podman takes the parts for the ranges that it asked for, one after the other: it finds wrong content
# ("checksum mismatch"), gives up on the partial pull and fetches the whole layer. So the pull succeeds, and costs more than without the
# format. A server that sends one part for each range is served right.
# Seen: the lines after "cat > expected". The proxy below sends the parts either way; the registry behind it is registry:2.
# Runs on Debian 12 as root (podman mounts what it pulls).
set -eu
folder=$(mktemp -d)
trap 'kill ${server:-} ${proxy:-} 2> /dev/null || true; umount "$folder"/*/root/overlay 2> /dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq podman=4.3.1+ds1-8+deb12u1+b3 docker-registry=2.8.2+ds1-1 libgpgme11 libassuan0 libsubid4 libsemanage2 \
    libseccomp2 libdevmapper1.02.1 > /dev/null
for package in *.deb; do dpkg -x "$package" system; done
export PATH="$folder/system/usr/bin:$PATH"
export LD_LIBRARY_PATH="$folder/system/usr/lib/x86_64-linux-gnu:$folder/system/lib/x86_64-linux-gnu"

cat > config.yml <<END
version: 0.1
storage: {filesystem: {rootdirectory: $folder/data}}
http: {addr: "127.0.0.1:0"}
END
docker-registry serve config.yml > log 2>&1 &
server=$!
deadline=$(($(date +%s) + 60))
wait_for() {
    until port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$1" 2> /dev/null) && [ -n "$port" ]; do
        [ "$(date +%s)" -lt $deadline ] || exit 1
        sleep 0.1
    done
}
wait_for log
registry=$port

# A pull-only proxy. Names of repositories that begin with "joined" get ranges that follow each other as one part.
cat > proxy.py <<'END'
import http.server, re, sys, urllib.error, urllib.request

class Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        joins = self.path.startswith("/v2/joined/")
        path = self.path.replace("/v2/joined/", "/v2/apart/")
        accept = {"Accept": ", ".join(self.headers.get_all("Accept", ["*/*"]))}
        request = urllib.request.Request("http://127.0.0.1:%s%s" % (sys.argv[1], path), headers=accept)
        try:
            answer = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            answer = error
        status, body, kind = answer.status, answer.read(), answer.headers["Content-Type"]
        wanted = [(int(a), int(b) + 1) for a, b in re.findall(r"(\d+)-(\d+)", self.headers.get("Range", ""))]
        if status == 200 and wanted:
            parts = []
            for start, end in wanted:
                if joins and parts and parts[-1][1] == start:
                    parts[-1] = (parts[-1][0], end)
                else:
                    parts.append((start, end))
            status, whole, body, kind = 206, body, b"", "multipart/byteranges; boundary=part"
            for start, end in parts:
                head = "\r\n--part\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes %d-%d/%d\r\n\r\n"
                body += (head % (start, end - 1, len(whole))).encode() + whole[start:end]
            body += b"\r\n--part--\r\n"
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))),
                            ("Docker-Content-Digest", answer.headers.get("Docker-Content-Digest"))):
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
print("listening on 127.0.0.1:%d" % server.server_port, flush=True)
server.serve_forever()
END
python3 proxy.py "$registry" > proxy.log 2>&1 &
proxy=$!
wait_for proxy.log

# Two images of a layer each; of forty files, ten that follow each other differ.
printf '{"default":[{"type":"insecureAcceptAnything"}]}' > policy.json
: > registries.conf
export CONTAINERS_REGISTRIES_CONF="$folder/registries.conf" CONTAINERS_STORAGE_CONF="$folder/storage.conf"
storage() {
    cat > storage.conf <<END
[storage]
driver = "overlay"
graphroot = "$folder/$1/root"
runroot = "$folder/$1/run"
[storage.options]
pull_options = {enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}
END
}
storage made
mkdir files
for number in $(seq 10 49); do head -c 40000 /dev/urandom > "files/$number"; done
for image in one two; do
    tar -C files --sort=name -cf "$image.tar" .
    podman import -q "$image.tar" "localhost/$image" > /dev/null 2>&1
    podman push -q --signature-policy policy.json --tls-verify=false --compression-format zstd:chunked \
        "localhost/$image" "docker://127.0.0.1:$registry/apart:$image" > /dev/null 2>&1
    for number in $(seq 20 29); do head -c 40000 /dev/urandom > "files/$number"; done
done

# Prints what podman says of the partial pull of the second image, where it has the first one.
pull() {
    storage "$1"
    podman pull -q --signature-policy policy.json --tls-verify=false "docker://127.0.0.1:$port/apart:one" > /dev/null 2>&1
    podman --log-level debug pull --signature-policy policy.json --tls-verify=false \
        "docker://127.0.0.1:$port/$1:two" > "$1.log" 2>&1 && echo "$1: pulled"
    grep -o 'Retrieved partial blob\|Failed to retrieve partial blob: checksum mismatch' "$1.log" | sort -u
}
{
    pull apart
    pull joined
} | tee seen
cat > expected <<END
apart: pulled
Retrieved partial blob
joined: pulled
Failed to retrieve partial blob: checksum mismatch
END
diff expected seen
