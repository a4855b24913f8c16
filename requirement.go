package usher

import (
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/method"
	"github.com/usher-go/usher/internal/scope"
)

// A Requirement is what a caller needs to use a route. A caller must meet all of its
// fields. The zero value requires only a principal.
type Requirement struct {
	// Kinds are the accepted kinds of credential; empty means any.
	Kinds []Kind
	// Scopes must all be granted. Each is a scope-token (RFC 6749, section 3.3).
	Scopes []string
	// Level is the lowest permission level that is accepted.
	Level Level
	// MethodLevels replaces Level for requests with these methods, for instance by
	// LevelFull for DELETE. Methods are in capitals, as in requests.
	//
	// If any method is listed, an unlisted safe method needs what GET needs: the entry of
	// GET, or else Level. So HEAD and QUERY allow nothing that GET does not. An unlisted
	// method that is not registered as safe needs the highest of all entries, Level, and
	// LevelReadWrite.
	MethodLevels map[string]Level
	// Owner returns the account that owns what the request asks for, for instance
	// r.PathValue("account"). The principal's Owner must equal it byte for byte. A
	// principal without an owner is refused, and so is every principal where Owner
	// returns "". Nil means that every owner may use the route.
	//
	// Without this check a caller can read the data of another account by its ID: broken
	// object level authorization, the first risk of the OWASP API list (API1:2023). To
	// look up an object by its own ID below the account, still include the owner in the
	// query. Path values are set only inside the router: put Require there, and in gin
	// and echo also inside the adapter's PathValues. Elsewhere r.PathValue returns "",
	// and every request is refused, with the result no_owner in
	// usher.authorization.requests.
	Owner func(r *http.Request) string
	// RevealOwner makes the response to another owner a 403 with [CodeWrongOwner].
	// Otherwise it is that of [NotFound], so that nobody learns which accounts exist.
	RevealOwner bool

	anyOf []Requirement
}

// AnyOf returns a Requirement that is met if one of alternatives is met, for routes on
// which each kind of credential needs something different:
//
//	usher.Require(usher.AnyOf(
//		usher.Requirement{Kinds: []usher.Kind{usher.KindAPIKey}, Level: usher.LevelReadWrite},
//		usher.Requirement{Kinds: []usher.Kind{usher.KindJWT}, Scopes: []string{"notes:write"}},
//	))
//
// A caller who meets none is refused with the error of the nearest alternative, which is
// one for the caller's kind of credential if there is any. A caller must also meet the
// fields that are set in the result itself.
func AnyOf(alternatives ...Requirement) Requirement {
	return Requirement{anyOf: append([]Requirement{}, alternatives...)}
}

// addFaults adds every fault of want.
func (want *Requirement) addFaults(faults config.Faults[ConfigError]) {
	const unknown = "must be one of LevelNone to LevelFull"
	for i, k := range want.Kinds {
		faults.If(k == "", fmt.Sprintf("Kinds[%d]", i), config.NotEmpty)
	}
	for i, s := range want.Scopes {
		faults.If(!scope.Valid(s), fmt.Sprintf("Scopes[%d]", i),
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

// unlisted returns the lowest accepted levels for unlisted methods: for safe ones and for
// all others.
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
