package idempotency

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/document"
)

// Discovery returns a handler that publishes what clients may rely on, as
// draft-ietf-httpapi-idempotency-key-header-07 asks: the header field, the methods,
// how long a key is remembered (an ISO 8601 duration), and whether a duplicate of a
// request in flight waits. It responds to GET and HEAD with JSON that no
// envelope wraps and that may be cached for an hour.
func (m *Middleware) Discovery() http.Handler {
	inFlight := "conflict"
	if m.config.Wait > 0 {
		inFlight = "wait"
	}
	methods := slices.Clone(m.config.Methods)
	slices.Sort(methods)
	// Strings and numbers can always be encoded.
	body, _ := json.Marshal(struct {
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
	d := document.Document{Body: body, MaxAge: time.Hour}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		document.Serve(w, r, d, usher.MethodNotAllowed)
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
