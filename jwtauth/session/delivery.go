package session

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/usher-go/usher/internal/shard"
	"github.com/usher-go/usher/jwtauth"
)

// Used records in the store that t, an access token of the Manager, was used, so that the
// response with t has reached a client. From then on, and after [Config.Grace], a second
// use of the refresh token that was exchanged for that response ends the session.
// [Manager.TrustedIssuer] calls Used for each token when it is verified.
//
// A service that verifies the tokens with published keys may report their use to one that
// calls Used. If it does not, such a second use only makes the refresh token of that
// response void, and the session ends when that one is used.
//
// Used neither waits nor fails. It calls the store once for each token on a goroutine of
// its own, except for a [Memory], within [Config.Timeout]. If that fails, the error reaches
// OnError, and the next call for t repeats it. Used ignores tokens of other issuers.
func (m *Manager) Used(ctx context.Context, t *jwtauth.Token) {
	id, _, _ := strings.Cut(t.ID, subToken)
	if t.Issuer != m.name || !isID(t.SessionID) || !isID(id) {
		return
	}
	m.deliveries.record(ctx, t.SessionID, id, m.reportFailure)
}

// deliveries are the access tokens whose use is in the store.
type deliveries struct {
	store   Store
	timeout time.Duration
	known   *shard.Cache[string, struct{}] // by token; it may be recorded at this moment
}

// knownDeliveries is how many tokens are remembered, which saves a call of the store for
// each verification of a token that no Verifier remembers.
const knownDeliveries = 1 << 14

func newDeliveries(s Store, timeout time.Duration) *deliveries {
	return &deliveries{store: s, timeout: timeout, known: shard.New[string, struct{}](knownDeliveries, nil)}
}

// record stores a delivery, unless it is known.
func (d *deliveries) record(ctx context.Context, sessionID, tokenID string, report func(context.Context, error)) {
	if !d.add(tokenID) {
		return
	}
	// Tokens share memory with requests.
	sessionID, tokenID = strings.Clone(sessionID), strings.Clone(tokenID)
	// The request may end before the call.
	ctx = context.WithoutCancel(ctx)
	set := func() {
		ctx, cancel := context.WithTimeoutCause(ctx, d.timeout, errSlow)
		defer cancel()
		if err := d.store.SetDelivered(ctx, sessionID, tokenID); err != nil {
			d.remove(tokenID)
			report(ctx, fmt.Errorf("session: store a delivery: %w", err))
		}
	}
	if _, guarded := d.store.(guardedStore); !guarded {
		set()
		return
	}
	// The guard bounds how many of them wait.
	go set()
}

// add reports whether a token was not known.
func (d *deliveries) add(tokenID string) bool {
	s := d.known.Shard(tokenID)
	s.Lock()
	defer s.Unlock()
	if _, ok := s.Get(tokenID); ok {
		return false
	}
	s.Add(strings.Clone(tokenID), struct{}{})
	return true
}

func (d *deliveries) remove(tokenID string) {
	s := d.known.Shard(tokenID)
	s.Lock()
	defer s.Unlock()
	s.Remove(tokenID)
}
