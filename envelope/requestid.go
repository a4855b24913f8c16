package envelope

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/usher-go/usher/internal/exchange"
)

// RequestID returns the ID of the request with the context ctx, or "" if the request has
// not passed through an [Envelope]. A middleware outside the envelope that has called
// [usher.Track] can also read the ID, once the envelope has returned.
func RequestID(ctx context.Context) string {
	if t := transactionFrom(exchange.From(ctx)); t != nil {
		return t.id
	}
	return ""
}

// RequestIDFromHeader returns a function for [Config.RequestID] that reads the header field
// with this name, and returns "" if the request does not have exactly one.
//
// Use it where a gateway sets the field of every request. Otherwise clients choose the IDs
// that stand in the logs. A service that clients can also reach directly asks who the peer
// is:
//
//	fromGateway := envelope.RequestIDFromHeader("X-Request-Id")
//	gateways := netip.MustParsePrefix("10.0.0.0/8")
//	c.RequestID = func(r *http.Request) string {
//		peer, err := netip.ParseAddrPort(r.RemoteAddr)
//		if err != nil || !gateways.Contains(peer.Addr().Unmap()) {
//			return ""
//		}
//		return fromGateway(r)
//	}
func RequestIDFromHeader(name string) func(*http.Request) string {
	name = http.CanonicalHeaderKey(name)
	return func(r *http.Request) string {
		if v := r.Header[name]; len(v) == 1 {
			return v[0]
		}
		return ""
	}
}

// identify gives the request its ID.
func (t *transaction) identify(h http.Header) {
	if t.outer != nil {
		t.id = t.outer.id
	} else {
		t.id = t.env.idOf(t.request)
		if span := trace.SpanFromContext(t.request.Context()); span.IsRecording() {
			span.SetAttributes(requestIDs.String(t.id))
		}
	}
	t.setID(h)
}

// setID sets X-Request-Id. A middleware inside, or a response that a proxy has copied, may
// have set another one since the ID was chosen.
func (t *transaction) setID(h http.Header) {
	if v := h["X-Request-Id"]; len(v) == 1 && v[0] == t.id {
		return
	}
	t.idField[0] = t.id
	h["X-Request-Id"] = t.idField[:1:1]
}

// forwardID returns a copy of r whose header has the ID.
func (t *transaction) forwardID(r *http.Request) *http.Request {
	inner := r.WithContext(r.Context())
	inner.Header = maps.Clone(r.Header)
	if inner.Header == nil {
		inner.Header = make(http.Header)
	}
	inner.Header["X-Request-Id"] = []string{t.id}
	return inner
}

// idOf returns the ID that Config.RequestID returns for r, or a new one.
func (e *Envelope) idOf(r *http.Request) (id string) {
	if e.requestID != nil && e.guard(r, func() { id = e.requestID(r) }) && validRequestID(id) {
		return id
	}
	return e.ids.next()
}

// maxRequestID is the length of the longest request ID from elsewhere.
const maxRequestID = 128

// validRequestID reports whether id has 1 to 128 characters that are safe in logs, header
// fields and JSON, and that gateways use: Kong appends #1, AWS writes Root=1-, and UUID
// URNs and base64 have their own.
func validRequestID(id string) bool {
	return id != "" && len(id) <= maxRequestID && consistsOf(id, "._-+=/:;#@")
}

func validPrefix(s string) bool { return consistsOf(s, "._-") }

// consistsOf reports whether s has only ASCII letters, digits and the characters of marks.
func consistsOf(s, marks string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', strings.IndexByte(marks, c) >= 0:
		default:
			return false
		}
	}
	return true
}

// randomID is the number of random characters in an ID.
const randomID = 16

// batch is the number of IDs that are made as one string, so that an ID costs no allocation
// of its own. An ID that is kept keeps the memory of its batch.
const batch = 16

// An idSource makes the request IDs of one envelope.
type idSource struct {
	prefix string
	// spare holds *string, each with IDs that are not used yet.
	spare sync.Pool
}

// next returns an ID that nobody else gets.
func (s *idSource) next() string {
	ids, _ := s.spare.Get().(*string)
	if ids == nil {
		ids = new(string)
	}
	if *ids == "" {
		*ids = newIDs(s.prefix)
	}
	n := len(s.prefix) + randomID
	id := (*ids)[:n]
	*ids = (*ids)[n:]
	s.spare.Put(ids)
	return id
}

// newIDs returns the IDs of a batch, each prefix and 80 random bits, as one string. An ID is
// not a secret, so the runtime's generator, a ChaCha8 seeded by the system, suffices.
func newIDs(prefix string) string {
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	var room [batch * (maxPrefix + randomID)]byte
	b := room[:0]
	for range batch {
		b = append(b, prefix...)
		for range randomID / 8 {
			var random [8]byte
			bits := rand.Uint64()
			for i := range random {
				random[i] = alphabet[bits&31]
				bits >>= 5
			}
			b = append(b, random[:]...)
		}
	}
	return string(b)
}
