package session_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/usher-go/usher/jwtauth/session"
)

// A sessionOp is a refresh with a token, or a logout if that is "".
type sessionOp struct{ token string }

// A sessionResult is the refresh token of the response, or "" for a refusal.
type sessionResult struct{ token string }

// A sessionState is all that a session is while its grace lasts.
type sessionState struct {
	current, previous string
	ended             bool
}

// sessionModel is the rule of refresh tokens as a sequential machine.
var sessionModel = porcupine.Model{
	Init: func() any { return sessionState{} },
	Step: func(state, input, output any) (bool, any) {
		s, op, got := state.(sessionState), input.(sessionOp), output.(sessionResult)
		switch {
		case op.token == "":
			s.ended = true
			return true, s
		case s.ended:
			return got.token == "", s
		case s.current == "" || op.token == s.current:
			// The first refresh of a history shows which token was the first.
			return got.token != "" && got.token != op.token, sessionState{current: got.token, previous: op.token}
		case op.token == s.previous:
			return got.token == s.current, s
		default:
			s.ended = true
			return got.token == "", s
		}
	},
}

// Whatever several clients do at once with the tokens that they have, the responses
// are those of some order of their requests, one at a time.
func TestRefreshesAreLinearizable(t *testing.T) {
	const rounds, clients, requests = 60, 4, 12
	ends := 0
	for round := range rounds {
		m := newManager(t, func(c *session.Config) { c.Grace = time.Minute })
		first := mustRefresh(t, m, login(t, m).RefreshToken())
		var (
			mu      sync.Mutex
			known   = []string{first.RefreshToken()}
			history []porcupine.Operation
			wg      sync.WaitGroup
			start   = time.Now()
		)
		for client := range clients {
			random := rand.New(rand.NewPCG(uint64(round), uint64(client)))
			wg.Go(func() {
				for range requests {
					mu.Lock()
					// Usually the newest, often the one before it, and now and then an
					// older one or a logout.
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
					called := time.Since(start)
					var got sessionResult
					var err error
					if token == "" {
						_, err = m.Logout(t.Context(), first.Session.Subject, first.Session.ID)
					} else {
						var response session.Tokens
						response, err = m.Refresh(t.Context(), session.RefreshRequest{Token: token})
						got.token = response.RefreshToken()
					}
					returned := time.Since(start)
					if err != nil && !errors.Is(err, session.ErrInvalidRefreshToken) {
						t.Error(err)
						return
					}
					mu.Lock()
					history = append(history, porcupine.Operation{
						ClientId: client, Input: sessionOp{token}, Output: got, Call: int64(called), Return: int64(returned),
					})
					if got.token != "" && !slices.Contains(known, got.token) {
						known = append(known, got.token)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		first0 := porcupine.Operation{ClientId: clients, Input: sessionOp{"first"}, Output: sessionResult{first.RefreshToken()}, Call: -2, Return: -1}
		history = append(history, first0)
		switch porcupine.CheckOperationsTimeout(sessionModel, history, 10*time.Second) {
		case porcupine.Illegal:
			t.Fatalf("round %d: no order of its %d requests explains the responses", round, len(history))
		case porcupine.Unknown:
			t.Fatalf("round %d: not decided", round)
		}
		if _, err := m.Refresh(t.Context(), session.RefreshRequest{Token: known[len(known)-1]}); err != nil {
			ends++
		}
	}
	if ends == 0 || ends == rounds {
		t.Errorf("%d of %d sessions ended: the histories show one case only", ends, rounds)
	}
}
