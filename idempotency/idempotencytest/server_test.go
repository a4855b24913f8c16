package idempotencytest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/idempotency/idempotencytest"
	"github.com/usher-go/usher/internal/storetest"
)

// A server keeps the records of its clients in a Memory.
type server struct {
	wrong   string
	records *idempotency.Memory

	mu       sync.Mutex
	silence  chan struct{} // closed when the server responds again; nil while it does
	clients  []*client
	seen     map[idempotency.Key]bool
	owners   map[idempotency.Key]idempotency.Token
	poisoned map[idempotency.Key]bool
}

// A client is a store. It is right unless it is wrong in one way.
type client struct {
	*server
	records *idempotency.Memory
	done    chan struct{} // closed by Close
	closing sync.Once

	mu      sync.Mutex
	cut     bool // the reply to the next call is lost
	dead    bool
	last    idempotency.Record
	claims  map[idempotency.Key]idempotency.Record
	found   map[idempotency.Key]idempotency.Record
	delayed bool // the next call gets the last reply
}

func newServer(tb testing.TB, wrong string) *server {
	return &server{
		wrong: wrong, records: newMemory(tb),
		seen: make(map[idempotency.Key]bool), owners: make(map[idempotency.Key]idempotency.Token),
		poisoned: make(map[idempotency.Key]bool),
	}
}

func (s *server) is(wrong string) bool { return s.wrong == wrong }

func (s *server) shared() idempotencytest.Shared {
	return idempotencytest.Shared{Open: s.open, Block: s.block, Cut: s.cutReplies, Poison: s.poison}
}

func (s *server) open(tb testing.TB) idempotency.Store {
	c := &client{server: s, records: s.records, done: make(chan struct{}), claims: make(map[idempotency.Key]idempotency.Record), found: make(map[idempotency.Key]idempotency.Record)}
	if s.is("keeps its own records") {
		c.records = newMemory(tb)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = append(s.clients, c)
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *server) block(testing.TB) func() {
	silence := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silence = silence
	return func() {
		s.mu.Lock()
		s.silence = nil
		s.mu.Unlock()
		close(silence)
	}
}

func (s *server) cutReplies(testing.TB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		c.mu.Lock()
		c.cut = true
		c.mu.Unlock()
	}
}

func (s *server) poison(testing.TB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.seen {
		s.poisoned[k] = true
	}
}

// note records that there is a record of a key. It reports whether the record is
// unreadable.
func (s *server) note(k idempotency.Key) (poisoned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[k] = true
	return s.poisoned[k]
}

func (c *client) Close() error {
	c.closing.Do(func() {
		if c.is("waits for the server to close") {
			_ = c.wait(context.Background())
		}
		close(c.done)
		if c.is("closes the server") {
			_ = c.records.Close()
		}
	})
	return nil
}

// wait returns when the server responds, or with an error.
func (c *client) wait(ctx context.Context) error {
	c.server.mu.Lock()
	silence := c.silence
	c.server.mu.Unlock()
	if silence != nil && c.is("ignores its context") {
		<-silence
	}
	done := c.done
	if c.is("ends no call when it is closed") {
		done = nil
	}
	select {
	case <-c.done:
		return usher.ErrClosed
	default:
	}
	if silence == nil {
		return nil
	}
	select {
	case <-silence:
		return nil
	case <-done:
		return usher.ErrClosed
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = c.is("is dead after a silence")
	if c.is("returns the error of the context") {
		return ctx.Err()
	}
	return fmt.Errorf("no reply: %w", usher.ErrUnavailable)
}

// begin begins a call. Lost is set if its reply will be lost.
func (c *client) begin(ctx context.Context) (lost bool, err error) {
	if err := c.wait(ctx); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false, usher.ErrUnavailable
	}
	lost, c.cut = c.cut, false
	return lost, nil
}

var errReply = fmt.Errorf("the reply is lost: %w", usher.ErrUnavailable)

func (c *client) Claim(ctx context.Context, claim idempotency.Claim) (idempotency.Record, error) {
	lost, err := c.begin(ctx)
	switch {
	case errors.Is(err, usher.ErrUnavailable) && c.is("lets a claim win while the server is silent"):
		return idempotency.Record{State: idempotency.StateClaimed, Won: true, Generation: 1, Fingerprint: claim.Fingerprint}, nil
	case err != nil:
		return idempotency.Record{}, err
	}
	if c.note(claim.Key) {
		switch c.wrong {
		case "panics at what it cannot read":
			panic("bad record")
		case "returns another error for what it cannot read":
			return idempotency.Record{}, usher.ErrUnavailable
		case "takes what it cannot read for a free key":
			return idempotency.Record{State: idempotency.StateClaimed, Won: true, Generation: 1, Fingerprint: claim.Fingerprint}, nil
		case "takes what it cannot read for a tombstone":
			return idempotency.Record{State: idempotency.StateTombstone}, nil
		}
		return idempotency.Record{}, usher.ErrCorrupt
	}
	c.mu.Lock()
	cached, ok := c.claims[claim.Key]
	last, delayed := c.last, c.delayed
	c.mu.Unlock()
	if ok && c.is("caches claims") {
		return cached, nil
	}
	r, err := c.records.Claim(ctx, claim)
	if r.Won {
		c.server.mu.Lock()
		c.owners[claim.Key] = claim.Token
		c.server.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !r.Won {
		c.claims[claim.Key] = r
	}
	c.last = r
	if delayed {
		return last, nil
	}
	if !lost {
		return r, err
	}
	switch c.wrong {
	case "takes a lost reply for a free key":
		return idempotency.Record{}, nil
	case "repeats a lost claim with another token":
		claim.Token[0]++
		return c.records.Claim(ctx, claim)
	case "returns a lost reply to the next call":
		c.delayed = true
	case "has its own error for a lost reply":
		return idempotency.Record{}, errWrong
	}
	return idempotency.Record{}, errReply
}

func (c *client) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) (lost []idempotency.ClaimID, err error) {
	cut, err := c.begin(ctx)
	if err != nil {
		if c.is("returns claims as lost while the server is silent") {
			return claims, err
		}
		return nil, err
	}
	var readable []idempotency.ClaimID
	for _, id := range claims {
		switch {
		case !c.note(id.Key):
			readable = append(readable, id)
		case c.is("fails a renewal for what it cannot read"):
			return nil, usher.ErrCorrupt
		case !c.is("takes what it cannot read for renewed"):
			lost = append(lost, id)
		}
	}
	more, err := c.records.Renew(ctx, readable, lease)
	if cut {
		if c.is("returns claims as lost with a lost reply") {
			return claims, errReply
		}
		return nil, errReply
	}
	return append(lost, more...), err
}

func (c *client) Finish(ctx context.Context, end idempotency.Completion) (idempotency.State, error) {
	lost, err := c.begin(ctx)
	if err != nil {
		if c.is("returns results as kept while the server is silent") {
			return end.Result.State, nil
		}
		return 0, err
	}
	if c.note(end.Key) {
		if c.is("takes what it cannot read for a lost claim") {
			return 0, idempotency.ErrLost
		}
		return 0, usher.ErrCorrupt
	}
	kept, err := c.records.Finish(ctx, end)
	if lost {
		switch c.wrong {
		case "takes the loss of a reply for that of the claim":
			return 0, idempotency.ErrLost
		case "returns a lost result as a tombstone":
			return idempotency.StateTombstone, nil
		}
		return 0, errReply
	}
	return kept, err
}

func (c *client) Find(ctx context.Context, key idempotency.Key) (idempotency.Record, error) {
	lost, err := c.begin(ctx)
	switch {
	case err != nil && c.is("finds a record while the server is silent"):
		return idempotency.Record{State: idempotency.StateTombstone}, nil
	case err != nil:
		return idempotency.Record{}, err
	case c.note(key):
		switch c.wrong {
		case "finds what it cannot read":
			return c.records.Find(ctx, key)
		case "does not find what it cannot read":
			return idempotency.Record{}, idempotency.ErrNotFound
		}
		return idempotency.Record{}, usher.ErrCorrupt
	}
	r, err := c.records.Find(ctx, key)
	c.mu.Lock()
	defer c.mu.Unlock()
	if cached, ok := c.found[key]; ok && c.is("caches what it finds") {
		return cached, nil
	}
	if err == nil {
		c.found[key] = r
	}
	if lost {
		return idempotency.Record{}, errReply
	}
	return r, err
}

func (c *client) Delete(ctx context.Context, key idempotency.Key, generation uint64) error {
	lost, err := c.begin(ctx)
	switch {
	case err != nil && c.is("deletes a record while the server is silent"):
		return nil
	case err != nil:
		return err
	case c.note(key) && (generation != 0 && !c.is("deletes what it cannot read by any generation") || c.is("cannot delete what it cannot read")):
		return usher.ErrCorrupt
	}
	if c.is("deletes what it can read by generation 0") && generation == 0 {
		if r, err := c.records.Find(ctx, key); err == nil {
			generation = r.Generation
		}
	}
	err = c.server.delete(ctx, c.records, key, generation)
	if !lost {
		return err
	}
	switch c.wrong {
	case "has its own error for a lost deletion":
		return errWrong
	case "takes the loss of a reply for that of the record":
		return idempotency.ErrLost
	}
	return errReply
}

// delete deletes a record, which may be unreadable.
func (s *server) delete(ctx context.Context, records *idempotency.Memory, key idempotency.Key, generation uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.poisoned[key] {
		return records.Delete(ctx, key, generation)
	}
	delete(s.poisoned, key)
	end := idempotency.Completion{Key: key, Token: s.owners[key], Result: idempotency.Result{State: idempotency.StateTombstone, TTL: time.Hour}}
	_, _ = records.Finish(ctx, end) // a Memory deletes no claim with a lease
	r, err := records.Find(ctx, key)
	if err != nil {
		return nil
	}
	return records.Delete(ctx, key, r.Generation)
}

// wrongShared are the ways in which a server or its clients are wrong, with the row of
// TestShared that must fail.
var wrongShared = map[string]string{
	"keeps its own records":                              "clients see each other's claims and responses",
	"caches claims":                                      "clients see each other's claims and responses",
	"closes the server":                                  "closing a client leaves the others alone",
	"takes a lost reply for a free key":                  "a claim whose reply is lost can be repeated",
	"repeats a lost claim with another token":            "a claim whose reply is lost can be repeated",
	"returns a lost reply to the next call":              "a claim whose reply is lost can be repeated",
	"has its own error for a lost reply":                 "a claim whose reply is lost can be repeated",
	"returns claims as lost with a lost reply":           "a renewal whose reply is lost can be repeated",
	"takes the loss of a reply for that of the claim":    "a result whose reply is lost can be stored again",
	"returns a lost result as a tombstone":               "a result whose reply is lost can be stored again",
	"caches what it finds":                               "a record is found and deleted through another client",
	"has its own error for a lost deletion":              "a deletion whose reply is lost can be repeated",
	"takes the loss of a reply for that of the record":   "a deletion whose reply is lost can be repeated",
	"finds a record while the server is silent":          "no call waits for a silent server after its context has ended",
	"deletes a record while the server is silent":        "no call waits for a silent server after its context has ended",
	"finds what it cannot read":                          "a key whose record cannot be read is not free",
	"does not find what it cannot read":                  "a key whose record cannot be read is not free",
	"cannot delete what it cannot read":                  "a record that cannot be read can be deleted",
	"deletes what it cannot read by any generation":      "a record that cannot be read can be deleted",
	"deletes what it can read by generation 0":           "a record that cannot be read can be deleted",
	"ignores its context":                                "no call waits for a silent server after its context has ended",
	"returns the error of the context":                   "no call waits for a silent server after its context has ended",
	"is dead after a silence":                            "no call waits for a silent server after its context has ended",
	"lets a claim win while the server is silent":        "no call waits for a silent server after its context has ended",
	"returns claims as lost while the server is silent":  "no call waits for a silent server after its context has ended",
	"returns results as kept while the server is silent": "no call waits for a silent server after its context has ended",
	"waits for the server to close":                      "closing ends the calls that wait for a silent server",
	"ends no call when it is closed":                     "closing ends the calls that wait for a silent server",
	"panics at what it cannot read":                      "a key whose record cannot be read is not free",
	"returns another error for what it cannot read":      "a key whose record cannot be read is not free",
	"takes what it cannot read for a free key":           "a key whose record cannot be read is not free",
	"takes what it cannot read for a tombstone":          "a key whose record cannot be read is not free",
	"takes what it cannot read for a lost claim":         "a key whose record cannot be read is not free",
	"takes what it cannot read for renewed":              "a key whose record cannot be read is not free",
	"fails a renewal for what it cannot read":            "a key whose record cannot be read is not free",
}

func TestWrongShared(t *testing.T) {
	idempotencytest.TestShared(t, newServer(t, storetest.Wrong(t)).shared())
}

// Without a wrong, the clients of a server are stores like any other.
func TestServer(t *testing.T) {
	t.Parallel()
	s := newServer(t, "")
	idempotencytest.TestStore(t, s.open)
	idempotencytest.TestShared(t, s.shared())
}

func TestFunctionsThatAreNilSkipTheirTests(t *testing.T) {
	idempotencytest.TestShared(t, idempotencytest.Shared{})
}
