package session

import (
	"context"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// Config configures a [Manager].
type Config struct {
	// Issuer is the claim iss of the access tokens. Required, without a "|".
	Issuer string
	// Audiences is the claim aud of the access tokens: the names of the services that
	// they are for. At least one is required.
	Audiences []string

	// Store keeps the sessions. Nil keeps them in the memory of this process; Keys and
	// Revocations then have defaults that also last as long as the process. If you set
	// Keys that outlast the process, access tokens remain valid after a restart until
	// they expire, even if their sessions had ended, so set Revocations that last as long
	// as the Keys.
	Store Store
	// Keys sign the access tokens. One of them must sign now. They are required if Store
	// is set, because nodes that share sessions must share keys. Otherwise an empty list
	// means a new key for EdDSA.
	Keys []SigningKey
	// Revocations is extended with each session that ends, so that its access tokens end
	// at once. [Manager.TrustedIssuer] passes it to the [jwtauth.Verifier]. If it is nil,
	// access tokens are valid until they expire; but if Store is nil too, the default is
	// a [jwtauth.RevocationList]. Nodes that share a Store need a list that they share
	// too: a [jwtauth.RevocationMirror] of one.
	Revocations jwtauth.Revoker

	// AccessLifetime is how long an access token is valid; zero means 15 minutes.
	AccessLifetime time.Duration
	// RefreshLifetime is how long a session lasts without a refresh; zero means 7
	// days.
	RefreshLifetime time.Duration
	// SessionLifetime is how long a session lasts in any case; zero means 30 days.
	SessionLifetime time.Duration
	// MaxSessions is how many live sessions a subject may have; zero means 100. It is at
	// most 1,000. One more login ends the session that was refreshed least recently, with
	// its access tokens.
	MaxSessions int
	// Grace is how long after its exchange a refresh token still gets the same response
	// again, byte for byte, and how long the refresh token in that response stays: until
	// then it gets further access tokens, with current claims, and is not exchanged itself.
	// So requests that a client sends at about the same time may arrive in any order. Zero
	// means 30 seconds. It is at most 5 minutes. It must exceed the difference between the
	// clocks of the nodes: a node whose clock is behind by more repeats no response. A
	// negative number means that any second use of a refresh token ends the session, at
	// once: a client whose response was lost is then logged out.
	Grace time.Duration

	// Type is the typ of the access tokens; empty means "session+jwt", the typ of
	// [jwtauth.ProfileSession]. Tokens of the type "at+jwt" must have a client_id (RFC
	// 9068, section 2.2): without one, a login fails.
	Type string
	// Claims, if not nil, returns further claims for an access token. It is called at
	// each login and refresh, so that a token has current claims. To set iss, sub, aud,
	// exp, nbf, iat, jti, sid, scope or client_id is a mistake that leads to a 500. The
	// Scopes of s are the session's, even if the token has fewer. An [*usher.Error] becomes
	// the response, for instance if the subject is no longer a customer; any other error,
	// or a panic, leads to a 503. It is called on a goroutine of its own.
	Claims func(ctx context.Context, s Session) (map[string]any, error)

	// Timeout bounds how long a login, refresh or logout waits for Store, Claims and
	// Revocations, even if they ignore their context; zero means 3 seconds. At most 64
	// lookups and 64 changes of Store run at a time, and 64 calls each of Claims and
	// Revocations, including calls that hang. Sixteen wait for each of these; any more
	// fail at once. [Memory] and [jwtauth.RevocationList], which never wait, are called
	// directly.
	Timeout time.Duration
	// Audit, if not nil, is called after each login, refresh and logout, on the
	// goroutine of the caller. Its events name each session that has ended, except by its
	// expiry.
	Audit func(ctx context.Context, e Event)
	// OnError is called for each failure of Store, Revocations and Claims, for a panic of
	// Audit, and for whatever a [Handler] fails to do after it has responded. It may be
	// called on a goroutine of its own, after the request. Nil logs to
	// [log/slog.Default], at most one line a second.
	OnError func(ctx context.Context, err error)
	// MeterProvider makes the counter usher.session.refreshes, which has the outcome
	// as the attribute usher.session.result, and measures the calls of Store and
	// Revocations as usher.store.operation.duration. Nil means the global one.
	MeterProvider metric.MeterProvider
}

// completeInMemory fills in the defaults of a Manager for a single process.
func (c *Config) completeInMemory() error {
	store, err := NewMemory(MemoryConfig{})
	if err != nil {
		return err
	}
	c.Store = store
	if c.Revocations == nil {
		c.Revocations = new(jwtauth.RevocationList)
	}
	if len(c.Keys) == 0 {
		key, err := jwk.Generate(jwk.EdDSA)
		if err != nil {
			return err
		}
		c.Keys = []SigningKey{{Key: key}}
	}
	return nil
}

const outerBlanks = "must not begin or end with a blank or a line end"

// validate adds the faults of the configuration, except those of the keys.
func (m *Manager) validate(f config.Faults[usher.ConfigError]) {
	f.If(m.name == "", "Issuer", config.Required)
	f.If(strings.Contains(m.name, "|"), "Issuer", "must not contain a bar")
	f.If(strings.TrimSpace(m.name) != m.name, "Issuer", outerBlanks)
	f.If(slices.ContainsFunc(m.audiences, func(a string) bool { return strings.TrimSpace(a) != a }), "Audiences", outerBlanks)
	f.If(strings.TrimSpace(m.typ) != m.typ, "Type", outerBlanks)
	f.If(len(m.audiences) == 0 || slices.Contains(m.audiences, ""), "Audiences", "at least one is required, and none may be empty")
	f.If(m.access < time.Second, "AccessLifetime", "must be at least a second")
	f.If(m.refresh < max(m.access, 0), "RefreshLifetime", "must not be shorter than AccessLifetime")
	f.If(m.session < max(m.refresh, 0), "SessionLifetime", "must not be shorter than RefreshLifetime")
	// The access token in a repeated response must still be valid.
	f.If(m.grace >= m.access || m.grace > maxLeeway, "Grace", "must be shorter than AccessLifetime, and at most 5 minutes")
	f.If(m.maxSessions < 0 || m.maxSessions > sessionsPerSubject, "MaxSessions", "must be from 0 to 1000")
	f.If(m.timeout < 0, "Timeout", config.NotNegative)
}
