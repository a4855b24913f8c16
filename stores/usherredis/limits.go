package usherredis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/usher-go/usher/ratelimit"
)

// limits is the store of package ratelimit. usage.lua describes what it stores and how it
// decides.
type limits struct {
	store
	tag   string
	clock clock
}

const maxCharges = 16

var (
	errTwice    = errors.New("usherredis: a policy occurs twice in one decision")
	errCharges  = fmt.Errorf("usherredis: more than %d policies in one decision", maxCharges)
	errNoID     = errors.New("usherredis: the decision has no ID")
	errReused   = errors.New("usherredis: two different calls have the same ID")
	errCounters = fmt.Errorf("usherredis: more than %d counters in one call", ratelimit.MaxRenew)
	errPlaces   = fmt.Errorf("usherredis: more than %d places in one call", ratelimit.MaxRenew)
)

// errApart is returned if neither window of the caller contains the present time.
func errApart(policy string) error {
	return fmt.Errorf("usherredis: policy %q: the clocks of this process and of the server are too far apart: "+
		"the time of the server is in neither of the two calendar windows", policy)
}

// check returns an error for a decision that breaks the contract.
func check(d *ratelimit.Decision) error {
	switch {
	case len(d.Charges) > maxCharges:
		return errCharges
	case d.ID == (ratelimit.ID{}):
		return errNoID
	}
	for i := range d.Charges {
		for j := range i {
			if d.Charges[i].Policy == d.Charges[j].Policy {
				return errTwice
			}
		}
	}
	return nil
}

// Take implements [ratelimit.Store].
func (s *limits) Take(ctx context.Context, d *ratelimit.Decision) error {
	if err := check(d); err != nil {
		return err
	}
	admitted := true
	var asked [maxCharges]int // the indexes of the charges that the script decides
	n := 0
	for i := range d.Charges {
		c := &d.Charges[i]
		c.TakenBy, c.TakenAt = d.ID, 0
		if c.Limit.Quota() > 0 {
			asked[n] = i
			n++
			continue
		}
		// Such a limit has no state.
		need := max(c.Cost, c.MinRemaining)
		c.Violated = need > 0 && c.Limit.Algorithm() != ratelimit.AlgorithmUnlimited
		c.Remaining, c.Reset, c.Wait = 0, 0, 0
		if c.Violated {
			c.Wait = never
			admitted = admitted && c.Shadow
		}
	}

	a := s.arguments(d, asked[:n])
	a.id(d.ID)
	a.may(admitted, d.Peek)
	for _, i := range asked[:n] {
		c := &d.Charges[i]
		a.limit(&c.Limit)
		a.number(c.Cost)
		a.number(max(c.Cost, c.MinRemaining))
		a.how(c)
		a.extra(c)
	}
	const kind, first, fields = 1, 3, 4
	results, err := s.decide(ctx, takeScript, a, d, asked[:n], first+n*fields)
	if err != nil {
		return err
	}
	if results == nil {
		d.Admitted = admitted
		return nil
	}
	if results[0] != kind {
		return unexpected()
	}
	d.Admitted = results[1] == 1
	for at, i := range asked[:n] {
		c, r := &d.Charges[i], results[first+at*fields:]
		c.TakenAt = results[2]
		c.Violated, c.Remaining = r[0] == 1, r[1]
		c.Reset, c.Wait = duration(r[2]), duration(r[3])
	}
	return nil
}

const never time.Duration = -1

// duration returns a duration of a script, which is negative for never.
func duration(micros int64) time.Duration {
	if micros < 0 {
		return never
	}
	return time.Duration(micros) * time.Microsecond
}

// Adjust implements [ratelimit.Store].
func (s *limits) Adjust(ctx context.Context, d *ratelimit.Decision) error {
	if err := check(d); err != nil {
		return err
	}
	var asked [maxCharges]int
	n := 0
	for i := range d.Charges {
		d.Charges[i].Moved = 0
		if d.Charges[i].Limit.Quota() > 0 {
			asked[n] = i
			n++
		}
	}

	a := s.arguments(d, asked[:n])
	for _, i := range asked[:n] {
		c := &d.Charges[i]
		a.limit(&c.Limit)
		a.number(c.Cost)
		a.what(c)
		a.id(c.TakenBy)
		a.extra(c)
	}
	const kind, first = 2, 1
	results, err := s.decide(ctx, adjustScript, a, d, asked[:n], first+n)
	if err != nil || results == nil {
		return err
	}
	if results[0] != kind {
		return unexpected()
	}
	for at, i := range asked[:n] {
		d.Charges[i].Moved = results[first+at]
	}
	return nil
}

// decide runs a script for the charges of d with the indexes asked, and returns its n
// results. It returns nil if no charges are asked about.
func (s *limits) decide(ctx context.Context, script *rueidis.Lua, a *arguments, d *ratelimit.Decision, asked []int, n int) ([]int64, error) {
	if len(asked) == 0 {
		if s.ctx.Err() != nil {
			return nil, errClosed
		}
		return nil, nil
	}
	words := a.list()
	m, err := s.run(ctx, script, words[:len(asked)+1], words[len(asked)+1:])
	if err != nil {
		return nil, limitError(err, d, asked)
	}
	results, err := m.AsIntSlice()
	if err != nil || len(results) != n {
		return nil, unexpected()
	}
	return results, nil
}

// limitError returns the error of a decision. The error names the policy if it concerns
// one.
func limitError(err error, d *ratelimit.Decision, asked []int) error {
	code, n := replyCode(err), replyNumber(err)
	policy := ""
	if n >= 1 && n <= len(asked) {
		policy = d.Charges[asked[n-1]].Policy
	}
	switch {
	case code == "REUSED":
		return errReused
	case code == "APART":
		return errApart(policy)
	case code == "LIMIT":
		return fmt.Errorf("usherredis: policy %q: a limit with a quota or a burst above 1e9", policy)
	case code == "CORRUPT" && policy != "":
		return corrupt("policy " + strconv.Quote(policy))
	case code == "CORRUPT":
		return corrupt("the results of an earlier call")
	}
	return err
}

// Renew implements [ratelimit.Store].
func (s *limits) Renew(ctx context.Context, places []ratelimit.Place, lease time.Duration) (lost []ratelimit.Place, err error) {
	if len(places) > ratelimit.MaxRenew {
		return nil, errPlaces
	}
	a := new(arguments)
	for i := range places {
		p := &places[i]
		a.key(s.tag, "places:", p.Policy, p.Key.Digest())
		a.key(s.tag, "limit:", p.Policy, p.Key.Digest())
	}
	a.word(s.clock.time())
	a.number(microseconds(lease))
	for i := range places {
		a.id(places[i].TakenBy)
	}
	words := a.list()
	renewed, err := s.integers(ctx, renewScript, words[:2*len(places)], words[2*len(places):], len(places))
	if err != nil {
		return nil, err
	}
	for i, n := range renewed {
		if n == 0 {
			lost = append(lost, places[i])
		}
	}
	return lost, nil
}

// Reset implements [ratelimit.Store].
func (s *limits) Reset(ctx context.Context, counters []ratelimit.Counter) error {
	switch {
	case len(counters) > ratelimit.MaxRenew:
		return errCounters
	case s.ctx.Err() != nil:
		return errClosed
	case len(counters) == 0:
		return nil
	}
	a := new(arguments)
	for i := range counters {
		c := &counters[i]
		a.key(s.tag, "limit:", c.Policy, c.Key.Digest())
	}
	a.word(s.clock.time())
	words := a.list()
	_, err := s.run(ctx, resetScript, words[:len(counters)], words[len(counters):])
	return err
}

// arguments returns the keys of a decision, and the first argument of each script.
func (s *limits) arguments(d *ratelimit.Decision, asked []int) *arguments {
	a := new(arguments)
	for _, i := range asked {
		c := &d.Charges[i]
		part := "limit:"
		if c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
			part = "places:"
		}
		a.key(s.tag, part, c.Policy, c.Key.Digest())
	}
	a.text = append(append(a.text, s.tag...), "call:"...)
	a.id(d.ID)
	a.word(s.clock.time())
	return a
}
