package envelope

import (
	"bytes"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/usher-go/usher/internal/jsontext"
)

const (
	maxURL    = 2 << 10 // bytes of the URL in metadata, before escaping
	maxMethod = 32
)

// target returns the path and the query as the client sent them. It omits the scheme and
// the authority of a request to a proxy, as the authority may hold a password.
func target(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") || r.URL == nil {
		return r.RequestURI
	}
	return r.URL.RequestURI()
}

// The names of query parameters with secret values, in lower-case letters and digits. A
// name that contains one of secretWords, or ends in key or code, is secret, too:
// subscription-key, device_code and so on.
var (
	secretNames = []string{"state", "sig", "pwd", "pass", "auth", "sid", "otp", "pin", "mfa", "ticket"}
	secretWords = [...][]byte{
		[]byte("token"), []byte("secret"), []byte("password"), []byte("passwd"), []byte("passphrase"),
		[]byte("signature"), []byte("credential"), []byte("authorization"), []byte("session"), []byte("jwt"),
		[]byte("bearer"), []byte("hmac"), []byte("assertion"), []byte("saml"), []byte("verifier"),
		[]byte("nonce"), []byte("invite"), []byte("magic"), []byte("apikey"), []byte("accesskey"), []byte("privatekey"),
	}
	secretEnds = [...][]byte{[]byte("key"), []byte("code")}
)

// secrets are the normalized names of query parameters whose values are secret.
type secrets map[string]struct{}

func newSecrets(more []string) secrets {
	s := make(secrets)
	for _, name := range secretNames {
		s[name] = struct{}{}
	}
	for _, name := range more {
		s[string(normalize(nil, name))] = struct{}{}
	}
	return s
}

// maxParamName is the length of the longest name that is checked; a longer one counts as
// secret.
const maxParamName = 128

// has reports whether the parameter with this name, as the URL spells it, has a secret
// value.
func (s secrets) has(name string) bool {
	if len(name) > maxParamName {
		return true
	}
	var buf [maxParamName]byte
	plain := normalize(buf[:0], name)
	if _, ok := s[string(plain)]; ok {
		return true
	}
	for _, word := range secretWords {
		if bytes.Contains(plain, word) {
			return true
		}
	}
	for _, end := range secretEnds {
		if bytes.HasSuffix(plain, end) {
			return true
		}
	}
	return false
}

// normalize appends the ASCII letters and digits of name, which may be
// percent-encoded, in lower case: api_key, API-Key and %61pikey are one name.
func normalize(b []byte, name string) []byte {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '%' && i+2 < len(name) {
			hi, ok1 := unhex(name[i+1])
			lo, ok2 := unhex(name[i+2])
			if ok1 && ok2 {
				c = hi<<4 | lo
				i += 2
			}
		}
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b = append(b, c)
		case 'A' <= c && c <= 'Z':
			b = append(b, c|0x20)
		}
	}
	return b
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// isSeparator reports whether a parameter may begin after c in a URL. Some servers and
// clients also read parameters after ';' and '#'.
func isSeparator(c byte) bool { return c == '?' || c == '&' || c == ';' || c == '#' }

// appendURL appends url as a JSON string of limited length, with the values of secret
// parameters replaced.
func (s secrets) appendURL(b []byte, url string) []byte {
	if len(url) <= maxURL && strings.IndexByte(url, '=') < 0 {
		return jsontext.AppendString(b, url) // no parameter has a value
	}
	b = append(b, '"')
	left := maxURL
	for part := range parts(url) {
		if isSeparator(part[0]) {
			if name, value, ok := strings.Cut(part[1:], "="); ok && value != "" && s.has(name) {
				part = cut(part[:1+len(name)], left) + "=REDACTED"
			}
		}
		if len(part) > left {
			b = jsontext.AppendEscaped(b, cut(part, left))
			b = append(b, "…"...)
			break
		}
		b = jsontext.AppendEscaped(b, part)
		left -= len(part)
	}
	return append(b, '"')
}

// parts yields the parts of url, none of which is empty. Each part but the first begins
// with a separator.
func parts(url string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for url != "" {
			end := 1
			for end < len(url) && !isSeparator(url[end]) {
				end++
			}
			if !yield(url[:end]) {
				return
			}
			url = url[end:]
		}
	}
}

// cut returns at most n bytes of s and does not split a rune.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
