package usherredis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// records is the store of package idempotency.
type records struct {
	store
	tag   string
	clock clock
}

var (
	errNoToken = errors.New("usherredis: empty token")
	errResult  = errors.New("usherredis: a claim cannot end in this state")
	errRenew   = fmt.Errorf("usherredis: more than %d claims in one call", idempotency.MaxRenew)
)

// key returns the key of a record. It has a fixed length.
func (s *records) key(k *idempotency.Key) string {
	const part = "record:"
	b := make([]byte, 0, maxPrefix+16+len(k.Owner)+len(k.Name))
	b = append(append(b, s.tag...), part...)
	b = append(append(b, k.Owner[:]...), k.Name[:]...)
	return string(b)
}

// Claim implements [idempotency.Store].
func (s *records) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Record, error) {
	if c.Token == (idempotency.Token{}) {
		return idempotency.Record{}, errNoToken
	}
	takeUnknown := ""
	if c.TakeUnknown {
		takeUnknown = "1"
	}
	won, lease, value, err := s.record(ctx, claimScript, &c.Key, []string{
		s.clock.time(), string(c.Token[:]), string(c.Fingerprint[:]), micros(c.Lease), micros(c.TTL), takeUnknown,
	})
	if err != nil {
		return idempotency.Record{}, err
	}
	r, ok := parse(value, time.Duration(lease)*time.Microsecond)
	if !ok {
		return idempotency.Record{}, unexpected()
	}
	r.Won = won == 1
	r.TakenOver = r.TakenOver && r.Won
	return r, nil
}

// Find implements [idempotency.Store].
func (s *records) Find(ctx context.Context, key idempotency.Key) (idempotency.Record, error) {
	lease, ttl, value, err := s.record(ctx, findScript, &key, []string{s.clock.time()})
	if err != nil {
		return idempotency.Record{}, err
	}
	r, ok := parse(value, time.Duration(lease)*time.Microsecond)
	if !ok {
		return idempotency.Record{}, unexpected()
	}
	r.TakenOver, r.TTL = false, max(time.Duration(ttl)*time.Millisecond, 0)
	return r, nil
}

// record runs a script that returns two numbers and a record.
func (s *records) record(ctx context.Context, script *rueidis.Lua, key *idempotency.Key, args []string) (a, b int64, value string, err error) {
	m, err := s.run(ctx, script, []string{s.key(key)}, args)
	if err != nil {
		return 0, 0, "", recordError(err)
	}
	reply, err := m.ToArray()
	if err != nil || len(reply) != 3 {
		return 0, 0, "", unexpected()
	}
	a, err = reply[0].ToInt64()
	b, err2 := reply[1].ToInt64()
	value, err3 := reply[2].ToString()
	if err := errors.Join(err, err2, err3); err != nil {
		return 0, 0, "", unexpected()
	}
	return a, b, value, nil
}

// Delete implements [idempotency.Store].
func (s *records) Delete(ctx context.Context, key idempotency.Key, generation uint64) error {
	_, err := s.run(ctx, deleteScript, []string{s.key(&key)}, []string{
		s.clock.time(), string(binary.BigEndian.AppendUint64(nil, generation)),
	})
	if err != nil {
		return recordError(err)
	}
	return nil
}

// Positions in a record: see record.lua.
const (
	stateAt       = 1
	fingerprintAt = 18
	generationAt  = 50
	statusAt      = 66
	payloadAt     = 74
)

// parse reads a record that the script has checked.
func parse(value string, lease time.Duration) (r idempotency.Record, ok bool) {
	if len(value) < payloadAt {
		return r, false
	}
	header := []byte(value[:payloadAt])
	r.State = idempotency.State(header[stateAt])
	copy(r.Fingerprint[:], header[fingerprintAt:])
	r.Generation = binary.BigEndian.Uint64(header[generationAt:])
	r.Status = int(binary.BigEndian.Uint32(header[statusAt:]))
	if r.State == idempotency.StateClaimed {
		r.Lease, r.TakenOver, r.Status = max(lease, 0), r.Status != 0, 0
	}
	if len(value) > payloadAt {
		r.Payload = []byte(value[payloadAt:])
	}
	return r, true
}

// Renew implements [idempotency.Store].
func (s *records) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) (lost []idempotency.ClaimID, err error) {
	if len(claims) > idempotency.MaxRenew {
		return nil, errRenew
	}
	keys, args := make([]string, len(claims)), make([]string, 0, len(claims)+2)
	args = append(args, s.clock.time(), micros(lease))
	for i := range claims {
		c := &claims[i]
		if c.Token == (idempotency.Token{}) {
			return nil, errNoToken
		}
		keys[i] = s.key(&c.Key)
		args = append(args, string(c.Token[:]))
	}
	renewed, err := s.integers(ctx, extendScript, keys, args, len(keys))
	if err != nil {
		return nil, recordError(err)
	}
	for i, n := range renewed {
		if n == 0 {
			lost = append(lost, claims[i])
		}
	}
	return lost, nil
}

// Finish implements [idempotency.Store].
func (s *records) Finish(ctx context.Context, c idempotency.Completion) (kept idempotency.State, err error) {
	switch r := &c.Result; {
	case c.Token == (idempotency.Token{}):
		return 0, errNoToken
	case r.State <= idempotency.StateClaimed || r.State > idempotency.StateUnknown || r.Status < 0:
		return 0, errResult
	case r.State != idempotency.StateDone:
		r.Payload = nil
	}
	script := finishScript
	if len(c.Result.Payload) == 0 {
		script = endScript
	}
	kept, err = s.finish(ctx, script, &c)
	if errors.Is(err, usher.ErrFull) && len(c.Result.Payload) > 0 {
		c.Result.State, c.Result.Payload = idempotency.StateTombstone, nil
		kept, err = s.finish(ctx, endScript, &c)
	}
	return kept, err
}

func (s *records) finish(ctx context.Context, script *rueidis.Lua, c *idempotency.Completion) (idempotency.State, error) {
	r := &c.Result
	m, err := s.run(ctx, script, []string{s.key(&c.Key)}, []string{
		// A command may be sent after its call has ended, so it needs a copy of the
		// payload.
		string(c.Token[:]), strconv.Itoa(int(r.State)), strconv.Itoa(r.Status), micros(r.TTL), string(r.Payload),
	})
	if err != nil {
		return 0, recordError(err)
	}
	kept, err := m.ToInt64()
	if err != nil || kept <= int64(idempotency.StateClaimed) || kept > int64(idempotency.StateUnknown) {
		return 0, unexpected()
	}
	return idempotency.State(kept), nil
}

// recordError returns the error of a call for a record.
func recordError(err error) error {
	switch replyCode(err) {
	case "LOST":
		return idempotency.ErrLost
	case "NONE":
		return idempotency.ErrNotFound
	case "CORRUPT", "WRONGTYPE":
		return corrupt("an idempotency record")
	}
	return err
}
