package envelope

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/usher-go/usher"
)

// A Config says in which shape a service answers. The zero value is ready for
// use: the [Standard] shape for whatever is written through this module, and
// what handlers write themselves left alone.
type Config struct {
	// Shape is the shape of all answers; the zero Shape means [Standard].
	Shape Shape
	// Catalogue has the statuses, codes and texts that the service has documented.
	Catalogue Catalogue
	// Wrap puts also what handlers write themselves into the shape: plain JSON,
	// and errors that are plain JSON, plain text or empty. See the package
	// documentation for what passes untouched.
	Wrap bool

	// ClientIP tells the address of the caller, for metadata. Give it the rule by
	// which callers are limited, for instance the method Addr of a
	// clientip.Resolver. Nil means the peer of the connection.
	ClientIP func(*http.Request) netip.Addr
	// SecretParams are names of query parameters whose values metadata must not
	// repeat, beyond those that look like one: api_key, access_token, password,
	// code and the like. Case and punctuation do not matter.
	SecretParams []string

	// RequestIDPrefix begins every request ID that is made here, for instance
	// "req-": at most 40 of A-Z, a-z, 0-9, '.', '_' and '-'.
	RequestIDPrefix string
	// NewRequestID makes the ID of a request that brings none or an unusable one.
	// Nil means RequestIDPrefix and 16 random letters and digits, as does a panic,
	// of which OnPanic is told.
	NewRequestID func() string

	// Marshal encodes values; nil means encoding/json.
	Marshal func(v any) ([]byte, error)

	// OnError is told, with the private cause, of every error of 500 or more that
	// the envelope writes: by [usher.Fail], or in place of what a handler wrote
	// itself, the first 4 KiB of which are the cause then. It is also told why a
	// connection was aborted and that data was lost. Nil logs to [slog.Default] what
	// has a cause, and every 500. It must not write a response. If it panics, OnPanic
	// is told.
	OnError func(r *http.Request, e *usher.Error)
	// OnPanic is told what a handler, or another of these functions, panicked with. The value may hold whatever
	// the handler had at hand, key material included. Nil logs to [slog.Default]
	// the stack and the type of the value, and of a [runtime.Error] the text.
	OnPanic func(r *http.Request, v any, stack []byte)
}

const maxPrefix = 40

// validate reports every fault of c.
func (c *Config) validate() error {
	var errs []error
	fault := func(field, reason string) {
		errs = append(errs, &usher.ConfigError{Field: "envelope.Config." + field, Reason: reason})
	}
	s := c.Shape
	if (s.Before == nil) != (s.After == nil) {
		fault("Shape", "Before and After must be set both or neither")
	}
	if s.Error == nil && !s.isZero() {
		fault("Shape.Error", "missing")
	}
	for code, e := range c.Catalogue.Codes {
		field := fmt.Sprintf("Catalogue.Codes[%q]", code)
		if code == "" {
			fault(field, "empty; answers without a code are for Statuses")
		}
		if e.Status != 0 && (e.Status < 200 || e.Status > 299) && (e.Status < 400 || e.Status > 599) {
			fault(field+".Status", "must be 0, 200 to 299 or 400 to 599")
		}
	}
	for status, e := range c.Catalogue.Statuses {
		field := fmt.Sprintf("Catalogue.Statuses[%d]", status)
		if status < 200 || status > 599 {
			fault(field, "no final HTTP status")
		}
		if e.Status != 0 {
			fault(field+".Status", "must be 0; only a code can change the status")
		}
	}
	for i, name := range c.SecretParams {
		if len(normalize(nil, name)) == 0 {
			fault(fmt.Sprintf("SecretParams[%d]", i), "needs a letter or a digit")
		}
	}
	if len(c.RequestIDPrefix) > maxPrefix || !validRequestIDText(c.RequestIDPrefix) {
		fault("RequestIDPrefix", "must be at most 40 of A-Z, a-z, 0-9, '.', '_' and '-'")
	}
	if c.RequestIDPrefix != "" && c.NewRequestID != nil {
		fault("RequestIDPrefix", "has no effect together with NewRequestID")
	}
	return errors.Join(errs...)
}

func (s Shape) isZero() bool {
	return s.Before == nil && s.After == nil && s.Error == nil && s.ErrorType == "" && !s.Constant
}
