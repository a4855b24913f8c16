package idempotencytest_test

import (
	"context"
	"errors"
	"time"

	"github.com/usher-go/usher/idempotency"
)

// get returns the tuple of a key that is not free, or nil. The caller holds s.mu.
func (s *table) get(k idempotency.Key) *tuple {
	r := s.find(k, nil)
	if r != nil && r.state == idempotency.StateReleased {
		return nil
	}
	return r
}

func (s *table) Find(_ context.Context, key idempotency.Key) (idempotency.Record, error) {
	now, err := s.begin()
	if err != nil {
		if s.is("finds records after Close") {
			return idempotency.Record{State: idempotency.StateTombstone}, nil
		}
		return idempotency.Record{}, err
	}
	defer s.mu.Unlock()
	r := s.get(key)
	switch s.wrong {
	case "finds a released record":
		r = s.find(key, nil)
	case "finds an expired record":
		if r == nil {
			r = s.rows[s.name(key)]
		}
	case "finds a zero record of a free key":
		if r == nil {
			return idempotency.Record{}, nil
		}
	case "returns ErrLost if it finds nothing":
		if r == nil {
			return idempotency.Record{}, idempotency.ErrLost
		}
	}
	if r == nil || s.hides(r, now) {
		return idempotency.Record{}, idempotency.ErrNotFound
	}
	switch s.wrong {
	case "starts the lease again when it finds a claim":
		r.leaseEnds = max(r.leaseEnds, now+time.Minute)
	case "starts the TTL again when it finds a record":
		r.expires = max(r.expires, now+time.Minute)
	case "releases a claim that it finds after its lease":
		if r.state == idempotency.StateClaimed && r.leaseEnds <= now {
			r.state = idempotency.StateReleased
		}
	case "takes what it finds":
		r.token[0]++
	}
	return s.foundRecord(r, now), nil
}

// hides reports whether a table that is wrong does not find r.
func (s *table) hides(r *tuple, now time.Duration) bool {
	claimed := r.state == idempotency.StateClaimed
	return claimed && s.is("finds no claim") || claimed && r.leaseEnds <= now && s.is("finds no claim whose lease has ended") ||
		r.state == idempotency.StateTombstone && s.is("finds no tombstone") ||
		r.state == idempotency.StateUnknown && s.is("finds no unknown outcome")
}

func (s *table) foundRecord(r *tuple, now time.Duration) idempotency.Record {
	out := s.record(r, false, now)
	out.TTL = r.expires - now
	switch s.wrong {
	case "finds records as won":
		out.Won = true
	case "finds claims as taken over":
		out.TakenOver = r.takenOver
	case "finds no payload":
		out.Payload = nil
	case "finds no status":
		out.Status = 0
	case "finds no fingerprint":
		out.Fingerprint = [32]byte{}
	case "finds no generation":
		out.Generation = 0
	case "finds no lease":
		out.Lease = 0
	case "finds a negative lease":
		if r.state == idempotency.StateClaimed {
			out.Lease = r.leaseEnds - now
		}
	case "finds no TTL":
		out.TTL = 0
	case "finds the whole TTL":
		out.TTL = time.Duration(float64(out.TTL+time.Minute/2)/float64(time.Minute)) * time.Minute
	}
	return out
}

func (s *table) Delete(_ context.Context, key idempotency.Key, generation uint64) error {
	now, err := s.begin()
	if err != nil {
		if s.is("deletes records after Close") {
			return nil
		}
		return err
	}
	defer s.mu.Unlock()
	var r *tuple
	if s.is("deletes what is not committed") {
		r = s.rows[s.name(key)]
	} else {
		r = s.get(key)
	}
	running := r != nil && r.state == idempotency.StateClaimed && r.leaseEnds > now
	if r == nil {
		switch s.wrong {
		case "deletes a free key":
			return nil
		case "returns ErrLost if it has nothing to delete":
			return idempotency.ErrLost
		case "deletes a released record":
			delete(s.rows, s.name(key))
		}
		return idempotency.ErrNotFound
	}
	switch s.wrong {
	case "deletes a running claim":
		running = false
	case "deletes a claim by the lease that it was claimed with":
		running = running && r.claimedUntil > now
	}
	other := r.generation != generation
	switch s.wrong {
	case "deletes any generation":
		other = false
	case "deletes every generation before the one that is named":
		other = r.generation > generation
	case "deletes every generation after the one that is named":
		other = r.generation < generation
	case "deletes any record by generation 0":
		other = other && generation != 0
	case "compares 32 bits of generations":
		other = uint32(r.generation) != uint32(generation) //nolint:gosec // wrong on purpose
	}
	if running || other {
		return s.refuseDeletion(r, running)
	}
	if s.is("checks, then deletes") {
		s.pause()
	}
	return s.delete(r, key, now)
}

func (s *table) refuseDeletion(r *tuple, running bool) error {
	switch {
	case running && s.is("returns ErrNotFound for a running claim"), !running && s.is("returns ErrNotFound for another generation"):
		return idempotency.ErrNotFound
	case running && s.is("ends the lease of a claim that it does not delete"):
		r.leaseEnds = 0
	case !running && s.is("forgets the response that it does not delete"):
		r.payload = nil
	}
	return idempotency.ErrLost
}

func (s *table) delete(r *tuple, key idempotency.Key, now time.Duration) error {
	switch s.wrong {
	case "deletes nothing":
		return nil
	case "releases what it deletes":
		r.state = idempotency.StateReleased
		return nil
	case "keeps a tombstone of what it deletes":
		r.state, r.payload = idempotency.StateTombstone, nil
		return nil
	case "lets what it deletes expire":
		r.expires = now + short
		return nil
	case "deletes all records of the owner", "deletes all records of the name":
		for name := range s.rows {
			if s.is("deletes all records of the owner") && name[:32] == string(key.Owner[:]) || s.is("deletes all records of the name") && name[33:] == string(key.Name[:]) {
				delete(s.rows, name)
			}
		}
	}
	for wrong, state := range map[string]idempotency.State{
		"cannot delete a response": idempotency.StateDone, "cannot delete a tombstone": idempotency.StateTombstone,
		"cannot delete an unknown outcome": idempotency.StateUnknown, "cannot delete a claim": idempotency.StateClaimed,
	} {
		if s.is(wrong) && r.state == state {
			return errors.New("it is in use")
		}
	}
	if r.takenOver && s.is("cannot delete a claim that was taken over") {
		return idempotency.ErrLost
	}
	delete(s.rows, s.name(key))
	return nil
}

const short = 30 * time.Millisecond
