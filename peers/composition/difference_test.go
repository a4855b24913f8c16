package composition_test

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// compressedInside is the difference of a compressor inside the envelope that compresses
// all that is long, and of the short responses those of the given scenarios.
func compressedInside(short ...string) difference {
	return encodedInside(append(short, "long JSON", "tagged JSON", "created", "JSON of an error", "late panic", "replay")...)
}

// encodedInside is the difference for what a handler writes itself, and is encoded.
func encodedInside(scenarios ...string) difference {
	return difference{"what handlers write", scenarios, notWrapped,
		"The envelope does not change bodies that are encoded inside it: mount compression outside."}
}

var (
	respondsToPreflight = difference{"", []string{"preflight"}, allowed,
		"It responds to a preflight itself, which carries no key. So mount it outside."}
	keepsFirstBytes = difference{"", []string{"stream"}, asAlone,
		"It keeps the first bytes, in spite of a flush, until it knows whether to compress them."}
	endsBodyAtPanic = difference{"", []string{"panic"}, abortedConnection,
		"It ends the compressed body when the handler panics, as if it were whole: the envelope aborts the connection."}
	storesEncoded = difference{"", []string{"replay of an error"}, ofFirst,
		"Idempotency stores what it encoded, so the metadata of a replay is that of the first request: mount compression outside."}
	removesVary = difference{"Vary of errors", nil, lessVary,
		"It removes Vary from errors. Their Cache-Control forbids shared caches to store them."}
	rendersErrors = difference{"", []string{"error in c.Errors", "private error in c.Errors"}, showsErrors,
		"It sends the text of every error in c.Errors: mount ushergin.Errors in its place."}
	keepsResponse = difference{"", []string{"stream", "upgrade"}, asAlone,
		"It keeps the response until the handler has returned, and connections cannot be taken over."}
	losesLatePanic = difference{"", []string{"late panic"}, abortedConnection,
		"It keeps the response until the handler has returned: of a body that breaks off, nothing is sent."}
	earlyPanic = difference{"", []string{"late panic"}, failed,
		"It keeps the response until the handler has returned: every panic becomes a 500."}
)

// notWrapped accepts a response that is what it would be without Wrap.
func notWrapped(c cell) error { return compare(c.unwrapped, c.got) }

// asAlone accepts what the neighbour does without this module. Only errors may have the
// shape of the envelope.
func asAlone(c cell) error {
	alone := c.alone()
	if c.got.line() != alone.line() || c.got.body != alone.body && c.got.status < http.StatusBadRequest {
		return fmt.Errorf("alone, the neighbour responds with %s: %s", alone.line(), show(alone.body))
	}
	return nil
}

func abortedConnection(c cell) error {
	if !c.got.broken {
		return errors.New("the response looks complete")
	}
	return nil
}

func allowed(c cell) error {
	if c.got.status > 299 || c.got.header.Get("Access-Control-Allow-Origin") == "" {
		return fmt.Errorf("the preflight gets %s with %q", c.got.line(), c.got.header)
	}
	return nil
}

func failed(c cell) error {
	if c.got.line() != "500" {
		return fmt.Errorf("want 500, got %s", c.got.line())
	}
	return nil
}

// ofFirst accepts an error with the ID of another request in its body.
func ofFirst(c cell) error {
	c.got.body = bodyID.ReplaceAllString(c.got.body, `"request_id":"ID"`)
	return compare(c.plain, c.got)
}

var bodyID = regexp.MustCompile(`"request_id":"[^"]+"`)

// lessVary accepts an error without Vary, if its Cache-Control forbids shared caches to
// store it.
func lessVary(c cell) error {
	if control := c.got.header.Get("Cache-Control"); control != "no-store" && control != "private" {
		return fmt.Errorf("Cache-Control is %q", control)
	}
	want := c.plain
	want.header = want.header.Clone()
	want.header.Del("Vary")
	return compare(want, c.got)
}

// showsErrors accepts that the text of errors is sent.
func showsErrors(c cell) error {
	if !strings.Contains(c.got.body, `{"error":"`) {
		return errors.New("the text of the error is not shown")
	}
	return nil
}
