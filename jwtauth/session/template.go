package session

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/usher-go/usher/internal/scope"
)

// The bounds of the values that a login sets. They are documented at [Session].
const (
	maxID        = 64
	maxSubject   = 255
	maxClient    = 255
	maxScopes    = 100
	maxScope     = 255
	maxData      = 32
	maxDataName  = 64
	maxDataValue = 1024
)

// checkTemplate returns why no session can be opened with template at now, or nil.
func checkTemplate(template *Session, now time.Time) error {
	switch {
	case !isSubject(template.Subject):
		return misuse("the subject of a login must be valid UTF-8 without NUL, of 1 to %d bytes", maxSubject)
	case !isText(template.Client, maxClient):
		return misuse("the client of a login must be valid UTF-8 without NUL, of at most %d bytes", maxClient)
	case len(template.Data) > maxData:
		return misuse("a login has %d entries of data; at most %d are stored", len(template.Data), maxData)
	case len(template.Scopes) > maxScopes:
		return misuse("a login has %d scopes; at most %d are stored", len(template.Scopes), maxScopes)
	case !template.EndsAt.IsZero() && !template.EndsAt.After(now):
		return misuse("EndsAt of a login must be later than now")
	}
	for name, value := range template.Data {
		if !isText(name, maxDataName) || !isText(value, maxDataValue) {
			return misuse("the data of a login must be valid UTF-8 without NUL, with names of up to %d bytes and values of up to %d", maxDataName, maxDataValue)
		}
	}
	for _, s := range template.Scopes {
		if !scope.Valid(s) || len(s) > maxScope {
			return misuse("a login has the invalid scope %q", s)
		}
	}
	return nil
}

// isSubject reports whether a subject may have sessions. Any other subject has none, and
// its name must not reach the store.
func isSubject(s string) bool { return s != "" && isText(s, maxSubject) }

// isID reports whether a session may have this ID, which may come from a client.
func isID(id string) bool {
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return id != "" && len(id) <= maxID
}

// isText reports whether every store can keep s, which may have up to limit bytes. Many
// databases fail on other text, and such failures would stop the calls for other sessions.
func isText(s string, limit int) bool {
	return len(s) <= limit && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}
