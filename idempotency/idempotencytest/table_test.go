package idempotencytest_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/idempotency/idempotencytest"
)

// A table is a store that is right unless it is wrong in one way. It is simpler than a
// Memory, and every step of the contract is one place where it can be wrong.
type table struct {
	wrong string
	base  time.Time

	mu          sync.Mutex
	rows        map[string]*tuple
	closed      bool
	transaction *transaction // of all, if the table is wrong so
}

// A tuple is the record of a key.
type tuple struct {
	state       idempotency.State
	token       idempotency.Token
	tokens      []idempotency.Token // all that have claimed the key
	fingerprint [32]byte
	generation  uint64
	lease       time.Duration // as claimed or renewed

	claimedUntil time.Duration // the end of the lease as claimed, since base
	leaseEnds    time.Duration // since base
	expires      time.Duration // since base
	takenOver    bool
	status       int
	payload      []byte
	locked       *transaction // by which the tuple is locked
}

func newTable(wrong string) *table {
	return &table{wrong: wrong, base: time.Now(), rows: make(map[string]*tuple)}
}

func (s *table) is(wrong string) bool { return s.wrong == wrong }

var errWrong = errors.New("wrong")

// begin locks the table for a call.
func (s *table) begin(tokens ...idempotency.Token) (now time.Duration, err error) {
	s.mu.Lock()
	now = time.Since(s.base)
	switch {
	case s.closed && !s.is("works after Close"):
		err = cmp.Or(map[string]error{"has its own error after Close": errWrong}[s.wrong], usher.ErrClosed)
	case slices.Contains(tokens, idempotency.Token{}) && !s.is("accepts an empty token") && !s.is("finishes the zero completion"):
		err = errors.New("empty token")
	}
	if err != nil {
		s.mu.Unlock()
	}
	return now, err
}

func (s *table) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && s.is("cannot be closed twice") {
		return errWrong
	}
	s.closed = true
	return nil
}

// name returns the text under which a key is stored.
func (s *table) name(k idempotency.Key) string {
	owner, name := k.Owner[:], k.Name[:]
	switch s.wrong {
	case "ignores the owner":
		owner = nil
	case "ignores the name":
		name = nil
	case "cuts owners to 31 bytes":
		owner = owner[:31]
	case "cuts names to 31 bytes":
		name = name[:31]
	case "cuts owners at a NUL":
		owner, _, _ = bytes.Cut(owner[20:], []byte{0})
		owner = append(k.Owner[:20], owner...)
	case "trims names":
		name = bytes.TrimRight(name, "\x00 ")
	case "stores keys without their case":
		owner, name = bytes.ToLower(owner), bytes.ToLower(name)
	case "stores keys as UTF-8":
		owner, name = bytes.ToValidUTF8(owner, []byte("?")), bytes.ToValidUTF8(name, []byte("?"))
	case "mistakes owners for names":
		if bytes.Compare(owner, name) < 0 {
			owner, name = name, owner
		}
	}
	return string(owner) + "/" + string(name)
}

// sameToken reports whether the tuple belongs to a token.
func (s *table) sameToken(r *tuple, t idempotency.Token) bool {
	switch s.wrong {
	case "ignores tokens":
		return true
	case "cuts tokens to 15 bytes":
		return bytes.Equal(r.token[:15], t[:15])
	case "stores tokens without their case":
		return bytes.Equal(bytes.ToLower(r.token[:]), bytes.ToLower(t[:]))
	}
	return r.token == t
}

// find returns the tuple of a key, or nil. It waits until no transaction but tx has locked
// it. The caller holds s.mu.
func (s *table) find(k idempotency.Key, tx *transaction) *tuple {
	r := s.rows[s.name(k)]
	for r != nil && r.locked != nil && r.locked != tx && !s.is("shows what is not committed") {
		s.pause()
		r = s.rows[s.name(k)]
	}
	if r != nil && r.expires <= time.Since(s.base) && !s.is("never expires a record") {
		return nil
	}
	return r
}

func (s *table) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	now, err := s.begin(c.Token)
	if err != nil {
		return idempotency.Record{}, err
	}
	defer s.mu.Unlock()
	if s.is("claims with another token after the end of the context") && ctx.Err() != nil {
		c.Token[0]++
	}
	r := s.find(c.Key, nil)
	mine := r != nil && s.sameToken(r, c.Token)
	claimed := r != nil && r.state == idempotency.StateClaimed
	released := r != nil && r.state == idempotency.StateReleased
	switch {
	case s.is("checks, then claims") && r == nil,
		s.is("checks, then takes over") && !mine && (released || claimed && s.takesLapsed(r, &c, now)),
		s.is("checks, then takes an unknown outcome over") && r != nil && s.takesUnknown(r, &c, mine):
		s.pause()
		return s.take(r, &c, now), nil
	case released && mine && c.TakeUnknown && s.is("lets a token take over what it has released"):
		return s.take(r, &c, now), nil
	case released && mine && !s.is("lets a token claim again what it has released"):
		return idempotency.Record{}, idempotency.ErrLost
	case r == nil,
		released && !s.is("keeps a released key"),
		claimed && !mine && s.takesLapsed(r, &c, now),
		r != nil && s.takesUnknown(r, &c, mine),
		claimed && s.is("lets a late owner claim again") && slices.Contains(r.tokens, c.Token) && !mine,
		r != nil && !claimed && !released && mine && s.is("lets a token claim again what it has finished"):
		return s.take(r, &c, now), nil
	case claimed && mine:
		return s.claimAgain(r, &c, now), nil
	}
	if claimed && s.is("starts the lease again for every claim") {
		r.leaseEnds = now + c.Lease
	}
	if s.is("stores the fingerprint of every claim") || c.TakeUnknown && s.is("stores the fingerprint of a claim that may take over") {
		r.fingerprint = c.Fingerprint
	}
	if claimed && r.leaseEnds <= now && s.is("releases a lapsed claim that another request finds") {
		r.state = idempotency.StateReleased
	}
	if s.is("starts the TTL again for every claim") {
		r.expires = now + c.TTL
	}
	return s.record(r, claimed && s.is("lets every claim win"), now), nil
}

// takesUnknown reports whether c takes r over, although its request may have had an effect.
func (s *table) takesUnknown(r *tuple, c *idempotency.Claim, mine bool) bool {
	same := r.fingerprint == c.Fingerprint
	unknown := r.state == idempotency.StateUnknown
	switch s.wrong {
	case "takes no unknown outcome over":
		return false
	case "takes an unknown outcome over once":
		return unknown && c.TakeUnknown && !mine && same && !r.takenOver
	case "takes an unknown outcome over unasked":
		return unknown && !mine && same
	case "takes an unknown outcome over for any request":
		same = true
	case "compares 31 bytes of a fingerprint":
		same = bytes.Equal(r.fingerprint[:31], c.Fingerprint[:31])
	case "lets a token take its own unknown outcome over":
		mine = false
	case "takes a response over":
		unknown = unknown || r.state == idempotency.StateDone
	case "takes a tombstone over":
		unknown = unknown || r.state == idempotency.StateTombstone
	case "takes a claim over before its lease has ended":
		unknown = unknown || r.state == idempotency.StateClaimed
	}
	return unknown && c.TakeUnknown && !mine && same
}

// pause lets other calls run in the middle of one.
func (s *table) pause() {
	s.mu.Unlock()
	time.Sleep(time.Millisecond)
	s.mu.Lock()
}

// takesLapsed reports whether c takes the claim r over after its lease.
func (s *table) takesLapsed(r *tuple, c *idempotency.Claim, now time.Duration) bool {
	same := r.fingerprint == c.Fingerprint
	switch s.wrong {
	case "takes a lapsed claim over for any request":
		same = true
	case "takes a lapsed claim over for any request that finds out the outcome":
		same = same || c.TakeUnknown
	case "takes a lapsed claim over for any request, once":
		same = same || !r.takenOver
	case "takes a lapsed claim that was taken over for any request":
		same = same || r.takenOver
	case "compares 31 bytes of the fingerprint of a lapsed claim":
		same = bytes.Equal(r.fingerprint[:31], c.Fingerprint[:31])
	}
	return same && s.over(r, now)
}

// over reports whether the lease of r has ended.
func (s *table) over(r *tuple, now time.Duration) bool {
	return !s.is("never lets a claim be taken over") && (r.leaseEnds <= now || s.is("lets a claim be taken over at once"))
}

// take turns r, if there is one, into the claim c.
func (s *table) take(r *tuple, c *idempotency.Claim, now time.Duration) idempotency.Record {
	old := r
	takenOver := s.takesOver(r, s.rows[s.name(c.Key)])
	unknown := r != nil && r.state == idempotency.StateUnknown
	if r == nil {
		r = &tuple{generation: 1 + uint64(now)}
		if s.is("counts generations from 1") {
			r.generation = 1
		}
		s.rows[s.name(c.Key)] = r
	} else if !s.is("keeps the generation of a claim that is taken over") && (!unknown || !s.is("keeps the generation of an unknown outcome that is taken over")) {
		r.generation++
	}
	if old == nil || !s.is("keeps the fingerprint of a released key") {
		r.fingerprint = s.storedFingerprint(c.Fingerprint)
	}
	if !s.is("keeps the payload of a released record") {
		r.status, r.payload = 0, nil
	}
	r.state, r.token, r.tokens = idempotency.StateClaimed, c.Token, append(r.tokens, c.Token)
	r.takenOver = takenOver
	r.lease, r.leaseEnds, r.claimedUntil = c.Lease, now+c.Lease, now+c.Lease
	if old == nil || !s.is("keeps the TTL of a key that is taken over") && (!unknown || !s.is("keeps the TTL of an unknown outcome that is taken over")) {
		r.expires = now + c.TTL
	}
	return s.record(r, true, now)
}

// takesOver reports whether the claim of a key takes it over from a request that may have
// had an effect: r is its tuple, or nil, and stored that even if it has expired.
func (s *table) takesOver(r, stored *tuple) bool {
	claimed := r != nil && r.state == idempotency.StateClaimed
	unknown := r != nil && r.state == idempotency.StateUnknown
	released := r != nil && r.state == idempotency.StateReleased
	switch s.wrong {
	case "says of no claim that it is taken over":
		return false
	case "says of every claim that it is taken over":
		return true
	case "says of every second takeover only":
		return (claimed || unknown) && !r.takenOver
	case "says of a released key that it is taken over":
		return claimed || unknown || released
	case "says of an expired record that it is taken over":
		return claimed || unknown || r == nil && stored != nil
	case "never forgets that a key was taken over":
		return claimed || unknown || released && r.takenOver
	case "takes an unknown outcome over, and does not say so":
		return claimed
	}
	return claimed || unknown
}

func (s *table) storedFingerprint(f [32]byte) [32]byte {
	switch s.wrong {
	case "cuts fingerprints to 16 bytes":
		clear(f[16:])
	case "cuts fingerprints at a NUL":
		if i := bytes.IndexByte(f[:], 0); i >= 0 {
			clear(f[i:])
		}
	case "stores fingerprints without their case":
		copy(f[:], bytes.ToLower(f[:]))
	}
	return f
}

func (s *table) claimAgain(r *tuple, c *idempotency.Claim, now time.Duration) idempotency.Record {
	if !s.is("leaves the lease of a repeated claim") {
		r.leaseEnds = now + c.Lease
	}
	switch s.wrong {
	case "leaves the TTL of a repeated claim":
	case "may shorten the TTL of a repeated claim":
		r.expires = now + c.TTL
	default:
		r.expires = max(r.expires, now+c.TTL)
	}
	if s.is("gives a repeated claim a new generation") {
		r.generation++
	}
	if s.is("forgets with a repeated claim that it was taken over") {
		r.takenOver = false
	}
	return s.record(r, !s.is("takes a repeated claim for that of another"), now)
}

func (s *table) record(r *tuple, won bool, now time.Duration) idempotency.Record {
	out := idempotency.Record{
		State: r.state, Won: won, TakenOver: won && r.takenOver, Generation: r.generation, Fingerprint: r.fingerprint,
		Status: r.status, Payload: r.payload,
	}
	if r.state == idempotency.StateClaimed {
		out.Lease = max(r.leaseEnds-now, 0)
		if s.is("returns the whole lease") {
			out.Lease = r.lease
		}
	} else {
		out.TakenOver = false
	}
	switch s.wrong {
	case "returns a negative lease to claims":
		if r.state == idempotency.StateClaimed {
			out.Lease = r.leaseEnds - now
		}
	case "returns to every claim that another is taken over":
		out.TakenOver = r.takenOver
	case "returns a takeover as the status of a claim":
		if r.takenOver && r.state == idempotency.StateClaimed {
			out.Status = 1
		}
	case "returns the TTL to claims":
		out.TTL = r.expires - now
	}
	return out
}

func (s *table) Renew(_ context.Context, claims []idempotency.ClaimID, lease time.Duration) (lost []idempotency.ClaimID, err error) {
	tokens := make([]idempotency.Token, len(claims))
	for i, c := range claims {
		tokens[i] = c.Token
	}
	now, err := s.begin(tokens...)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if len(claims) == 0 && s.is("refuses a call without claims") {
		return nil, errWrong
	}
	var renewed []idempotency.ClaimID
	for i, c := range claims {
		switch {
		case s.is("renews only the first claim") && i > 0, s.is("renews only the last claim") && i < len(claims)-1,
			s.is("stops at a lost claim") && len(lost) > 0, s.is("renews at most 10 claims") && i >= 10:
		case s.renew(c, now, lease):
			renewed = append(renewed, c)
		default:
			lost = append(lost, c)
		}
	}
	if len(lost) == 0 {
		return nil, nil
	}
	switch s.wrong {
	case "fails if a claim is lost":
		return nil, idempotency.ErrLost
	case "returns no lost claim":
		return nil, nil
	case "returns the first lost claim only":
		return lost[:1], nil
	case "returns all claims if one is lost":
		return claims, nil
	case "returns the claims that are not lost":
		return renewed, nil
	case "returns the wrong claims as lost":
		return claims[:len(lost)], nil
	case "returns the claims of lost keys":
		for _, c := range claims {
			if slices.ContainsFunc(lost, func(l idempotency.ClaimID) bool { return l.Key == c.Key && l != c }) {
				lost = append(lost, c)
			}
		}
	case "returns lost claims twice":
		return append(lost, lost...), nil
	}
	return lost, nil
}

// renew renews one claim. It returns false if the claim is lost.
func (s *table) renew(c idempotency.ClaimID, now, lease time.Duration) bool {
	r := s.find(c.Key, nil)
	if r == nil && s.is("renews an expired record") {
		if r = s.rows[s.name(c.Key)]; r != nil {
			r.expires = now + lease
		}
	}
	if r == nil {
		return false
	}
	mine, claimed := s.sameToken(r, c.Token), r.state == idempotency.StateClaimed
	switch {
	case !mine && s.is("renews the claims of other tokens, and returns them as lost"):
		r.leaseEnds = now + lease
		return false
	case !mine && s.is("renews the claims of other tokens"), !claimed && mine && s.is("renews finished claims"):
	case !claimed && mine && s.is("claims what it renews"):
		r.state, r.payload = idempotency.StateClaimed, nil
		return false
	case !mine || !claimed, r.leaseEnds <= now && s.is("loses a claim with its lease"):
		return false
	}
	switch s.wrong {
	case "adds to a lease that is renewed":
		r.leaseEnds += lease
	case "does not shorten a lease that is renewed":
		r.leaseEnds = max(r.leaseEnds, now+lease)
	default:
		r.leaseEnds = now + lease
	}
	switch s.wrong {
	case "leaves the TTL of a claim that is renewed":
	case "ends the record with a lease that is renewed":
		r.expires = r.leaseEnds
	default:
		r.expires = max(r.expires, r.leaseEnds)
	}
	if s.is("forgets with a renewal that a claim was taken over") {
		r.takenOver = false
	}
	return true
}

func (s *table) Finish(_ context.Context, c idempotency.Completion) (idempotency.State, error) {
	now, err := s.begin(c.Token)
	if err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	if c.IsZero() && s.is("finishes the zero completion") {
		return 0, nil
	}
	return s.finish(s.find(c.Key, nil), c, now)
}

// finish ends a claim. The caller holds s.mu.
func (s *table) finish(r *tuple, c idempotency.Completion, now time.Duration) (idempotency.State, error) {
	state := c.Result.State
	if state < idempotency.StateDone || state > idempotency.StateUnknown {
		switch s.wrong {
		case "accepts any state":
		case "releases the key of a bad result":
			delete(s.rows, s.name(c.Key))
			return 0, errWrong
		default:
			return 0, errors.New("bad state")
		}
	}
	if r == nil && s.is("finishes an expired claim") {
		r = s.rows[s.name(c.Key)]
	}
	if r == nil && s.is("makes the record that it finishes") {
		r = &tuple{state: idempotency.StateClaimed, token: c.Token, generation: 1}
		s.rows[s.name(c.Key)] = r
	}
	unfenced := s.is("lets any token finish") || s.is("lets any token release") && state == idempotency.StateReleased
	if r == nil || !s.sameToken(r, c.Token) && !unfenced || s.is("loses a claim with its lease") && r.leaseEnds <= now {
		return 0, idempotency.ErrLost
	}
	if s.is("checks, then finishes") {
		was := r.state
		s.pause()
		if was == idempotency.StateClaimed {
			r.state = was
		}
	}
	if r.state != idempotency.StateClaimed {
		switch s.wrong {
		case "cannot finish twice":
			return 0, idempotency.ErrLost
		case "returns the state of the result again":
			return state, nil
		case "returns no state again":
			return 0, nil
		case "starts the TTL again when it finishes again":
			r.expires = now + c.Result.TTL
			return r.state, nil
		case "finishes again":
		default:
			return r.state, nil
		}
	}
	s.end(r, c.Result, now)
	switch s.wrong {
	case "always returns that the response is kept":
		return idempotency.StateDone, nil
	case "returns no state":
		return 0, nil
	case "returns a tombstone for a response":
		if state == idempotency.StateDone {
			return idempotency.StateTombstone, nil
		}
	case "forgets a released key":
		if state == idempotency.StateReleased {
			delete(s.rows, s.name(c.Key))
		}
	}
	return state, nil
}

// end writes the result of a claim.
func (s *table) end(r *tuple, result idempotency.Result, now time.Duration) {
	r.state, r.status, r.payload = result.State, result.Status, nil
	if !s.is("keeps the TTL of the claim") {
		r.expires = now + result.TTL
	}
	bodiless := result.State != idempotency.StateDone
	switch {
	case bodiless && s.is("keeps a payload with any state"), s.is("keeps the payload of a released record"):
		r.payload = bytes.Clone(result.Payload)
	case !bodiless && s.is("retains the payload"):
		r.payload = result.Payload
	case !bodiless:
		r.payload = s.storedPayload(result.Payload)
	}
	switch s.wrong {
	case "stores unknown as done":
		r.state = change(r.state, idempotency.StateUnknown, idempotency.StateDone)
	case "stores unknown as a tombstone":
		r.state = change(r.state, idempotency.StateUnknown, idempotency.StateTombstone)
	case "stores a tombstone as done":
		r.state = change(r.state, idempotency.StateTombstone, idempotency.StateDone)
	case "stores a tombstone as unknown":
		r.state = change(r.state, idempotency.StateTombstone, idempotency.StateUnknown)
	case "stores an empty payload as a tombstone":
		if len(r.payload) == 0 {
			r.state = change(r.state, idempotency.StateDone, idempotency.StateTombstone)
		}
	case "stores no status":
		r.status = 0
	case "stores a status in a byte":
		r.status = int(uint8(r.status)) //nolint:gosec // wrong on purpose
	case "stores the status of responses only":
		if bodiless {
			r.status = 0
		}
	}
}

func change(state, from, to idempotency.State) idempotency.State {
	if state == from {
		return to
	}
	return state
}

func (s *table) storedPayload(p []byte) []byte {
	switch s.wrong {
	case "cuts payloads at a NUL":
		p, _, _ = bytes.Cut(p, []byte{0})
	case "stores payloads as UTF-8":
		p = []byte(strings.ToValidUTF8(string(p), "?"))
	case "trims payloads":
		p = bytes.TrimSpace(p)
	case "stores payloads as JSON":
		var b bytes.Buffer
		if json.Compact(&b, p) == nil {
			p = b.Bytes()
		}
	case "cuts payloads to 64 KiB":
		p = p[:min(len(p), 64<<10)]
	}
	return bytes.Clone(p)
}

// Without a wrong, the table is a store like any other.
func TestTable(t *testing.T) {
	t.Parallel()
	idempotencytest.TestStore(t, func(testing.TB) idempotency.Store { return newTable("") })
}
