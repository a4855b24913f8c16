package idempotency

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/usher-go/usher"
)

// documents reports whether text is a URL for [Config.Documentation]. It appears in header
// fields, between angle brackets, so only the characters of a URI are allowed.
func documents(text string) bool {
	forbidden := func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("\"#<>\\^`{|}", c) }
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && !strings.ContainsFunc(text, forbidden)
}

// documented adds a Link to the documentation to h, the header of a refusal, if there is
// one. It returns err with the type of the problem, if its code is one of this package.
func (m *Middleware) documented(h http.Header, err error) error {
	if m.config.Documentation == "" {
		return err
	}
	h.Add("Link", "<"+m.config.Documentation+`>; rel="describedby"`)
	var own usher.Error
	if e, ok := errors.AsType[*usher.Error](err); ok {
		own = *e
	} else if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		own = usher.Error{ // as usher.Fail would make it
			Status: http.StatusRequestEntityTooLarge, Code: usher.CodePayloadTooLarge, Cause: err,
			Message: "The request body is too large.",
		}
	}
	if own.Type != "" || !slices.ContainsFunc(refusalCodes, func(c refusalCode) bool { return c.Code == own.Code }) {
		return err
	}
	own.Type = m.config.Documentation + "#" + own.Code
	return &own
}

// A refusalCode is a refusal as [Middleware.Discovery] publishes it. Retry is set if the
// client may send the same request again, with the same key.
type refusalCode struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Retry  bool   `json:"retry"`
}

// refusalCodes are all refusals of this package.
var refusalCodes = []refusalCode{
	{http.StatusBadRequest, usher.CodeIdempotencyKeyMissing, false},
	{http.StatusBadRequest, usher.CodeIdempotencyKeyInvalid, false},
	{http.StatusBadRequest, usher.CodeBodyUnreadable, true},
	{http.StatusUnauthorized, usher.CodeMissingCredential, false},
	{http.StatusRequestTimeout, usher.CodeBodyTimeout, true},
	{http.StatusConflict, usher.CodeIdempotencyInProgress, true},
	{http.StatusConflict, usher.CodeIdempotencyOutcomeUnknown, false},
	{http.StatusConflict, usher.CodeIdempotencyResponseNotKept, false},
	{http.StatusRequestEntityTooLarge, usher.CodePayloadTooLarge, false},
	{http.StatusUnprocessableEntity, usher.CodeIdempotencyKeyReused, false},
	{http.StatusTooManyRequests, usher.CodeIdempotencyTooManyKeys, true},
	{http.StatusInternalServerError, usher.CodeIdempotencyRecordUnreadable, false},
	{http.StatusServiceUnavailable, usher.CodeIdempotencyRecordUnreadable, true},
	{http.StatusServiceUnavailable, usher.CodeIdempotencyUnavailable, true},
}
