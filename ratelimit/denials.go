package ratelimit

import (
	"crypto/sha256"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher/internal/shard"
)

// denials are refusals of a shared store that are repeated without asking it again.
//
// That is exact under policies that refund nothing: until the Wait of a violated charge has
// passed, other decisions can only leave less, so the same charge, or a larger one, does
// not fit. A denial is therefore kept only if no violated policy refunds, and no longer
// than the shortest Wait. That counts from before the call, and the store's begins later,
// so no denial lasts longer than it would in the store. A charge under another limit is
// another question, which the store is asked.
//
// Under any policy a charge may be refunded by way of exception: after a timeout, or because
// an inner limiter has refused the request. If this process does that, or resets a key, it
// forgets all denials. If another does, this is noticed when the denial ends. A nil
// *denials keeps nothing.
type denials struct {
	lasts time.Duration // the longest time for which a denial is kept
	kept  *shard.Cache[digest, *denial]
	// epoch counts the calls of forget.
	epoch atomic.Uint64
}

// maxDenials is how many denials are kept, at a few hundred bytes each. With more, the
// store is asked again.
const maxDenials = 16_384

// A digest identifies what a decision asks for, except for the limits.
type digest [sha256.Size]byte

// A denial has the results of a refused decision.
type denial struct {
	epoch           uint64
	reported, until time.Time
	results         []denied
}

type denied struct {
	limit       Limit
	violated    bool
	remaining   int64
	reset, wait time.Duration
}

// A moment is a time between two calls of forget.
type moment struct {
	epoch uint64
	at    time.Time
}

func newDenials(lasts time.Duration) *denials {
	if lasts == 0 {
		return nil
	}
	return &denials{lasts: lasts, kept: shard.New[digest, *denial](maxDenials, nil)}
}

// now returns the present moment, for keep.
func (k *denials) now() moment {
	if k == nil {
		return moment{}
	}
	return moment{k.epoch.Load(), time.Now()}
}

// keep keeps a refused decision that the store was asked for after a moment. It keeps
// nothing if the refusal may end at any time.
func (k *denials) keep(d *Decision, asked moment) {
	if k == nil || d.Admitted || d.Peek {
		return
	}
	kept := &denial{epoch: asked.epoch, reported: time.Now(), results: make([]denied, len(d.Charges))}
	lasts := k.lasts
	for i := range d.Charges {
		c := &d.Charges[i]
		kept.results[i] = denied{c.Limit, c.Violated, c.Remaining, c.Reset, c.Wait}
		switch {
		case !c.Violated:
		case !c.final || c.Wait == 0:
			return
		case c.Wait > 0:
			lasts = min(lasts, c.Wait)
		}
	}
	kept.until = asked.at.Add(lasts)
	id := identify(d)
	s := k.kept.Shard(id)
	s.Lock()
	defer s.Unlock()
	s.Add(id, kept)
}

// repeat sets the results of d if it is known to be refused.
func (k *denials) repeat(d *Decision) bool {
	if k == nil || d.Peek {
		return false
	}
	id := identify(d)
	s := k.kept.Shard(id)
	s.Lock()
	kept, ok := s.Get(id)
	s.Unlock()
	now := time.Now()
	if !ok || kept.epoch != k.epoch.Load() || !now.Before(kept.until) {
		return false
	}
	for i := range d.Charges {
		if kept.results[i].limit != d.Charges[i].Limit {
			return false
		}
	}
	d.Admitted = false
	age := now.Sub(kept.reported)
	for i := range d.Charges {
		c, o := &d.Charges[i], &kept.results[i]
		c.Violated, c.Remaining = o.violated, o.remaining
		c.Reset, c.Wait = aged(o.reset, age), aged(o.wait, age)
	}
	return true
}

// aged returns what is left of a time. Zero and less have meanings of their own, and stay.
func aged(t, age time.Duration) time.Duration {
	if t <= 0 {
		return t
	}
	return max(t-age, 1)
}

// forget forgets all denials, and those of calls that are running. It is called after a
// key was reset in the store.
func (k *denials) forget() {
	if k != nil {
		k.epoch.Add(1)
	}
}

// identify returns the digest of what d asks for.
func identify(d *Decision) digest {
	var room [256]byte
	b := room[:0]
	for i := range d.Charges {
		c := &d.Charges[i]
		b = strconv.AppendInt(b, int64(len(c.Policy)), 10)
		b = append(b, ':')
		b = append(b, c.Policy...)
		b = c.Key.append(b)
		b = strconv.AppendInt(b, c.Cost, 10)
		b = append(b, ':')
		b = strconv.AppendInt(b, c.MinRemaining, 10)
		b = append(b, ':')
	}
	return sha256.Sum256(b)
}
