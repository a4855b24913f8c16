package ratelimit

import (
	"context"
	"math/bits"
	"slices"
	"time"
)

// delayed returns l with room for the units that wait: those that it earns within d.
func (l Limit) delayed(d time.Duration) Limit {
	l.burst += l.room(d)
	return l
}

// room returns how many units a token bucket earns within d.
func (l *Limit) room(d time.Duration) int64 {
	hi, lo := bits.Mul64(uint64(d), uint64(l.quota))
	if l.algorithm != AlgorithmTokenBucket {
		return 0
	}
	per := uint64(l.per)
	if hi >= per {
		return maxQuota
	}
	n, _ := bits.Div64(hi, lo, per)
	return int64(min(n, maxQuota))
}

// faultsOfDelay returns what is wrong with l, which has no other faults, as the limit of a
// policy with a Delay.
func (p *Policy) faultsOfDelay(l Limit) []string {
	switch {
	case p.Delay <= 0 || l.quota == 0:
		return nil
	case l.algorithm != AlgorithmTokenBucket:
		return []string{"must be a token bucket, as Policy.Delay is set"}
	case l.room(p.Delay) == 0:
		return []string{"must earn a unit within Policy.Delay"}
	case len(l.delayed(p.Delay).faults()) > 0:
		return []string{"must not earn more within Policy.Delay than a burst can have"}
	default:
		return nil
	}
}

// join asks for a turn under each policy that delays the request. If a line is full, d is
// refused and all lines are as before.
func (d *decision) join(ctx context.Context) (ok bool) {
	full := 0 // the number of charges whose lines are full, which are moved to the front
	for i, p := range d.charged {
		c := &d.Charges[i]
		if p.pacers == nil || c.Cost == 0 || c.Limit.quota == 0 {
			continue
		}
		limit := c.Limit
		limit.burst -= limit.room(p.Delay)
		most := p.Delay
		if deadline, ok := ctx.Deadline(); ok {
			most = max(min(most, time.Until(deadline)), 0)
		}
		s, wait, ok := p.pacers.ask(c.Key, limit, c.Cost, most)
		if ok {
			d.seats = append(d.seats, s)
			continue
		}
		c.Violated, c.Remaining = true, 0
		if c.Wait = never; wait >= 0 {
			c.Wait = max(wait-p.Delay, 0)
		}
		c.Reset = max(c.Wait, 0)
		d.Charges[full], d.charged[full] = *c, p
		full++
	}
	if full == 0 {
		return true
	}
	d.withdraw()
	d.Admitted = false
	d.Charges, d.charged = d.Charges[:full], d.charged[:full]
	return false
}

// withdraw leaves the lines before the request has a turn.
func (d *decision) withdraw() {
	for i := range d.seats {
		d.seats[i].withdraw()
	}
	d.seats = d.seats[:0]
}

// wait waits for the turn of an admitted request: the last one, if there are several. It
// reports false if ctx has ended before.
func (d *decision) wait(ctx context.Context) bool {
	waits := false
	for i := range d.seats {
		if s := &d.seats[i]; s.take() {
			waits = true
			d.policyOf(s).decisions.Count(ctx, delayed)
		}
	}
	if !waits {
		return true
	}
	for i := range d.seats {
		s := &d.seats[i]
		if s.timer == nil {
			continue
		}
		select {
		case <-s.timer.C:
			s.stop()
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// policyOf returns the policy that s delays the request for.
func (d *decision) policyOf(s *seat) *policy {
	i := slices.IndexFunc(d.charged, func(p *policy) bool { return p.pacers == s.pacers })
	return d.charged[i]
}

// giveTurnBack gives back the turn that the request has had under p, or waits for.
func (d *decision) giveTurnBack(p *policy) {
	for i := range d.seats {
		if s := &d.seats[i]; s.pacers == p.pacers {
			s.giveBack()
		}
	}
}
