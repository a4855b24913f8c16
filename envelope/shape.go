package envelope

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/jsontext"
)

// A Shape is the form in which a service writes its answers: what stands before
// and after the data of a success, and the whole of an error. Its functions
// append JSON to b and return it, must be safe for concurrent use, and must keep
// neither b nor the [Response].
//
// The data itself is never decoded, whoever encoded it.
type Shape struct {
	// Before appends what comes before the data, and After what comes after it.
	// A success without data ([Response.NoData]) is both without anything between.
	// With both nil the data stands alone: successes are not touched.
	Before, After func(b []byte, resp *Response) []byte
	// Error appends an error.
	Error func(b []byte, resp *Response) []byte
	// ErrorType is the media type of errors; empty means application/json.
	ErrorType string
	// Constant says that Before and After append the same bytes whenever the data
	// is the same. It lets a strong entity tag of a wrapped answer stay strong.
	Constant bool
}

// A Response is what a [Shape] may tell about one answer, after the [Catalogue]
// has been applied. Its strings are as they come: use [AppendString].
type Response struct {
	// Status is the HTTP status.
	Status int
	// Code is the code of an error, never empty, or of a success, mostly empty.
	Code string
	// Type is the type that the catalogue has for the code or the status, or "".
	Type string
	// Message is for people; it is never empty.
	Message string
	// NoData is set for a success without data.
	NoData bool
	// Page is set for a success whose data is one page of a list.
	Page *usher.Page

	// Param, Fields, Details and RetryAfter are those of the [usher.Error].
	Param      string
	Fields     []usher.Field
	Details    any
	RetryAfter time.Duration
	// Original is the JSON that a wrapped handler wrote as its own error, or nil.
	// It is valid.
	Original []byte

	// RequestID is the one that the client sees as X-Request-Id.
	RequestID string
	// Start is when the envelope got the request.
	Start time.Time

	t *transaction
	s *scratch
}

// Elapsed returns the time since Start, by the monotonic clock.
func (resp *Response) Elapsed() time.Duration { return max(time.Since(resp.Start), 0) }

// Request returns the request as the envelope got it. Its URL and its header
// may hold secrets of the caller.
func (resp *Response) Request() *http.Request { return resp.t.request }

// ClientIP returns what [clientip.Of] returns for the request: the address that a
// [clientip.Resolver] outside or inside the envelope has stored, else that of the peer
// of the connection. It is the zero Addr if the address is unknown.
func (resp *Response) ClientIP() netip.Addr {
	// The request of t may be the one before the exchange was attached.
	if c := resp.t.x.Client(); c != nil {
		return c.Addr
	}
	return clientip.Of(resp.t.request)
}

// AppendURL appends path and query of the request as a JSON string, without the
// values of secret parameters and not longer than about 2 KiB.
func (resp *Response) AppendURL(b []byte) []byte {
	return resp.t.env.secrets.appendURL(b, target(resp.t.request))
}

// AppendValue appends v as the envelope encodes values. What cannot be encoded
// becomes null.
func (resp *Response) AppendValue(b []byte, v any) []byte {
	b, err := resp.t.env.appendValue(resp.s, b, v)
	if err != nil {
		return append(b, "null"...)
	}
	return b
}

// AppendString appends s as a JSON string, exactly as encoding/json does by
// default.
func AppendString(b []byte, s string) []byte { return jsontext.AppendString(b, s) }
