package session_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/usher-go/usher/jwtauth/session"
)

// A sessionOp is a refresh with a token, or a logout if that is "", and the time of it.
type sessionOp struct {
	token string
	at    time.Time
}

// A sessionResult is the refresh token of the response, or "" for a refusal.
type sessionResult struct{ token string }

// A sessionState is all that a session is.
type sessionState struct {
	current, previous string
	rotated           time.Time
	delivered, ended  bool
}

const grace = time.Minute

// sessionModel is the rule of refresh tokens as a sequential machine.
var sessionModel = porcupine.Model{
	Init: func() any { return sessionState{} },
	Step: func(state, input, output any) (bool, any) {
		s, op, got := state.(sessionState), input.(sessionOp), output.(sessionResult)
		fresh := op.at.Sub(s.rotated) < grace
		switch {
		case op.token == "":
			s.ended = true
			return true, s
		case s.ended:
			return got.token == "", s
		case s.current != "" && fresh && op.token == s.current:
			s.delivered = true
			return got.token == s.current, s
		case fresh && op.token == s.previous:
			return got.token == s.current, s
		case s.current == "" || op.token == s.current || op.token == s.previous && !s.delivered:
			// The first refresh of a history shows which token was the first.
			return got.token != "" && got.token != op.token && got.token != s.current,
				sessionState{current: got.token, previous: op.token, rotated: op.at}
		default:
			s.ended = true
			return got.token == "", s
		}
	},
}

// Whatever several clients do at once with the tokens that they have, the responses
// are those of some order of their requests, one at a time.
func TestRefreshesAreLinearizable(t *testing.T) {
	const rounds = 60
	ends, exchanges := 0, 0
	for round := range rounds {
		var history []porcupine.Operation
		var last string
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, func(c *session.Config) { c.Grace = grace })
			history, last = refreshAtOnce(t, m, uint64(round))
			if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: last}); err != nil {
				ends++
			}
		})
		tokens := make(map[string]bool)
		for _, op := range history {
			tokens[op.Output.(sessionResult).token] = true
		}
		delete(tokens, "")
		exchanges += len(tokens)
		switch porcupine.CheckOperationsTimeout(sessionModel, history, 10*time.Second) {
		case porcupine.Illegal:
			t.Fatalf("round %d: no order of its %d requests explains the responses", round, len(history))
		case porcupine.Unknown:
			t.Fatalf("round %d: not decided", round)
		}
	}
	if ends == 0 || ends == rounds || exchanges < 2*rounds {
		t.Errorf("%d of %d sessions ended after %d exchanges: the histories show one case only", ends, rounds, exchanges)
	}
}

// refreshAtOnce returns what clients of one session have done, in a bubble in which time
// passes only while all of them wait, and the last of their tokens.
func refreshAtOnce(t *testing.T, m *session.Manager, seed uint64) (history []porcupine.Operation, last string) {
	const clients, requests = 4, 12
	opened := login(t, m)
	var (
		mu    sync.Mutex
		clock atomic.Int64 // counts the calls and returns
		known = []string{opened.RefreshToken()}
		wg    sync.WaitGroup
	)
	send := func(client int, token string) {
		op := sessionOp{token: token, at: time.Now()}
		called := clock.Add(1)
		var got sessionResult
		var err error
		if token == "" {
			_, err = m.Logout(t.Context(), opened.Session.Subject, opened.Session.ID)
		} else {
			var response session.Tokens
			response, err = m.Refresh(t.Context(), session.RefreshRequest{Token: token})
			got.token = response.RefreshToken()
		}
		returned := clock.Add(1)
		if err != nil && !errors.Is(err, session.ErrInvalidRefreshToken) {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		history = append(history, porcupine.Operation{ClientId: client, Input: op, Output: got, Call: called, Return: returned})
		if got.token != "" && !slices.Contains(known, got.token) {
			known = append(known, got.token)
		}
	}
	send(clients, opened.RefreshToken())
	for client := range clients {
		random := rand.New(rand.NewPCG(seed, uint64(client)))
		wg.Go(func() {
			for range requests {
				// The clients wait for the same moments.
				time.Sleep(time.Duration(random.IntN(2)) * 30 * time.Second)
				mu.Lock()
				// Usually the newest, often the one before it, and now and then an older
				// one or a logout.
				back, dice := 0, random.IntN(200)
				switch {
				case dice < 1:
					back = 2
				case dice < 60:
					back = 1
				}
				token := known[max(len(known)-1-back, 0)]
				mu.Unlock()
				if dice == 199 {
					token = ""
				}
				send(client, token)
			}
		})
	}
	wg.Wait()
	return history, known[len(known)-1]
}
