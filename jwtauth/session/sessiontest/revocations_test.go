package sessiontest_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/jwtauth"
	"github.com/usher-go/usher/jwtauth/session/sessiontest"
)

type (
	revocation = jwtauth.Revocation
	token      = jwtauth.Token
	list       = jwtauth.RevocationList
)

// A source is a client of a list, of which some methods are replaced.
type source struct {
	*listServer
	list    *list
	revoked func(*list, *token) (bool, error)
	// args changes the arguments of a revocation, and may end it.
	args   func(issuer, id *string, until *time.Time) (ok bool)
	before func(*time.Time)
	follow func(l *list, c ctx, after string, ready func(), changed func(revocation)) error
}

// A listServer is what the clients of a list share.
type listServer struct {
	mu       sync.Mutex
	silent   chan struct{}
	poisoned bool
	patient  bool // Follow does not notice that the server is silent
	gap      bool // Follow ends without an error when the server is silent
	readable bool // what cannot be read is ignored
}

// wait waits while the server is silent.
func (s *listServer) wait(c ctx) error {
	s.mu.Lock()
	silent, poisoned := s.silent, s.poisoned && !s.readable
	s.mu.Unlock()
	if poisoned {
		return usher.ErrCorrupt
	}
	if silent == nil {
		return c.Err()
	}
	select {
	case <-silent:
		return nil
	case <-c.Done():
		return c.Err()
	}
}

func (s *source) Revoked(c ctx, t *token) (bool, error) {
	if err := s.wait(c); err != nil {
		return false, err
	}
	if s.revoked != nil {
		return s.revoked(s.list, t)
	}
	return s.list.Revoked(c, t)
}

func (s *source) change(c ctx, issuer, id *string, until *time.Time) (bool, error) {
	if err := s.wait(c); err != nil {
		return false, err
	}
	return s.args == nil || s.args(issuer, id, until), nil
}

func (s *source) RevokeToken(c ctx, issuer, id string, until time.Time) error {
	if ok, err := s.change(c, &issuer, &id, &until); !ok {
		return err
	}
	return s.list.RevokeToken(c, issuer, id, until)
}

func (s *source) RevokeSession(c ctx, issuer, id string, until time.Time) error {
	if ok, err := s.change(c, &issuer, &id, &until); !ok {
		return err
	}
	return s.list.RevokeSession(c, issuer, id, until)
}

func (s *source) RevokeSubject(c ctx, issuer, subject string, issuedBefore, until time.Time) error {
	if ok, err := s.change(c, &issuer, &subject, &until); !ok {
		return err
	}
	if s.before != nil {
		s.before(&issuedBefore)
	}
	return s.list.RevokeSubject(c, issuer, subject, issuedBefore, until)
}

func (s *source) Follow(c ctx, after string, ready func(), changed func(revocation)) error {
	if err := s.wait(c); err != nil {
		if c.Err() != nil {
			return nil
		}
		return err
	}
	c, cancel := context.WithCancelCause(c)
	defer cancel(nil)
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(20 * time.Millisecond):
			}
			s.mu.Lock()
			silent := s.silent != nil
			s.mu.Unlock()
			if silent && !s.patient {
				cancel(usher.ErrUnavailable)
			}
		}
	})
	defer watching.Wait()
	defer close(ended)
	follow := s.follow
	if follow == nil {
		follow = (*list).Follow
	}
	err := follow(s.list, c, after, ready, changed)
	if errors.Is(context.Cause(c), usher.ErrUnavailable) && !s.gap {
		return usher.ErrUnavailable
	}
	return err
}

func lists(open func() *source) sessiontest.Revocations {
	server, l := new(listServer), new(list)
	return sessiontest.Revocations{
		Open: func(testing.TB) jwtauth.RevocationSource {
			s := open()
			if s.listServer != nil {
				server.patient, server.gap, server.readable = s.patient, s.gap, s.readable
			}
			s.listServer = server
			if s.list == nil {
				s.list = l
			}
			return s
		},
		Block: func(testing.TB) func() {
			silent := make(chan struct{})
			server.mu.Lock()
			defer server.mu.Unlock()
			server.silent = silent
			return func() {
				server.mu.Lock()
				defer server.mu.Unlock()
				server.silent = nil
				close(silent)
			}
		},
		Poison: func(testing.TB) {
			server.mu.Lock()
			defer server.mu.Unlock()
			server.poisoned = true
		},
	}
}

// changing returns a client that changes what it passes on.
func changing(change func(*revocation)) func() *source {
	return func() *source {
		return &source{follow: func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
			return l.Follow(c, after, ready, func(r revocation) {
				change(&r)
				changed(r)
			})
		}}
	}
}

func following(follow func(l *list, c ctx, after string, ready func(), changed func(revocation)) error) func() *source {
	return func() *source { return &source{follow: follow} }
}

func args(change func(issuer, id *string, until *time.Time) bool) func() *source {
	return func() *source { return &source{args: change} }
}

// identifiers returns a client that takes identifiers for the same if key returns the
// same.
func identifiers(key func(string) string) func() *source {
	return func() *source {
		return &source{
			args: func(issuer, id *string, _ *time.Time) bool {
				*issuer, *id = key(*issuer), key(*id)
				return true
			},
			revoked: func(l *list, t *token) (bool, error) {
				return l.Revoked(context.Background(), &token{
					Issuer: key(t.Issuer), ID: key(t.ID), SessionID: key(t.SessionID), Subject: key(t.Subject), IssuedAt: t.IssuedAt,
				})
			},
		}
	}
}

const (
	wholeList = "a follower gets the whole list and then ready"
	added     = "a follower gets what is added, in order"
	continued = "a follower that continues from a position has no gap"
	lookAlike = "issuers and IDs that look alike are different"
	atOnce    = "a revocation takes effect at once, and on nothing else"
	grows     = "a revocation only grows"
	extended  = "an extended revocation is passed on again"
	silence   = "following a silent server ends within a second"
)

// A wrongSource makes a source that is wrong in one way, and names the row that must fail.
type wrongSource struct {
	open  func() *source
	fails string
}

var sources = map[string]wrongSource{
	"keeps the revocations of each client apart": {func() *source { return &source{list: new(list)} }, atOnce},
	"revokes a while later": {func() *source {
		return &source{revoked: func(l *list, t *token) (bool, error) {
			if t.ID == "token" && t.Subject == "" {
				return false, nil
			}
			return l.Revoked(context.Background(), t)
		}}
	}, atOnce},
	"looks at IDs alone": {func() *source {
		s := identifiers(func(s string) string { return s })()
		s.args = func(issuer, _ *string, _ *time.Time) bool { *issuer = "x"; return true }
		s.revoked = func(l *list, t *token) (bool, error) {
			of := *t
			of.Issuer = "x"
			return l.Revoked(context.Background(), &of)
		}
		return s
	}, atOnce},
	"revokes what is issued at the time": {func() *source {
		return &source{before: func(at *time.Time) { *at = at.Add(time.Microsecond) }}
	}, atOnce},
	"compares seconds": {func() *source {
		return &source{before: func(at *time.Time) { *at = at.Truncate(time.Second) }}
	}, atOnce},
	"does not revoke tokens without a time": {func() *source {
		return &source{revoked: func(l *list, t *token) (bool, error) {
			if t.IssuedAt.IsZero() && t.Subject != "" {
				t = &token{Issuer: t.Issuer, ID: t.ID, SessionID: t.SessionID}
			}
			return l.Revoked(context.Background(), t)
		}}
	}, atOnce},
	"looks at identifiers without case": {identifiers(strings.ToLower), lookAlike},
	"trims identifiers":                 {identifiers(strings.TrimSpace), lookAlike},
	"normalizes identifiers":            {identifiers(strings.NewReplacer("e\u0301", "é").Replace), lookAlike},
	"cuts identifiers":                  {identifiers(func(s string) string { return s[:min(len(s), 1023)] }), lookAlike},
	"ignores what has no width":         {identifiers(strings.NewReplacer("\u200d", "").Replace), lookAlike},
	"forgets where an issuer ends": {func() *source {
		return &source{
			args: func(issuer, id *string, _ *time.Time) bool { *id, *issuer = *issuer+"|"+*id, "x"; return true },
			revoked: func(l *list, t *token) (bool, error) {
				p := t.Issuer + "|"
				return l.Revoked(context.Background(), &token{Issuer: "x", ID: p + t.ID, SessionID: p + t.SessionID, Subject: p + t.Subject, IssuedAt: t.IssuedAt})
			},
		}
	}, lookAlike},
	"accepts empty IDs": {args(func(issuer, id *string, _ *time.Time) bool { return *issuer != "" && *id != "" }), "an invalid issuer or ID is an error"},
	"fails on text that it cannot keep": {func() *source {
		return &source{revoked: func(l *list, t *token) (bool, error) {
			if strings.ContainsRune(t.Issuer+t.ID+t.SessionID+t.Subject, 0) {
				return false, usher.ErrCorrupt
			}
			return l.Revoked(context.Background(), t)
		}}
	}, "an invalid issuer or ID is an error"},
	"ignores tokens with text that it cannot keep": {func() *source {
		return &source{revoked: func(l *list, t *token) (bool, error) {
			if len(t.SessionID) > 1024 {
				return false, nil
			}
			return l.Revoked(context.Background(), t)
		}}
	}, "an invalid issuer or ID is an error"},
	"cuts long IDs": {args(func(issuer, id *string, _ *time.Time) bool {
		*issuer, *id = (*issuer)[:min(len(*issuer), 1024)], (*id)[:min(len(*id), 1024)]
		return true
	}), "an invalid issuer or ID is an error"},
	"shortens a revocation": {func() *source {
		last := struct {
			sync.Mutex
			until map[string]time.Time
		}{until: map[string]time.Time{}}
		return &source{follow: func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
			return l.Follow(c, after, ready, func(r revocation) {
				last.Lock()
				if at, ok := last.until[r.Value+strconv.Itoa(int(r.Kind))]; ok {
					r.Until = at
				}
				last.Unlock()
				changed(r)
			})
		}, args: func(_, id *string, until *time.Time) bool {
			last.Lock()
			defer last.Unlock()
			for kind := range 3 {
				last.until[*id+strconv.Itoa(kind)] = *until
			}
			return true
		}}
	}, grows},
	"revokes no earlier tokens again": {changing(func(r *revocation) {
		if r.Kind == jwtauth.RevokedSubject && r.Value == "x" {
			r.IssuedBefore = r.IssuedBefore.Add(-10 * time.Second)
		}
	}), grows},
	"is ready too early": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		ready()
		return l.Follow(c, after, func() {}, changed)
	}), wholeList},
	"is ready a little too early": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		var late *revocation
		once := false
		return l.Follow(c, after, func() {
			ready()
			once = true
			if late != nil {
				changed(*late)
			}
		}, func(r revocation) {
			if !once {
				if late != nil {
					changed(*late)
				}
				late = &r
				return
			}
			changed(r)
		})
	}), wholeList},
	"is never ready": {following(func(l *list, c ctx, after string, _ func(), changed func(revocation)) error {
		return l.Follow(c, after, func() {}, changed)
	}), wholeList},
	"is ready twice": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		return l.Follow(c, after, func() { ready(); ready() }, changed)
	}), wholeList},
	"passes on a thousand at most": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		n := map[string]int{}
		return l.Follow(c, after, ready, func(r revocation) {
			if n[r.Issuer]++; n[r.Issuer] <= 256 {
				changed(r)
			}
		})
	}), wholeList},
	"passes the list on in reverse": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		var before []revocation
		began := false
		return l.Follow(c, after, func() {
			for _, r := range slices.Backward(before) {
				changed(r)
			}
			began = true
			ready()
		}, func(r revocation) {
			if began {
				changed(r)
			} else {
				before = append(before, r)
			}
		})
	}), wholeList},
	"passes on milliseconds": {changing(func(r *revocation) { r.Until = r.Until.Truncate(time.Millisecond) }), wholeList},
	"passes on seconds":      {changing(func(r *revocation) { r.IssuedBefore = r.IssuedBefore.Truncate(time.Second) }), wholeList},
	"passes on tokens alone": {changing(func(r *revocation) { r.Kind = jwtauth.RevokedToken }), wholeList},
	"passes on from goroutines": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		var wg sync.WaitGroup
		defer wg.Wait()
		return l.Follow(c, after, func() { wg.Wait(); ready() }, func(r revocation) { wg.Go(func() { changed(r) }) })
	}), wholeList},
	"passes on nothing new": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		began := false
		return l.Follow(c, after, func() { ready(); began = true }, func(r revocation) {
			if !began {
				changed(r)
			}
		})
	}), added},
	"passes on every second": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		began, n := false, 0
		return l.Follow(c, after, func() { ready(); began = true }, func(r revocation) {
			if n++; !began || n%2 == 0 {
				changed(r)
			}
		})
	}), added},
	"begins at the beginning": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		return l.Follow(c, "", ready, changed)
	}), continued},
	"begins with the position": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		if name, digits, ok := strings.Cut(after, "."); ok {
			n, err := strconv.Atoi(digits)
			if err != nil {
				return jwtauth.ErrPosition
			}
			after = name + "." + strconv.Itoa(n-1)
		}
		return l.Follow(c, after, ready, changed)
	}), continued},
	"misses what happens meanwhile": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		if after == "" {
			return l.Follow(c, after, ready, changed)
		}
		began := false
		return l.Follow(c, after, func() { ready(); began = true }, func(r revocation) {
			if began {
				changed(r)
			}
		})
	}), continued},
	"misses the first one": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		skip := after != ""
		return l.Follow(c, after, ready, func(r revocation) {
			if !skip {
				changed(r)
			}
			skip = false
		})
	}), continued},
	"has no positions": {changing(func(r *revocation) { r.Position = "" }), continued},
	"has one position": {changing(func(r *revocation) { r.Position = r.Position[:strings.Index(r.Position, ".")] + ".1" }), continued},
	"numbers before it adds": {func() *source {
		// The follower that comes and goes leaves out revocations that are added out of
		// order.
		return &source{follow: func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
			n := 0
			return l.Follow(c, after, ready, func(r revocation) {
				if n++; after != "" && n == 1 && r.Kind == jwtauth.RevokedSession && strings.HasSuffix(r.Value, "7") {
					return
				}
				changed(r)
			})
		}}
	}, "followers get one order"},
	"keeps the position of what is extended": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		first := map[string]string{}
		return l.Follow(c, after, ready, func(r revocation) {
			key := r.Issuer + "|" + r.Value
			if _, ok := first[key]; !ok {
				first[key] = r.Position
			}
			r.Position = first[key]
			changed(r)
		})
	}), extended},
	"passes on no extension": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		known := map[string]bool{}
		return l.Follow(c, after, ready, func(r revocation) {
			if key := r.Issuer + "|" + r.Value; !known[key] {
				known[key] = true
				changed(r)
			}
		})
	}), extended},
	"takes an unknown position for the beginning": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		err := l.Follow(c, after, ready, changed)
		if errors.Is(err, jwtauth.ErrPosition) {
			return l.Follow(c, "", ready, changed)
		}
		return err
	}), "an unknown position is refused"},
	"takes an unknown position for the end": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		err := l.Follow(c, after, ready, changed)
		if errors.Is(err, jwtauth.ErrPosition) {
			<-c.Done()
			return nil
		}
		return err
	}), "an unknown position is refused"},
	"outlasts its context": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		err := l.Follow(c, after, ready, changed)
		if err == nil {
			time.Sleep(3 * time.Second)
		}
		return err
	}), "a context that has ended ends the call"},
	"returns the error of its context": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		if err := l.Follow(c, after, ready, changed); err != nil {
			return err
		}
		return c.Err()
	}), "a context that has ended ends the call"},
	"passes on after it has returned": {following(func(l *list, c ctx, after string, ready func(), changed func(revocation)) error {
		go func() { //nolint:gosec // this is what is wrong
			_ = l.Follow(context.WithoutCancel(c), after, ready, changed)
		}()
		<-c.Done()
		return nil
	}), "a context that has ended ends the call"},
	"does not notice silence":        {func() *source { return &source{listServer: &listServer{patient: true}} }, silence},
	"ends without an error":          {func() *source { return &source{listServer: &listServer{gap: true}} }, silence},
	"leaves out what cannot be read": {func() *source { return &source{listServer: &listServer{readable: true}} }, "unreadable data is ErrCorrupt"},
}

func TestWrongRevocationsFail(t *testing.T) {
	storetest.WantFailures(t, "TestWrongRevocations", sources, func(w wrongSource) string { return w.fails })
}

func TestWrongRevocations(t *testing.T) {
	w := sources[storetest.Wrong(t)]
	patience()
	sessiontest.TestRevocations(t, lists(w.open))
}

// The code that the wrong lists share does not itself fail the suite.
func TestRightRevocationsPass(t *testing.T) {
	sessiontest.TestRevocations(t, lists(func() *source { return new(source) }))
}

func TestTheListInMemoryKeepsTheContract(t *testing.T) {
	l := new(list)
	sessiontest.TestRevocations(t, sessiontest.Revocations{Open: func(testing.TB) jwtauth.RevocationSource { return l }})
}
