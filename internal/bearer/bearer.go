// Package bearer extracts credentials from header fields, by the same strict rules for
// every authenticator of this module.
package bearer

import (
	"errors"
	"net/http"
	"strings"

	"github.com/usher-go/usher/internal/httptoken"
)

// ErrMalformed is the error for a field that is neither empty nor one credential.
var ErrMalformed = errors.New("malformed credential")

// maxLength is far above every credential in use and bounds the work that a
// hostile field costs.
const maxLength = 64 << 10

// Header returns the value of the field with this canonical name, or "" if the
// request has none or only blanks. Two lines are malformed even if they are
// equal: proxies differ in which one they look at.
func Header(h http.Header, name string) (string, error) {
	values := h[name]
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		if len(values[0]) <= maxLength {
			return trim(values[0]), nil
		}
	}
	return "", ErrMalformed
}

// trim removes blanks around a value. Hardly any value has some, and two comparisons are
// quicker than the set of characters of strings.Trim.
func trim(v string) string {
	if v == "" || v[0] > ' ' && v[len(v)-1] > ' ' {
		return v
	}
	return strings.Trim(v, " \t")
}

// Token returns the token of "Authorization: <scheme> <token>", as RFC 6750, section 2.1,
// defines it for the scheme Bearer, or "" if the request has no such field or it has
// another scheme.
//
// The scheme is compared without regard to case (RFC 9110, section 11.1) unless
// exact is set. Two lines, one of which has the scheme, a list, a tab or a second
// word are malformed.
func Token(h http.Header, scheme string, exact bool) (string, error) {
	values := h["Authorization"]
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		for _, v := range values {
			if hasScheme(v, scheme, exact) {
				return "", ErrMalformed
			}
		}
		return "", nil
	}
	v := values[0]
	if !hasScheme(v, scheme, exact) {
		return "", nil
	}
	if len(v) == len(scheme) || v[len(scheme)] != ' ' || len(v) > maxLength {
		return "", ErrMalformed
	}
	token := strings.Trim(v[len(scheme)+1:], " ")
	if token == "" || !single(token) {
		return "", ErrMalformed
	}
	return token, nil
}

// Bare returns the value of an Authorization field that is one word, and so has no
// scheme, or "" if the request has no such field or it has a scheme.
//
// Two lines, one of which is one word, a list, and several words of which the first is no
// scheme are malformed.
func Bare(h http.Header) (string, error) {
	values := h["Authorization"]
	if len(values) > 1 {
		for _, v := range values {
			if v = strings.Trim(v, " \t"); v != "" && !strings.ContainsAny(v, " \t") {
				return "", ErrMalformed
			}
		}
		return "", nil
	}
	text, err := Header(h, "Authorization")
	if err != nil || text == "" {
		return "", err
	}
	if scheme, _, two := strings.Cut(text, " "); two && httptoken.Valid(scheme) {
		return "", nil
	}
	if !single(text) {
		return "", ErrMalformed
	}
	return text, nil
}

// single reports whether text is one word and not a list. Tokens are long, and three
// searches for one byte are several times faster than one search for any of three.
func single(text string) bool {
	return strings.IndexByte(text, ' ') < 0 && strings.IndexByte(text, '\t') < 0 && strings.IndexByte(text, ',') < 0
}

// hasScheme reports whether v has this scheme, whatever follows it.
func hasScheme(v, scheme string, exact bool) bool {
	if len(v) < len(scheme) {
		return false
	}
	// Nearly all clients spell the scheme so, and the comparison is the quickest.
	if v[:len(scheme)] == scheme {
		if len(v) > len(scheme) && v[len(scheme)] == ' ' {
			return true
		}
	} else if !exact && !strings.EqualFold(v[:len(scheme)], scheme) {
		return false
	}
	if exact {
		return false
	}
	return len(v) == len(scheme) || v[len(scheme)] == ' ' || v[len(scheme)] == '\t' || v[len(scheme)] == ','
}
