package apikey

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
)

// A Format is the form of a service's keys: [Native] for a new service, [Opaque], [Split]
// or [Plain] for existing keys, or one of your own. It must be safe for concurrent use.
type Format interface {
	// Parse reports whether text has the form of a key, including its checksum. It
	// returns the environment that the text names, or "", and how many of the first
	// characters may be displayed. A [Manager] displays fewer if that would leave less
	// than 112 bits hidden. It takes the characters after the prefix for random ones.
	//
	// The text comes from unauthenticated clients and is at most 256 bytes long. Parse
	// must check its length first and allocate nothing.
	Parse(text string) (environment string, visible int, ok bool)
	// Prefixes returns the fixed prefixes of all keys, one for each environment, or
	// none. Text that begins with one of them is parsed only by the formats that have
	// that prefix.
	Prefixes() []string
	// Entropy returns the number of random bits in a generated key. It is 0 for a
	// format that only parses keys.
	Entropy() int
	// Generate generates a key from random for environment; "" means the format's usual
	// environment. A format whose keys name no environment accepts any. An [*usher.Error]
	// is sent to the caller that asked for the key.
	Generate(random io.Reader, environment string) (string, error)
}

// maxLength bounds the length of every key, and so what it costs to parse one.
const maxLength = 256

// minEntropy is the least entropy of a generated key (OWASP ASVS 5.0, 11.5.1).
const minEntropy = 128

const (
	base62    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)

// A definition is a format of this package.
type definition interface {
	Format
	// clone returns a copy that shares nothing with the format.
	clone() Format
	faults() []fault
	// environments returns the environments that keys name, or none.
	environments() []string
	// mayBegin reports whether a key may begin with prefix, which has that of the format.
	mayBegin(prefix string) bool
}

// A fault is the reason why a field of a format is invalid.
type fault struct{ field, reason string }

// compileFormats returns copies of c.Format, or nil, and of all formats of c.
func compileFormats(c *ManagerConfig, faults config.Faults[usher.ConfigError]) (format Format, all []Format) {
	if c.Format != nil {
		f, ok := compileFormat(c.Format, faults, "Format")
		if ok {
			format, all = f, append(all, f)
		}
	} else {
		faults.If(len(c.Formats) == 0 && len(c.Legacy) == 0, "Format", "is required unless Formats or Legacy is set")
	}
	for i, f := range c.Formats {
		if f, ok := compileFormat(f, faults, fmt.Sprintf("Formats[%d]", i)); ok {
			all = append(all, f)
		}
	}
	return format, all
}

// compileFormat returns a copy of f if f has no faults, and otherwise adds them to
// faults.
func compileFormat(f Format, faults config.Faults[usher.ConfigError], field string) (Format, bool) {
	switch f := f.(type) {
	case nil:
		faults.Add(field, config.Required)
		return nil, false
	case definition:
		list := f.faults()
		for _, fault := range list {
			faults.In(field).Add(fault.field, fault.reason)
		}
		return f.clone(), len(list) == 0
	}
	return f, true
}

// names reports whether a key of f may be for environment: its text names that, or none.
// A format of an application decides by whether it generates such a key.
func names(f Format, environment string) bool {
	if f, ours := f.(definition); ours {
		all := f.environments()
		return len(all) == 0 || slices.Contains(all, environment)
	}
	if f.Entropy() == 0 {
		return true
	}
	_, err := f.Generate(rand.Reader, environment)
	return err == nil || !isClientError(err)
}

// cutLabel finds the body of text by the length that the body must have, since both the
// body and the prefix may contain "_".
func cutLabel(text, prefix string, environments []string, body int) (environment string, start int, ok bool) {
	start = len(text) - body
	if start <= len(prefix) || text[:len(prefix)] != prefix || text[len(prefix)] != '_' || text[start-1] != '_' {
		return "", 0, false
	}
	if len(environments) == 0 {
		return "", start, start == len(prefix)+1
	}
	for _, e := range environments {
		if start == len(prefix)+len(e)+2 && text[len(prefix)+1:start-1] == e {
			return e, start, true
		}
	}
	return "", 0, false
}

// label returns the fixed prefix of keys for environment.
func label(prefix string, environments []string, environment string) (string, error) {
	switch {
	case len(environments) == 0:
		return prefix + "_", nil
	case environment == "":
		environment = environments[0]
	case !slices.Contains(environments, environment):
		return "", usher.Invalid(usher.Field{Name: "environment", Message: "must be one of " + strings.Join(environments, ", ") + "."})
	}
	return prefix + "_" + environment + "_", nil
}

func labels(prefix string, environments []string) []string {
	if len(environments) == 0 {
		return []string{prefix + "_"}
	}
	all := make([]string, 0, len(environments))
	for _, e := range environments {
		all = append(all, prefix+"_"+e+"_")
	}
	return all
}

func labelFaults(prefix string, environments []string) (faults []fault) {
	if prefix == "" || len(prefix) > 32 || !madeOf(prefix, isBase62OrUnderscore) {
		faults = append(faults, fault{"Prefix", `must be 1 to 32 letters, digits and "_"`})
	}
	for i, e := range environments {
		if e == "" || len(e) > 16 || !madeOf(e, isBase62OrUnderscore) || slices.Contains(environments[:i], e) {
			faults = append(faults, fault{fmt.Sprintf("Environments[%d]", i), `must be 1 to 16 letters, digits and "_", and listed once`})
		}
	}
	return faults
}

// randomText returns n characters of alphabet, each equally likely: it discards bytes
// that would make some characters more likely.
func randomText(random io.Reader, alphabet string, n int) (string, error) {
	fair := 256 - 256%len(alphabet)
	text := make([]byte, 0, n)
	var buf [64]byte
	// More than n discarded bytes are very unlikely. If all are discarded, the source is
	// broken.
	for range 2 + 2*n/len(buf) {
		if _, err := io.ReadFull(random, buf[:]); err != nil {
			return "", fmt.Errorf("apikey: no random bytes: %w", err)
		}
		for _, b := range buf {
			if int(b) < fair && len(text) < n {
				text = append(text, alphabet[int(b)%len(alphabet)])
			}
		}
		if len(text) == n {
			return string(text), nil
		}
	}
	return "", errors.New("apikey: the random bytes are not random")
}

// A class is a set of characters: a bit in a table for all characters.
type class uint8

const (
	isBase62 class = 1 << iota
	isBase64url
	isBase62OrUnderscore
	isPlain // visible ASCII except the comma
)

var classes = func() (table [256]class) {
	for c := range table {
		if strings.IndexByte(base62, byte(c)) >= 0 {
			table[c] |= isBase62 | isBase62OrUnderscore
		}
		if strings.IndexByte(base64url, byte(c)) >= 0 {
			table[c] |= isBase64url
		}
		if c > ' ' && c < 0x7f && c != ',' {
			table[c] |= isPlain
		}
	}
	table['_'] |= isBase62OrUnderscore
	return table
}()

func madeOf(text string, want class) bool {
	for i := range len(text) {
		if classes[text[i]]&want == 0 {
			return false
		}
	}
	return true
}
