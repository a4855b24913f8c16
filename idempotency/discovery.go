package idempotency

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/document"
)

// A policy is what [Middleware.Discovery] publishes.
type policy struct {
	Header        string        `json:"header"`
	Required      bool          `json:"required"`
	Methods       []string      `json:"methods"`
	MaxLength     int           `json:"max_length"`
	KeyForms      []keyForm     `json:"key_forms"`
	KeyRestricted bool          `json:"key_restricted"`
	Lifetime      string        `json:"lifetime"`
	MaxBody       int64         `json:"max_body_bytes"`
	Fingerprint   []string      `json:"fingerprint"`
	InFlight      string        `json:"in_flight"`
	Wait          string        `json:"wait,omitempty"`
	ReplayHeader  string        `json:"replay_header"`
	Statuses      statuses      `json:"statuses"`
	Errors        []refusalCode `json:"errors"`
	Documentation string        `json:"documentation,omitempty"`
}

// A keyForm is a form of the header field, and a pattern for the keys that have it.
type keyForm struct {
	Form    string `json:"form"`
	Pattern string `json:"pattern"`
}

// keyForms are the forms that parseKey takes.
var keyForms = []keyForm{
	{"raw", fmt.Sprintf("^[!#-~][!-~]{0,%d}$", maxKey-1)},
	{"rfc9651_string", fmt.Sprintf("^[ -~]{1,%d}$", maxKey)},
}

// Discovery returns a handler that publishes what clients may rely on, as
// draft-ietf-httpapi-idempotency-key-header-07 asks: the header field and the format of
// keys, the methods, how long a key is remembered (an ISO 8601 duration), and for how long
// a duplicate of a request in flight waits; after which statuses a retry runs, by
// [Config.Profile]; the codes of all refusals, and whether the same request may be sent
// again; and [Config.Documentation], which describes the keys that [Config.ValidKey] accepts
// if they are restricted. It responds to GET and HEAD with JSON that no envelope
// wraps and that may be cached for an hour.
func (m *Middleware) Discovery() http.Handler {
	p := policy{
		Header: m.config.Header, Required: m.config.Required,
		Methods:   slices.Sorted(slices.Values(m.config.Methods)),
		MaxLength: maxKey, KeyForms: keyForms, KeyRestricted: m.config.ValidKey != nil,
		Lifetime: isoDuration(m.config.TTL), MaxBody: m.config.MaxBody,
		Fingerprint: append([]string{"method", "host", "path", "query", "media_type", "content_encoding", "body"}, m.config.FingerprintHeaders...),
		InFlight:    "conflict", ReplayHeader: m.config.ReplayHeader,
		Statuses: m.statuses(), Errors: m.refusalCodes(), Documentation: m.config.Documentation,
	}
	if m.config.Wait > 0 {
		p.InFlight, p.Wait = "wait", isoDuration(m.config.Wait)
	}
	body, _ := json.Marshal(p) // strings, numbers and booleans can always be encoded
	d := document.Document{Body: body, MaxAge: time.Hour}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		document.Serve(w, r, d, usher.MethodNotAllowed)
	})
}

// statuses are the registered statuses after which a retry does not get the response, by
// what it gets.
type statuses struct {
	Released  []int `json:"released"`
	Unknown   []int `json:"unknown"`
	Status    []int `json:"status_only,omitempty"`
	Forgotten []int `json:"forgotten,omitempty"`
}

func (m *Middleware) statuses() statuses {
	s := statuses{Released: []int{}, Unknown: []int{}}
	lists := map[Outcome]*[]int{Release: &s.Released, Unknown: &s.Unknown, KeepStatus: &s.Status, Forget: &s.Forgotten}
	for status := http.StatusOK; status < 600; status++ {
		list := lists[m.profileOutcome(context.Background(), status)]
		if list != nil && http.StatusText(status) != "" {
			*list = append(*list, status)
		}
	}
	return s
}

// refusalCodes returns the refusals that m may respond with.
func (m *Middleware) refusalCodes() []refusalCode {
	return slices.DeleteFunc(slices.Clone(refusalCodes), func(c refusalCode) bool {
		switch c.Code {
		case usher.CodeIdempotencyKeyMissing:
			return !m.config.Required
		case usher.CodeMissingCredential:
			return m.config.Owner == nil && m.config.DangerouslyAllowAnonymous
		}
		return false
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
