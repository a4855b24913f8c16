package apikey

import (
	"fmt"
	"io"
	"log/slog"
)

// A Secret is key material on its way to somebody who may see it. Every way to
// print, log or encode one gives "[redacted]"; only [Secret.Reveal] gives the
// text. The zero value holds no text.
type Secret struct {
	// A pointer, because fmt prints a Secret in an unexported field of another
	// struct, and any value with %p, without asking its methods.
	text *string
}

// NewSecret returns a Secret that holds text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text. Send it to its owner, once, and nowhere else.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

const redacted = "[redacted]"

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (Secret) GoString() string { return redacted }

// Format writes "[redacted]" for every verb.
func (Secret) Format(f fmt.State, _ rune) {
	// A fmt.State keeps its own error.
	_, _ = io.WriteString(f, redacted)
}

// LogValue returns "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]". An answer that shall hold the text says so
// with [Secret.Reveal].
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns "[redacted]" as a JSON string.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
