package usher

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/usher-go/usher/internal/exchange"
)

// A Principal is the caller of a request. An [Authenticator] returns it, and inner
// middlewares and handlers read it with [PrincipalFrom].
//
// All requests that carry the same credential may share a Principal. The Principal, its
// Scopes and its Details are read-only.
type Principal struct {
	// ID is the stable identity of the credential's subject: the ID of an API
	// key, the subject of a token. It is unique within Kind and never a secret.
	ID string
	// Line identifies the credential together with those that it has replaced: for an API
	// key, the ID of the first key of its rotations. It is unique within Kind, like ID, and
	// the default scope of idempotency keys and of limits per caller, so that both survive a
	// rotation. Empty means ID.
	Line string
	// Kind is the kind of the credential.
	Kind Kind
	// Owner is the account that the credential belongs to. Several principals
	// may share one; empty means that the credential stands for itself.
	Owner string
	// Name is what a person calls the credential, for logs and consoles.
	Name string
	// Scopes are the granted scopes. None means nothing is granted.
	Scopes []string
	// Level is the granted permission level. The zero value grants nothing.
	Level Level
	// Plan is what the owner has subscribed to; limits may depend on it.
	Plan string
	// Environment is the one in which the credential is valid, for instance "live".
	Environment string
	// Details is what the authenticator has for handlers, such as an
	// *apikey.Key or the claims of a token. It never holds key material.
	Details any
	// OnUse, if not nil, learns of the use of the credential. [Authenticate] calls it once
	// for each request that it admits with this Principal: when the handler first flushes
	// or hijacks the connection, as the rest may take days, and otherwise when the handler
	// has returned or panicked. If an Authenticate inside admits the request with this very
	// Principal once more, only the outer one calls it.
	//
	// Status is that of the response as the handler and inner middlewares made it: 200 if
	// they wrote nothing, 101 for a connection that was hijacked before a status was sent,
	// and 500 for a panic before a status was sent. R is the request that the handler got,
	// or of which it got a copy, so r.Pattern is known once the handler has returned; the
	// handler may have changed the credentials in r. OnUse must be safe for concurrent
	// use, must not panic, and delays the response while it runs.
	OnUse func(r *http.Request, status int)
}

// HasScopes reports whether all of scopes were granted. Without arguments it returns
// true.
func (p Principal) HasScopes(scopes ...string) bool {
	for _, s := range scopes {
		if !slices.Contains(p.Scopes, s) {
			return false
		}
	}
	return true
}

// A Kind names a kind of credential. Authenticators outside this module may use
// names of their own.
type Kind string

// The kinds of credential that this module verifies.
const (
	KindAPIKey  Kind = "api_key"
	KindJWT     Kind = "jwt"
	KindOAuth   Kind = "oauth"
	KindWebhook Kind = "webhook"
)

// A Level is a permission level, an ordered alternative to scopes: each level also grants
// what the levels below it grant. The zero value grants nothing.
type Level uint8

// The permission levels in ascending order.
const (
	LevelNone      Level = iota
	LevelReadOnly        // views and reads
	LevelReadWrite       // also creates and updates
	LevelFull            // also deletes and administers
)

var levelNames = [...]string{"none", "read_only", "read_write", "full"}

// String returns the name of the level: none, read_only, read_write or full.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return fmt.Sprintf("Level(%d)", uint8(l))
}

// MarshalText returns the name of the level. It fails for a level without a name.
func (l Level) MarshalText() ([]byte, error) {
	if int(l) < len(levelNames) {
		return []byte(levelNames[l]), nil
	}
	return nil, fmt.Errorf("usher: no such permission level: %d", uint8(l))
}

// UnmarshalText parses the name of a level; empty text is [LevelNone].
func (l *Level) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*l = LevelNone
		return nil
	}
	i := slices.Index(levelNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("usher: no such permission level: %q", text)
	}
	*l = Level(i)
	return nil
}

// PrincipalFrom returns the principal that [Authenticate] stored in the request,
// and whether there is one. Its OnUse is nil, so that two principals can be compared.
//
// With the context of a request that [Track] returned, it also finds a principal that an
// inner middleware has stored.
func PrincipalFrom(ctx context.Context) (Principal, bool) {
	if p := principalOf(exchange.From(ctx)); p != nil {
		found := *p
		found.OnUse = nil
		return found, true
	}
	return Principal{}, false
}

// principalOf returns the principal in x, or nil. X may be nil.
func principalOf(x *exchange.Exchange) *Principal {
	if x == nil {
		return nil
	}
	return principals.Load(x)
}

// setPrincipal stores p, or nil for an anonymous caller. It clears the scopes that an
// outer Require has needed, as those were needed of another principal.
func setPrincipal(x *exchange.Exchange, p *Principal) {
	principals.Store(x, p)
	if x.Watched() {
		x.Unwatch()
	}
	if neededScopes.Load(x) != nil {
		neededScopes.Store(x, nil)
	}
}

// principals holds the principal of a request.
var principals = exchange.NewSlot[Principal]()

// WithPrincipal returns a request that carries p, for tests and for authentication that
// is done elsewhere. It stores p in r itself if a middleware of this module has already
// seen r, else in a copy.
//
// Unlike [Authenticate], WithPrincipal cannot mark the response for caches, nor call the
// OnUse of p: code that authenticates elsewhere must set Vary and Cache-Control itself.
func WithPrincipal(r *http.Request, p *Principal) *http.Request {
	x, r := exchange.Enter(r)
	setPrincipal(x, p)
	return r
}

// Track returns a request in which inner middlewares store the principal and the address
// of the client. After these have returned, an outer handler, such as an access log, can
// read both from that request with [PrincipalFrom] and clientip.Of. Track copies r unless
// a middleware of this module has already seen it.
//
// A server removes the temporary files of a multipart form only for the request that it
// made, and a tracer outside reads the Pattern of its own. The handler that calls Track
// therefore copies MultipartForm and Pattern from the tracked request back to its own, as
// the example does.
func Track(r *http.Request) *http.Request {
	_, r = exchange.Enter(r)
	return r
}
