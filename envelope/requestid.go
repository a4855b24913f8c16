package envelope

import (
	"context"
	"math/rand/v2"
	"net/http"

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

// identify gives the request its ID.
func (t *transaction) identify(h http.Header) {
	switch given := t.request.Header["X-Request-Id"]; {
	case t.outer != nil:
		t.id = t.outer.id
	case len(given) == 1 && validRequestID(given[0]):
		t.id = given[0]
	default:
		t.id = t.env.makeRequestID(t.request)
	}
	t.idField[0] = t.id
	h["X-Request-Id"] = t.idField[:1:1]
}

// makeRequestID returns a new request ID.
func (e *Envelope) makeRequestID(r *http.Request) (id string) {
	if e.newID == nil || !e.guard(r, func() { id = e.newID() }) {
		return newRequestID(e.prefix)
	}
	return id
}

// maxRequestID is the length of the longest request ID that a client may choose.
const maxRequestID = 64

// validRequestID reports whether id consists of 1 to 64 of A-Z, a-z, 0-9, '.',
// '_' and '-', which are safe in logs, header fields and JSON.
func validRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	return validRequestIDText(id)
}

func validRequestIDText(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// randomID is the number of random characters in an ID.
const randomID = 16

// newRequestID returns prefix and 80 random bits. An ID is not a secret, so the runtime's
// generator, a ChaCha8 seeded by the system, suffices.
func newRequestID(prefix string) string {
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	var buf [maxRequestID]byte
	n := copy(buf[:len(buf)-randomID], prefix)
	for random := buf[n : n+randomID]; len(random) > 0; random = random[8:] {
		bits := rand.Uint64()
		for i := range random[:8] {
			random[i] = alphabet[bits&31]
			bits >>= 5
		}
	}
	return string(buf[:n+randomID])
}
