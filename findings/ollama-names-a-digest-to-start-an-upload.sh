#!/bin/sh
# ollama 0.17.4 (its package x/imagegen/transfer, by which `ollama push` sends models of many tensors) asks for an upload with
#   POST /v2/NAME/blobs/uploads/?digest=DIGEST      Content-Length: 0
# and takes nothing but 202, then sends the bytes with PUT. In the OCI distribution specification a POST with `digest` has the
# whole blob as its body (end-4b) and ends with 201, so a registry that reads it so gets an empty body with a wrong digest;
# with its 400 the push fails after six tries, "max retries exceeded: init: status 400".
# Seen: "POST length=0 digest=true" and "PUT length=5", blob pushed, with 202; the error with 400.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export GOFLAGS="-mod=mod -modcacherw" GOPATH="$folder/go" GOCACHE="$folder/cache"
cat > go.mod <<'END'
module finding

go 1.24.1

require github.com/ollama/ollama v0.17.4
END
cat > main.go <<'END'
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/ollama/ollama/x/imagegen/transfer"
)

const digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

// push pushes "hello" to a server that answers the POST with status.
func push(status int, timeout time.Duration) (seen []string, err error) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case "HEAD":
			w.WriteHeader(404)
			return
		case "POST":
			w.Header().Set("Location", "/v2/a/blobs/uploads/1")
			w.WriteHeader(status)
		case "PUT":
			w.WriteHeader(201)
		}
		seen = append(seen, fmt.Sprintf("%s length=%d digest=%t", r.Method, r.ContentLength, r.URL.Query().Has("digest")))
	}))
	defer server.Close()
	folder, _ := os.MkdirTemp(".", "")
	os.WriteFile(filepath.Join(folder, "sha256-"+digest[7:]), []byte("hello"), 0o600)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err = transfer.Upload(ctx, transfer.UploadOptions{
		Blobs: []transfer.Blob{{Digest: digest, Size: 5}}, BaseURL: server.URL, SrcDir: folder, Repository: "a",
	})
	return seen, err
}

func main() {
	seen, err := push(202, time.Minute)
	fmt.Println(seen, err)
	if len(seen) != 2 || seen[0] != "POST length=0 digest=true" || seen[1] != "PUT length=5 digest=true" || err != nil {
		os.Exit(1)
	}
	seen, err = push(400, 2*time.Minute)
	fmt.Println(len(seen), err)
	if len(seen) != 6 || err == nil {
		os.Exit(1)
	}
}
END
go run .
