package envelope

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/clientip"
)

// A Shape is the form of a service's responses: the text before and after the data of a
// success, and the whole text of an error. Its functions append JSON to b and return the
// result. They must be safe for concurrent use and must keep neither b nor the
// [Response].
//
// The data itself is never decoded, even if a handler has encoded it.
type Shape struct {
	// Before appends what comes before the data, and After what comes after it. The body
	// of a success without data ([Response.NoData]) is the output of Before followed by
	// that of After. If both are nil, successes are bare: the data is the whole body.
	Before, After func(b []byte, resp *Response) []byte
	// Error appends an error.
	Error func(b []byte, resp *Response) []byte
	// Type and ErrorType are the media types of successes and of errors; empty means
	// application/json.
	Type, ErrorType string
	// Constant states that Before and After append the same bytes whenever the data is
	// the same. The entity tag of a wrapped response then stays strong.
	Constant bool
}

// A Response is what a [Shape] can show of one response, after the [Catalogue] has been
// applied. Its strings are not escaped: append them with [AppendString].
type Response struct {
	// Status is the HTTP status.
	Status int
	// Code is the error code. For a success it is usually empty.
	Code string
	// Type and Documentation are what the catalogue lists for the code or the status, or "".
	Type, Documentation string
	// Message is for people. It is never empty.
	Message string
	// NoData reports a success without data.
	NoData bool
	// Page is set for a success whose data is one page of a list.
	Page *usher.Page

	// ProblemType is [usher.Error.Type]. Param, Fields, Details and RetryAfter are copied
	// from the error too. If an idempotency middleware replays the error, RetryAfter is
	// zero, and Details, or each entry of a map[string]any, is a [encoding/json.Marshaler]
	// with the same JSON.
	ProblemType string
	Param       string
	Fields      []usher.Field
	Details     any
	RetryAfter  time.Duration
	// Original is the valid JSON that a wrapped handler wrote as its own error, or nil.
	Original []byte

	// RequestID is the ID that the client receives as X-Request-Id.
	RequestID string
	// Start is the time at which the envelope received the request.
	Start time.Time

	t *transaction
	s *scratch
}

// Elapsed returns the time since Start, by the monotonic clock.
func (resp *Response) Elapsed() time.Duration { return max(time.Since(resp.Start), 0) }

// Request returns the request as the envelope received it. Its URL and header may hold
// secrets of the caller.
func (resp *Response) Request() *http.Request { return resp.t.request }

// ClientIP returns what [clientip.Of] returns for the request: the address that a
// [clientip.Resolver] outside or inside the envelope has stored, else that of the peer
// of the connection. It is the zero Addr if the address is unknown.
func (resp *Response) ClientIP() netip.Addr {
	// The request of t may be the original, to which no exchange is attached.
	if c := resp.t.x.Client(); c != nil {
		return c.Known()
	}
	return clientip.Of(resp.t.request)
}

// AppendURL appends the path and the query of the request as a JSON string of at most
// about 2 KiB, without the values of secret parameters.
func (resp *Response) AppendURL(b []byte) []byte {
	return resp.t.env.secrets.appendURL(b, target(resp.t.request))
}

// AppendValue appends v as the envelope encodes values, or null if v cannot be
// encoded.
func (resp *Response) AppendValue(b []byte, v any) []byte {
	b, err := resp.t.env.appendValue(resp.s, b, v)
	if err != nil {
		return append(b, "null"...)
	}
	return b
}
