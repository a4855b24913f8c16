package apikey

import (
	"net/url"
	"strings"

	"github.com/usher-go/usher/internal/bearer"
)

// queryValue returns the value of a parameter of a query, or "". Its name may be encoded,
// in the query but not here. Two values, and one that cannot be decoded, are malformed.
func queryValue(query, name string) (value string, err error) {
	const maxQuery = 8 << 10
	found := false
	for rest := query; rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		encoded, ok := valueOf(pair, name)
		if !ok {
			continue
		}
		// net/url drops a pair with a semicolon, which separated pairs long ago.
		if found || len(query) > maxQuery || strings.Contains(encoded, ";") {
			return "", bearer.ErrMalformed
		}
		found = true
		if value, err = url.QueryUnescape(encoded); err != nil {
			return "", bearer.ErrMalformed
		}
	}
	return value, nil
}

// valueOf returns the encoded value of a pair of a query, and whether the pair has this
// name.
func valueOf(pair, name string) (encoded string, ok bool) {
	given, encoded, _ := strings.Cut(pair, "=")
	if given == name {
		return encoded, true
	}
	// An encoded character has three bytes, so a longer name costs nothing.
	if len(given) > 3*len(name) || !strings.ContainsAny(given, "%+") {
		return "", false
	}
	decoded, err := url.QueryUnescape(given)
	return encoded, err == nil && decoded == name
}
