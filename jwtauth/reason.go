package jwtauth

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-go/usher/internal/jose"
)

// A reason is the private cause of a refusal: the value that came and the value that was
// expected. It is formatted when it is printed, which for most refusals is never. It holds
// neither the text of a token nor a signature. The verdict precedes it.
type reason func() string

func (r reason) Error() string { return r() }

// The reasons that have no value.
var (
	errField      = errors.New("the header field, or the cookies, are not one token")
	errTwoFields  = errors.New("a token in the header field and another one in a cookie")
	errCharacters = errors.New("a character that no bearer token has")
	errPrefix     = errors.New("a prefix other than TokenPrefix, or that of a refresh token")
	errNoConfirm  = errors.New("bound to a key of its sender, and the Config has no Confirm")
	errNoRequest  = errors.New("bound to a key of its sender, and there is no request to confirm it")
	errNoID       = errors.New("a principal without an ID; the default one has the ID of the sub")
)

// quoted returns a text in quotes, cut after 100 bytes.
func quoted(text string) string {
	const most = 100
	if len(text) <= most {
		return strconv.Quote(text)
	}
	return fmt.Sprintf("%q... (%d bytes)", text[:most], len(text))
}

// oneOf returns the texts of a list of which one is expected.
func oneOf[T ~string](list []T) string {
	if len(list) == 1 {
		return all(list)
	}
	return "one of " + all(list)
}

// all returns the texts of a list, at most ten of them.
func all[T ~string](list []T) string {
	const most = 10
	texts := make([]string, 0, most)
	for _, text := range list[:min(len(list), most)] {
		texts = append(texts, quoted(string(text)))
	}
	if len(list) > most {
		texts = append(texts, fmt.Sprintf("%d more", len(list)-most))
	}
	return strings.Join(texts, ", ")
}

// value returns the value of a claim, for a reason.
func value(claims []jose.Member, name string) string {
	raw, ok := jose.Find(claims, name)
	if !ok {
		return "absent"
	}
	if text, ok := jose.Unquote(raw); ok {
		return quoted(text)
	}
	return quoted(raw)
}

// tooLong returns the reason for a token of n bytes.
func tooLong(n, limit int) error {
	return reason(func() string {
		return fmt.Sprintf("%d bytes are more than MaxTokenLength, which is %d", n, limit)
	})
}

// unknownIssuer returns the reason for a token whose iss names no issuer of v.
func (v *Verifier) unknownIssuer(claims []jose.Member) error {
	return reason(func() string {
		text := "iss is " + value(claims, "iss") + ", want "
		names := slices.Sorted(maps.Keys(v.issuers.byName))
		switch {
		case v.resolver == nil:
			return text + oneOf(names)
		case len(names) == 0:
			return text + "one that ResolveIssuer knows"
		default:
			return text + "one that ResolveIssuer knows, or " + oneOf(names)
		}
	})
}

// keyReason returns the reason for a token whose signature no key of i verifies.
func keyReason(i *issuer, t *jose.Token, v Verdict, cause error) error {
	kid, algorithm := t.KeyID, t.Algorithm
	return reason(func() string {
		text := fmt.Sprintf("kid is %s and alg is %s", quoted(kid), quoted(algorithm))
		if v == UnknownKey {
			return text + ": no such key in the Keys of " + quoted(i.name)
		}
		text += ": the key in the Keys of " + quoted(i.name) + " does not verify the signature"
		if cause != nil {
			text += ": " + cause.Error()
		}
		return text
	})
}

// invalidClaim returns the reason for claims that readClaims refuses.
func invalidClaim(claims []jose.Member) error {
	return reason(func() string {
		for n := range claims {
			if !new(Token).readClaims(claims[n:n+1], nil) {
				return fmt.Sprintf("%s is %s, which is not valid", claims[n].Name, value(claims, claims[n].Name))
			}
		}
		return "a claim is not valid"
	})
}

// missingClaim returns the reason for claims that lack a required one.
func missingClaim(claims []jose.Member, name string) error {
	return reason(func() string { return fmt.Sprintf("%s is %s, but it is required", name, value(claims, name)) })
}

// refreshToken returns the reason for claims of a refresh token.
func refreshToken(claims []jose.Member) error {
	return reason(func() string {
		for n := range claims {
			if isRefreshToken(claims[n : n+1]) {
				return fmt.Sprintf("%s is %s, as in a refresh token", claims[n].Name, value(claims, claims[n].Name))
			}
		}
		return "a refresh token"
	})
}

// notAccess returns the reason for a response about a token that is no access token.
func notAccess(members []jose.Member) error {
	return reason(func() string {
		return fmt.Sprintf("token_type is %s and token_use is %s, or another member is that of a refresh token",
			value(members, "token_type"), value(members, "token_use"))
	})
}

// tooLate returns the reason for a token that is valid for longer than MaxLifetime.
func tooLate(exp, from time.Time, limit time.Duration) error {
	return reason(func() string {
		return fmt.Sprintf("exp is %s and iat or the present time is %s: more than MaxLifetime, which is %v", stamp(exp), stamp(from), limit)
	})
}

// wrongAudience returns the reason for a token whose claim of this name, which stands for
// its audience, has none of want.
func wrongAudience(claim string, got, want []string) error {
	return reason(func() string {
		if len(got) == 0 {
			return fmt.Sprintf("%s is absent, want %s", claim, oneOf(want))
		}
		return fmt.Sprintf("%s is %s, want %s", claim, all(got), oneOf(want))
	})
}

// untimely returns the reason for a token that is expired or not valid yet.
func untimely(claim string, at, now time.Time, leeway time.Duration) error {
	return reason(func() string {
		return fmt.Sprintf("%s is %s, the present time is %s, and Leeway is %v", claim, stamp(at), stamp(now), leeway)
	})
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// revokedToken returns the reason for a token that is revoked.
func revokedToken(t *Token) error {
	return reason(func() string {
		return fmt.Sprintf("iss is %s, jti is %s, sid is %s, sub is %s and iat is %s",
			quoted(t.Issuer), quoted(t.ID), quoted(t.SessionID), quoted(t.Subject), stamp(t.IssuedAt))
	})
}
