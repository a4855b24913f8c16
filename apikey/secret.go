package apikey

import (
	"fmt"
	"io"
	"log/slog"
)

// A Secret is key material in transit to someone who may see it. It prints, logs and
// encodes as "[redacted]"; only [Secret.Reveal] returns the text. The zero value holds no
// text.
type Secret struct {
	// A pointer, because fmt prints a Secret in an unexported field of another struct,
	// and any value with %p, without calling its methods.
	text *string
}

// NewSecret returns a Secret that holds text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text. Send it to its owner, once, and to nobody else.
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
	// The fmt.State records the error.
	_, _ = io.WriteString(f, redacted)
}

// LogValue returns "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]". To send the text in a response, call [Secret.Reveal].
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns "[redacted]" as a JSON string.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
