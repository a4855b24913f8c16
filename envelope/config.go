package envelope

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
)

// A Config describes an [Envelope]. The zero value is ready for use: every response that
// is written through this module has the [Standard] shape, and what handlers write
// themselves stays as it is.
type Config struct {
	// Shape is the shape of all responses; the zero Shape means [Standard].
	Shape Shape
	// Catalogue lists the statuses, codes and texts that the service has documented.
	Catalogue Catalogue
	// Wrap extends the shape to what handlers write themselves: plain JSON, and
	// errors that are plain JSON, plain text or empty. The package documentation
	// lists what passes unchanged.
	Wrap bool

	// Untouched reports whether what handlers write for r is exempt from Wrap, errors
	// included, as with the function [Untouched]. It is called when a response begins that
	// would be wrapped. Decide by the method and the path: r.Pattern is empty if an inner
	// middleware copied the request, or responds in place of the handler. If Untouched
	// panics, the envelope calls OnPanic and wraps the response.
	//
	// Nil exempts the documents whose form a standard fixes: successful responses to GET
	// and HEAD for paths under /.well-known/ and for files named openapi.json, swagger.json
	// or jwks.json.
	Untouched func(r *http.Request) bool

	// SecretParams are names of query parameters whose values must not appear in
	// metadata, in addition to names that look secret: those that end in key or code, and
	// access_token, password, nonce and the like. Case and punctuation do not matter.
	SecretParams []string

	// RequestID returns the ID of a request, for instance one that a gateway has put into
	// the header: see [RequestIDFromHeader]. If it returns anything but 1 to 128 of A-Z,
	// a-z, 0-9 and . _ - + = / : ; # @, or panics, which OnPanic gets, the envelope
	// generates an ID. Nil always generates one: an ID in the header may be any text that
	// the client has chosen, the ID of another request included.
	RequestID func(*http.Request) string
	// RequestIDPrefix begins every request ID that the envelope generates, for instance
	// "req-"; 16 random letters and digits follow. It has at most 40 characters of A-Z,
	// a-z, 0-9, '.', '_' and '-'.
	RequestIDPrefix string
	// ForwardRequestID also sets X-Request-Id of the request that handlers get, for
	// proxies and clients that pass the header on. The request outside the envelope keeps
	// its own. It costs a copy of the header.
	ForwardRequestID bool

	// Marshal encodes values; nil means encoding/json.
	Marshal func(v any) ([]byte, error)

	// OnError is called for every error of 500 or more that the envelope writes, for
	// [usher.Fail] or in place of what a handler wrote itself; for a connection that the
	// envelope aborts; and for data that is lost. The error wraps an [*usher.Error] with
	// the private cause, and its text includes the method and the route pattern of the
	// request. If a handler wrote the error itself, the cause is the first 4 KiB of what
	// it wrote. The context is that of the request: [RequestID] returns the ID from it.
	//
	// Nil logs every failure with a cause and every 500 to [slog.Default], without a rate
	// limit, as each may have a different cause. If OnError panics, OnPanic is called.
	OnError func(ctx context.Context, err error)
	// OnPanic is called once with the value that a handler, or another function of the
	// Config, panicked with. The value may hold any data of the handler, even key material.
	// Nil logs to [slog.Default]: the route and the request ID; the text of a value that is
	// an error, a string or a number, up to 1 KiB, or else the type of the value; and the
	// functions from the panic outwards to the envelope. In the text, REDACTED stands for
	// what may be a credential: words of 24 characters or more, of 16 if they have a digit,
	// and lists of bytes.
	OnPanic func(r *http.Request, v any, stack []byte)
	// PassPanics passes the panic of a handler on, with the same value, to a recoverer
	// outside the envelope, which reports it: OnPanic is not called. The client first gets
	// the 500 in the shape of the service, so what the recoverer writes is superfluous; if
	// the response had begun, the connection is aborted, as without PassPanics. If
	// nothing stops the panic, the server logs it and, after the 500, closes the
	// connection or resets the stream of HTTP/2.
	PassPanics bool

	// MeterProvider provides the counter of panics, usher.envelope.panics, which is split
	// by whether the request could still get a response. Nil means the global provider.
	MeterProvider metric.MeterProvider
}

const maxPrefix = 40

// validate returns every fault of c.
func (c *Config) validate() error {
	faults := config.Of[usher.ConfigError]("envelope.Config")
	s := c.Shape
	faults.If((s.Before == nil) != (s.After == nil), "Shape", "must have both Before and After, or neither")
	faults.If(s.Error == nil && !s.isZero(), "Shape.Error", config.Required)
	for _, code := range slices.Sorted(maps.Keys(c.Catalogue.Codes)) {
		status := c.Catalogue.Codes[code].Status
		in := faults.In(fmt.Sprintf("Catalogue.Codes[%q]", code))
		faults.If(code == "", `Catalogue.Codes[""]`, config.NotEmpty+"; responses without a code belong in Statuses")
		in.If(status != 0 && (status < 200 || status > 299) && (status < 400 || status > 599), "Status", "must be 0, 200 to 299 or 400 to 599")
	}
	for _, status := range slices.Sorted(maps.Keys(c.Catalogue.Statuses)) {
		field := fmt.Sprintf("Catalogue.Statuses[%d]", status)
		faults.If(status < 200 || status > 599, field, "must be a final HTTP status")
		faults.If(c.Catalogue.Statuses[status].Status != 0, field+".Status", "must be 0; only a code can change the status")
	}
	for i, name := range c.SecretParams {
		faults.If(len(normalize(nil, name)) == 0, fmt.Sprintf("SecretParams[%d]", i), "must have a letter or a digit")
	}
	faults.If(len(c.RequestIDPrefix) > maxPrefix || !validPrefix(c.RequestIDPrefix),
		"RequestIDPrefix", "must be at most 40 of A-Z, a-z, 0-9, '.', '_' and '-'")
	return faults.Err()
}

func (s Shape) isZero() bool {
	return s.Before == nil && s.After == nil && s.Error == nil && s.Type == "" && s.ErrorType == "" && !s.Constant
}
