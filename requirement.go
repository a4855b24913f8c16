package usher

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/method"
)

// A Requirement is what a caller needs to use a route. All of its fields must be met. The zero
// value requires only a principal.
type Requirement struct {
	// Kinds are the kinds of credential that are accepted; none means any.
	Kinds []Kind
	// Scopes must all be granted. Each is a scope-token (RFC 6749, section 3.3).
	Scopes []string
	// Level is the least permission level.
	Level Level
	// MethodLevels are the least permission levels of requests with these
	// methods, in place of Level, for instance LevelFull for DELETE. Methods are in
	// capitals, as in requests.
	//
	// If any are listed, a safe method that is not needs what GET needs: its entry or
	// else Level. So HEAD and QUERY open nothing that GET does not. An unlisted method
	// that is not registered as safe needs the highest level of all: that of any entry,
	// Level, or LevelReadWrite.
	MethodLevels map[string]Level
	// Owner returns the account that owns what the request asks for, for instance
	// r.PathValue("account"). It must be the Owner of the principal, byte for byte; a
	// principal without an owner, and a route for which Owner returns "", match nothing.
	// Nil means that every owner may use the route.
	//
	// Without this check a caller reads the data of another account by its ID: broken
	// object level authorization, the first risk of the OWASP API list (API1:2023). What
	// has an ID of its own below the account still needs the owner in its query.
	// Path values are known only to what the router calls: Require stands there, and
	// behind the PathValues of the adapter in gin and echo. Where they are not known,
	// r.PathValue returns "", and every request is refused: with the result no_owner in
	// usher.authorization.requests.
	Owner func(r *http.Request) string
	// RevealOwner responds to another owner with 403 and [CodeWrongOwner]. Otherwise
	// the response is that of [NotFound], so that nobody learns which accounts exist.
	RevealOwner bool

	anyOf []Requirement
}

// AnyOf returns the Requirement that is met if one of alternatives is, for routes on
// which each kind of credential needs something else:
//
//	usher.Require(usher.AnyOf(
//		usher.Requirement{Kinds: []usher.Kind{usher.KindAPIKey}, Level: usher.LevelReadWrite},
//		usher.Requirement{Kinds: []usher.Kind{usher.KindJWT}, Scopes: []string{"notes:write"}},
//	))
//
// A caller who meets none is refused by the alternative that comes nearest, which is
// one for the kind of the credential if there is any. Fields that are set in the result must
// be met as well as one alternative.
func AnyOf(alternatives ...Requirement) Requirement {
	return Requirement{anyOf: append([]Requirement{}, alternatives...)}
}

// addFaults adds everything that is wrong with want.
func (want *Requirement) addFaults(faults config.Faults[ConfigError]) {
	const unknown = "must be one of LevelNone to LevelFull"
	for i, k := range want.Kinds {
		faults.If(k == "", fmt.Sprintf("Kinds[%d]", i), config.NotEmpty)
	}
	for i, s := range want.Scopes {
		faults.If(s == "" || strings.ContainsFunc(s, notInScope), fmt.Sprintf("Scopes[%d]", i),
			"must be one scope: visible ASCII without quotation mark and backslash")
	}
	faults.If(want.Level > LevelFull, "Level", unknown)
	for _, name := range slices.Sorted(maps.Keys(want.MethodLevels)) {
		field := fmt.Sprintf("MethodLevels[%q]", name)
		reason := method.Fault(name)
		faults.If(reason != "", field, reason)
		faults.If(want.MethodLevels[name] > LevelFull, field, unknown)
	}
	faults.If(want.RevealOwner && want.Owner == nil, "RevealOwner", "must not be set without Owner")
	faults.If(want.anyOf != nil && len(want.anyOf) == 0, "AnyOf", config.NotEmpty)
	for i := range want.anyOf {
		want.anyOf[i].addFaults(faults.In(fmt.Sprintf("AnyOf[%d]", i)))
	}
}

// notInScope reports whether a scope-token cannot contain r.
func notInScope(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }

// unlisted returns the least levels of methods that are not listed: of safe ones
// and of all others.
func (want *Requirement) unlisted() (safe, unsafe Level) {
	safe, unsafe = want.Level, want.Level
	if l, ok := want.MethodLevels[http.MethodGet]; ok {
		safe = l
	}
	for _, l := range want.MethodLevels {
		unsafe = max(unsafe, l, LevelReadWrite)
	}
	return safe, unsafe
}
