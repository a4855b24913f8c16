package usher

import (
	"slices"
	"strings"

	"github.com/usher-go/usher/internal/httptoken"
)

// Challenge returns a value for the WWW-Authenticate field (RFC 9110, section 11.6.1):
// the scheme and its parameters, given as alternating names and values. A parameter with
// an empty value is omitted. Values are quoted, so no value can end early and begin
// another challenge; bytes that a header field may not carry become spaces.
func Challenge(scheme string, params ...string) string {
	var b strings.Builder
	b.WriteString(scheme)
	sep := " "
	for i := 0; i+1 < len(params); i += 2 {
		if params[i+1] == "" {
			continue
		}
		b.WriteString(sep)
		sep = ", "
		b.WriteString(params[i])
		b.WriteString(`="`)
		for _, c := range []byte(params[i+1]) {
			switch {
			case c == '"' || c == '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c < ' ' || c >= 0x7f:
				b.WriteByte(' ')
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('"')
	}
	return b.String()
}

// bearerChallenge returns a Bearer challenge with these parameters, but with this error
// code, which may be empty, and with the scopes of the parameters followed by these.
func bearerChallenge(params []string, code string, scopes []string) string {
	const realm, scope = 1, 5
	all := []string{"realm", "", "error", code, "scope", ""}
	var own []string
	for i := 0; i+1 < len(params); i += 2 {
		switch name, value := params[i], params[i+1]; name {
		case "realm":
			all[realm] = value
		case "scope":
			own = strings.Fields(value)
		case "error", "error_description", "error_uri":
		default:
			all = append(all, name, value)
		}
	}
	for _, s := range scopes {
		if !slices.Contains(own, s) {
			own = append(own, s)
		}
	}
	all[scope] = strings.Join(own, " ")
	return Challenge("Bearer", all...)
}

// withScopes returns challenges with these scopes added to the first Bearer challenge.
func withScopes(challenges, scopes []string) []string {
	challenges = slices.Clone(challenges)
	for i, c := range challenges {
		if params, ok := bearerParams(c); ok {
			challenges[i] = bearerChallenge(params, "", scopes)
			break
		}
	}
	return challenges
}

// namesMetadata reports whether a challenge has the resource_metadata of RFC 9728,
// section 5.1.
func namesMetadata(challenge string) bool {
	params, _ := bearerParams(challenge)
	for i := 0; i < len(params); i += 2 {
		if params[i] == "resource_metadata" {
			return true
		}
	}
	return false
}

// bearerParams returns the parameters of a challenge as alternating names, in lower case,
// and values. It returns false if the text is not exactly one challenge of the scheme
// Bearer.
func bearerParams(challenge string) (params []string, ok bool) {
	scheme, rest := cutToken(challenge)
	if !strings.EqualFold(scheme, "Bearer") || rest != "" && rest[0] != ' ' {
		return nil, false
	}
	for rest = strings.TrimLeft(rest, blanks); rest != ""; {
		var name, value string
		name, rest = cutToken(rest)
		rest, ok = strings.CutPrefix(strings.TrimLeft(rest, blanks), "=")
		if name == "" || !ok {
			return nil, false
		}
		if value, rest, ok = cutValue(strings.TrimLeft(rest, blanks)); !ok {
			return nil, false
		}
		params = append(params, strings.ToLower(name), value)
		if rest = strings.TrimLeft(rest, blanks); rest == "" {
			break
		}
		if rest[0] != ',' {
			return nil, false
		}
		rest = strings.TrimLeft(rest, blanks+",")
	}
	return params, true
}

const blanks = " \t"

// cutValue cuts a token or a quoted string (RFC 9110, section 5.6.4) off s.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutToken(s)
		return value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// cutToken cuts a token (RFC 9110, section 5.6.2) off s. The token is empty if there is
// none.
func cutToken(s string) (token, rest string) {
	end := strings.IndexAny(s, blanks+`=,"`)
	if end < 0 {
		end = len(s)
	}
	if !httptoken.Valid(s[:end]) {
		return "", s
	}
	return s[:end], s[end:]
}
