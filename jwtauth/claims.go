package jwtauth

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/internal/scope"
)

// readClaims fills in t from members, and reports whether the claims that it reads
// have the types of RFC 7519, section 4.1. Granting are the claims that grant scopes
// besides scope and scp.
func (t *Token) readClaims(members []jose.Member, granting []claimPath) bool {
	for _, m := range members {
		ok := true
		switch m.Name {
		case "iss":
			if m.Value != "null" {
				t.Issuer, ok = jose.Unquote(m.Value)
			}
		case "sub":
			if m.Value != "null" { // of a client that acts for nobody: as if there were none
				t.Subject, ok = jose.Unquote(m.Value)
			}
		case "aud":
			t.Audience, ok = audience(m.Value)
		case "exp":
			t.ExpiresAt, ok = numericDate(m.Value)
		case "nbf":
			t.NotBefore, ok = numericDate(m.Value)
		case "iat":
			t.IssuedAt, ok = numericDate(m.Value)
		case "jti":
			t.ID, ok = jose.Unquote(m.Value)
		case "sid":
			t.SessionID, ok = jose.Unquote(m.Value)
		case "client_id":
			t.ClientID, ok = jose.Unquote(m.Value)
		case "cnf":
			t.bound = m.Value != "null"
		}
		if !ok {
			return false
		}
	}
	t.Scopes = scopes(members, granting)
	return true
}

// audience returns the values of aud: one string or an array of strings, none of
// them empty.
func audience(value string) ([]string, bool) {
	list, ok := jose.Strings(value)
	return list, ok && len(list) > 0 && !slices.Contains(list, "")
}

// lastSecond is the last second of the year 9999, the last with four digits.
const lastSecond = 253402300799

// numericDate returns the time of a NumericDate. It returns false for other values,
// negative numbers and numbers that are too large for a date.
func numericDate(value string) (time.Time, bool) {
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		return time.Unix(n, 0), n >= 0 && n <= lastSecond
	}
	// Of all JSON values, ParseFloat accepts only numbers.
	f, err := strconv.ParseFloat(value, 64)
	if err != nil || !(f >= 0 && f <= lastSecond) {
		return time.Time{}, false
	}
	seconds, fraction := math.Modf(f)
	return time.Unix(int64(seconds), int64(fraction*1e9)), true
}

// scopeClaims returns the claims that a Config names because they grant scopes.
func scopeClaims(names []string) []claimPath {
	paths := make([]claimPath, len(names))
	for n, name := range names {
		paths[n] = newClaimPath(name)
	}
	return paths
}

// scopes returns the scopes that scope (RFC 8693, section 4.2), scp and these other claims
// grant. Each claim is a string of scopes separated by spaces (RFC 6749, section 3.3) or
// an array, and each of the others may be an object that has scopes as names. A claim of
// another type grants nothing. Neither does text that is not a scope-token: a server may
// have meant it as a single scope, not as several words.
func scopes(members []jose.Member, others []claimPath) []string {
	var all []string
	for _, name := range [...]string{"scope", "scp"} {
		if value, ok := jose.Find(members, name); ok {
			all = appendListed(all, value)
		}
	}
	for _, path := range others {
		if value, ok := path.find(members); ok {
			all = appendNamed(appendListed(all, value), value)
		}
	}
	return slices.Clip(distinct(all))
}

// appendListed appends the scopes in a string or in an array.
func appendListed(all []string, value string) []string {
	if text, ok := jose.Unquote(value); ok {
		all = slices.Grow(all, 1+strings.Count(text, " "))
		for s := range strings.SplitSeq(text, " ") {
			if scope.Valid(s) {
				all = append(all, s)
			}
		}
		return all
	}
	list, _ := jose.Strings(value)
	for _, s := range list {
		if scope.Valid(s) {
			all = append(all, s)
		}
	}
	return all
}

// appendNamed appends the scopes in an object that has them as names, as the roles of
// Zitadel. A name counts if its value is true or an object that has members, the
// organizations for which a role was granted.
func appendNamed(all []string, value string) []string {
	for m := range jose.Members(value) {
		granted := m.Value == "true"
		for range jose.Members(m.Value) {
			granted = true
			break
		}
		if granted && scope.Valid(m.Name) {
			all = append(all, m.Name)
		}
	}
	return all
}

// distinct removes repetitions from list.
func distinct(list []string) []string {
	const few = 16
	if len(list) <= few {
		kept := list[:0]
		for _, s := range list {
			if !slices.Contains(kept, s) {
				kept = append(kept, s)
			}
		}
		return kept
	}
	// A token has room for thousands; comparing all pairs would take too long.
	seen := make(map[string]bool, len(list))
	return slices.DeleteFunc(list, func(s string) bool {
		again := seen[s]
		seen[s] = true
		return again
	})
}

// isRefreshToken reports whether a token declares itself a refresh token, in a member
// that servers use for that: token_use (Amazon Cognito, Ory Hydra), token_type (Simple
// JWT), typ (Keycloak) or type (Flask-JWT-Extended).
func isRefreshToken(members []jose.Member) bool {
	for _, m := range members {
		switch m.Name {
		case "token_use", "token_type", "typ", "type":
			text, _ := jose.Unquote(m.Value)
			kind := strings.ToLower(strings.ReplaceAll(text, "_", ""))
			if kind == "refresh" || kind == "offline" || strings.HasSuffix(kind, "refreshtoken") {
				return true
			}
		}
	}
	return false
}

// present reports whether a claim exists and is neither null nor empty.
func present(members []jose.Member, name string) bool {
	value, ok := jose.Find(members, name)
	return ok && value != "null" && value != `""`
}
