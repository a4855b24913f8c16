package idempotencytest

import (
	"github.com/anishathalye/porcupine"

	"github.com/usher-go/usher/idempotency"
)

type operation uint8

const (
	claim operation = iota
	renew
	finish
	find
	remove
)

// An input is a call.
type input struct {
	op    operation
	key   int
	token int
	brief bool              // the lease ends at once
	take  bool              // an unknown outcome is taken over
	state idempotency.State // of a finish
	text  string            // its payload

	generation uint64 // of a deletion
}

// An output is what a call returned.
type output struct {
	failed     bool // with an unknown error
	unseen     bool // the call took effect, and its result was lost
	lost       bool
	notFound   bool
	won        bool
	takenOver  bool
	state      idempotency.State
	generation uint64
	text       string

	fingerprint [32]byte // of a record
}

// A state is a record in the model.
type state struct {
	state      idempotency.State // 0 for none
	token      int
	generation uint64
	vague      bool // the generation is greater than this; no call has returned it yet
	brief      bool // the lease may have ended
	takenOver  bool // of a claim
	text       string
}

// model is the contract for one key.
var model = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, keys)
		for _, o := range history {
			k := o.Input.(input).key
			parts[k] = append(parts[k], o)
		}
		return parts
	},
	Init: func() []any { return []any{state{}} },
	Step: func(before, in, out any) []any {
		return step(before.(state), in.(input), out.(output))
	},
	Equal: func(a, b any) bool { return a == b },
}

// step returns the possible states of the record after a call that returned out. There
// are none if the contract does not allow out.
func step(s state, in input, out output) []any {
	if out.failed {
		return append([]any{s}, stepUnseen(s, in)...) // it may have happened or not
	}
	switch in.op {
	case claim:
		return stepClaim(s, in, out)
	case renew:
		return stepRenew(s, in, out)
	case finish:
		return stepFinish(s, in, out)
	case find:
		return stepFind(s, out)
	default:
		return stepRemove(s, in, out)
	}
}

// stepUnseen returns the possible states after a call that took effect, but whose result
// was lost.
func stepUnseen(s state, in input) []any {
	switch in.op {
	case claim:
	case find:
		return nil // it has changed nothing
	default:
		return step(s, in, output{unseen: true})
	}
	out := output{unseen: true, won: true, state: idempotency.StateClaimed, generation: s.generation}
	if s.state != idempotency.StateClaimed || s.token != in.token {
		out.generation++
	}
	after := stepClaim(s, in, out)
	for i := range after {
		taken := after[i].(state)
		taken.vague = taken.generation > s.generation || s.vague
		taken.generation = s.generation
		after[i] = taken
	}
	return after
}

func stepClaim(s state, in input, out output) []any {
	mine := s.state != 0 && s.token == in.token
	unknown := s.state == idempotency.StateUnknown
	takes := unknown && in.take && !mine && s.same(in)
	if out.lost {
		return keepIf(s, mine && s.state == idempotency.StateReleased)
	}
	if !out.won {
		inFlight := s.state == idempotency.StateClaimed && !mine
		ended := s.state == idempotency.StateDone || s.state == idempotency.StateTombstone || unknown && !takes
		return keepIf(s.seen(out), s.shows(out) && (inFlight || ended))
	}
	taken := state{state: idempotency.StateClaimed, token: in.token, generation: out.generation, brief: in.brief}
	allowed := out.generation > s.generation
	switch {
	case out.state != idempotency.StateClaimed || out.text != "" || out.fingerprint != fingerprint(in.token) && !out.unseen:
		return nil
	case s.state == idempotency.StateClaimed && mine:
		taken.takenOver = s.takenOver
		allowed = s.has(out.generation)
	case s.state == 0, s.state == idempotency.StateReleased && !mine:
	case s.state == idempotency.StateClaimed && s.brief && s.same(in), takes:
		taken.takenOver = true
	default:
		return nil
	}
	return keepIf(taken, allowed && (out.unseen || out.takenOver == taken.takenOver))
}

// same reports whether the claim in is for the same request as s.
func (s state) same(in input) bool { return fingerprint(s.token) == fingerprint(in.token) }

// has reports whether the generation of s may be this one.
func (s state) has(generation uint64) bool {
	if s.vague {
		return generation > s.generation
	}
	return generation == s.generation
}

// shows reports whether out may be the record s, as a call that has not won it returns it.
func (s state) shows(out output) bool {
	return s.has(out.generation) && out.state == s.state && out.text == s.text && out.fingerprint == fingerprint(s.token) &&
		!out.won && !out.takenOver
}

// seen returns s with the generation of out.
func (s state) seen(out output) state {
	s.generation, s.vague = out.generation, false
	return s
}

// free reports whether the key of s is free.
func (s state) free() bool { return s.state == 0 || s.state == idempotency.StateReleased }

func stepFind(s state, out output) []any {
	if out.notFound {
		return keepIf(s, s.free())
	}
	return keepIf(s.seen(out), !out.lost && !s.free() && s.shows(out))
}

func stepRemove(s state, in input, out output) []any {
	running := s.state == idempotency.StateClaimed && !s.brief
	switch {
	case out.notFound:
		return keepIf(s, s.free())
	case out.lost:
		// The lease of a claim that was brief may not have ended yet.
		return keepIf(s, !s.free() && (s.vague || s.generation != in.generation || s.state == idempotency.StateClaimed))
	default:
		// Later generations may be those of a clock that has not moved.
		return keepIf(state{}, !s.free() && s.has(in.generation) && !running)
	}
}

func stepRenew(s state, in input, out output) []any {
	if s.state != idempotency.StateClaimed || s.token != in.token {
		return keepIf(s, out.lost)
	}
	s.brief = in.brief
	return keepIf(s, !out.lost)
}

func stepFinish(s state, in input, out output) []any {
	switch {
	case s.state == 0 || s.token != in.token:
		return keepIf(s, out.lost)
	case s.state == idempotency.StateClaimed:
		s.state, s.text, s.brief = in.state, "", false
		if in.state == idempotency.StateDone {
			s.text = in.text
		}
	}
	return keepIf(s, !out.lost && (out.unseen || out.state == s.state))
}

func keepIf(s state, allowed bool) []any {
	if !allowed {
		return nil
	}
	return []any{s}
}
