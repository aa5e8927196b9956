package api

import (
	_ "embed"
	"net/http"
)

// openAPI describes the whole HTTP API, as OpenAPI 3.1. Tests compare it with
// the routes, the types behind them and live answers.
//
//go:embed openapi.yaml
var openAPI []byte

// ServeOpenAPI serves the description to everyone: it contains only what is in
// the source.
func ServeOpenAPI(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/yaml") // RFC 9512
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache")
	_, _ = w.Write(openAPI)
}
