#!/bin/sh
# distribution 3.0.0 (registry:3) looks at `Accept` for OCI image manifests and Docker lists, and in no other case:
# - an OCI image manifest is 404 MANIFEST_UNKNOWN ("OCI manifest found, but accept header does not support OCI manifests") for
#   `Accept: */*`, curl's own, though that names every type, while a Docker manifest is served;
# - an OCI index is served to a client that accepts image manifests alone;
# - a Docker list becomes its linux/amd64 image for a client that accepts Docker's image manifests alone, and where that image
#   is an OCI manifest, it is served as such, by a digest that is not the tag's.
# Seen: the answers after "cat > expected".
set -eu
folder=$(mktemp -d)
trap '[ -z "${server:-}" ] || kill "$server"; rm -rf "$folder"' EXIT
cd "$folder"
export GOPATH="$folder/go" GOCACHE="$folder/cache" GOBIN="$folder"
go install -modcacherw github.com/distribution/distribution/v3/cmd/registry@v3.0.0
cat > config.yml <<END
version: 0.1
storage: {filesystem: {rootdirectory: $folder/data}}
http: {addr: "127.0.0.1:0"}
END
OTEL_TRACES_EXPORTER=none ./registry serve config.yml > log 2>&1 &
server=$!
deadline=$(($(date +%s) + 60))
until port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' log) && [ -n "$port" ]; do
    [ "$(date +%s)" -lt $deadline ] || exit 1
    sleep 0.1
done
url=http://127.0.0.1:$port/v2/a

digest() { printf sha256:; sha256sum "$1" | cut -c1-64; }
put() { curl -sf -X PUT -H "Content-Type: $2" --data-binary "@$3" -o /dev/null "$url/manifests/$1"; }
# Prints the status and the type of what a tag is for an `Accept`.
get() { curl -s -o answer -w '%{http_code} %{content_type}' -H "Accept: $2" "$url/manifests/$1"; echo; }

printf '{}' > blob
location=$(curl -sf -X POST -o /dev/null -w '%header{location}' "$url/blobs/uploads/")
curl -sf -X PUT -H 'Content-Type: application/octet-stream' --data-binary @blob -o /dev/null "$location&digest=$(digest blob)"
oci=application/vnd.oci.image
docker=application/vnd.docker.distribution.manifest
# Arguments: the type of the manifest, of its configuration.
image() { printf '{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","digest":"%s","size":2},"layers":[]}' "$1" "$2" "$(digest blob)"; }
image $oci.manifest.v1+json $oci.config.v1+json > image
image $docker.v2+json application/vnd.docker.container.image.v1+json > docker
of() { printf '{"schemaVersion":2,"mediaType":"%s","manifests":[{"mediaType":"%s","digest":"%s","size":%s,"platform":{"os":"linux","architecture":"amd64"}}]}' "$1" $oci.manifest.v1+json "$(digest image)" "$(wc -c < image)"; }
of $oci.index.v1+json > index
of $docker.list.v2+json > list
put image $oci.manifest.v1+json image
put docker $docker.v2+json docker
put index $oci.index.v1+json index
put list $docker.list.v2+json list

{
    get image '*/*'
    get docker '*/*'
    get index $oci.manifest.v1+json
    get list $docker.v2+json
    cmp image answer && echo "the image"
} | tee seen
cat > expected <<END
404 application/json
200 $docker.v2+json
200 $oci.index.v1+json
200 $oci.manifest.v1+json
the image
END
cmp expected seen
