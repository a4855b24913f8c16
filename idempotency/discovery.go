package idempotency

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
)

// Discovery returns a handler that publishes what clients may rely on, as
// draft-ietf-httpapi-idempotency-key-header-07 asks: the header field, the methods,
// how long a key is remembered (an ISO 8601 duration), and whether a duplicate of a
// request in flight waits. It responds to GET and HEAD with JSON.
func (m *Middleware) Discovery() http.Handler {
	inFlight := "conflict"
	if m.config.Wait > 0 {
		inFlight = "wait"
	}
	methods := slices.Clone(m.config.Methods)
	slices.Sort(methods)
	// Strings and numbers can always be encoded.
	text, _ := json.Marshal(struct {
		Header       string   `json:"header"`
		Required     bool     `json:"required"`
		Methods      []string `json:"methods"`
		MaxLength    int      `json:"max_length"`
		Lifetime     string   `json:"lifetime"`
		MaxBody      int64    `json:"max_body_bytes"`
		Fingerprint  []string `json:"fingerprint"`
		InFlight     string   `json:"in_flight"`
		ReplayHeader string   `json:"replay_header"`
	}{
		m.config.Header, m.config.Required, methods, maxKey, isoDuration(m.config.TTL), m.config.MaxBody,
		[]string{"method", "host", "path", "query", "media_type", "content_encoding", "body"}, inFlight, m.config.ReplayHeader,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header()["Allow"] = []string{"GET, HEAD"}
			usher.MethodNotAllowed(w, r)
			return
		}
		w.Header()["Content-Type"] = []string{"application/json"}
		// If this fails the client has disconnected.
		_, _ = w.Write(text)
	})
}

// isoDuration returns d as an ISO 8601 duration, such as PT24H.
func isoDuration(d time.Duration) string {
	var b strings.Builder
	b.WriteString("PT")
	if h := d / time.Hour; h > 0 {
		fmt.Fprintf(&b, "%dH", h)
	}
	if m := d % time.Hour / time.Minute; m > 0 {
		fmt.Fprintf(&b, "%dM", m)
	}
	if s := (d % time.Minute).Seconds(); s > 0 || b.Len() == len("PT") {
		fmt.Fprintf(&b, "%gS", s)
	}
	return b.String()
}
