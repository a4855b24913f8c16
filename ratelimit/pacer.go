package ratelimit

import (
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/usher-go/usher/internal/shard"
)

const (
	// maxPacers is the number of keys of a policy that have a line.
	maxPacers = defaultKeys
	// maxDelayed is the number of requests that wait under a policy. Each holds a goroutine
	// and a connection.
	maxDelayed = 4096
	// slack is by how much a floating-point number of tokens may be wrong, as a time.
	slack = time.Microsecond
)

// pacers are the lines of a policy with a Delay, one for each key.
type pacers struct {
	cache   *shard.Cache[Key, *pacer]
	waiting atomic.Int64
}

func newPacers() *pacers { return &pacers{cache: shard.New[Key, *pacer](maxPacers, nil)} }

// A pacer is a line: it gives the requests of one key their turns at exactly the rate of
// the limit. The lock of its shard guards it, and pace is only called with instants that
// never go back.
//
// A [rate.Reservation] cannot be canceled unless it is the last one. So a request that is
// being decided reserves nothing, and only counts. What a request gives back later makes
// the clock of pace advance: pace then has the tokens, but never more than its burst, and
// those who wait move up.
type pacer struct {
	limit   Limit
	pace    *rate.Limiter
	ahead   time.Duration // by which the clock of pace is ahead
	asking  int64         // the units of the requests that are being decided
	waiting []*seat       // in the order of their turns
}

// A seat is the place of a request in a line.
type seat struct {
	pacers *pacers
	shard  *shard.Shard[Key, *pacer]
	pacer  *pacer
	units  int64
	// counted is set if the request is one of those that wait, or may have to.
	counted bool
	// at is when the turn comes. If the request has to wait, timer fires then.
	at    time.Time
	timer *time.Timer
}

// ask counts a request of these units, unless it would wait longer than most. It returns
// how long it would wait at most, which is negative if no wait helps.
func (ps *pacers) ask(key Key, limit Limit, units int64, most time.Duration) (s seat, wait time.Duration, ok bool) {
	s = seat{pacers: ps, shard: ps.cache.Shard(key), units: units}
	s.shard.Lock()
	defer s.shard.Unlock()
	l := ps.find(s.shard, key, limit)
	now := time.Now()
	l.change(limit, now)
	if units > limit.burst {
		return s, never, false
	}
	wait = l.earn(float64(l.asking+units) - l.pace.TokensAt(now.Add(l.ahead)))
	if wait > most+slack {
		return s, wait, false
	}
	if s.counted = wait > 0; s.counted && ps.waiting.Add(1) > maxDelayed {
		s.uncount()
		return s, wait, false
	}
	s.pacer = l
	l.asking += units
	return s, wait, true
}

// find returns the line of a key. The shard is locked.
func (ps *pacers) find(s *shard.Shard[Key, *pacer], key Key, limit Limit) *pacer {
	if l, ok := s.Get(key); ok {
		return l
	}
	// A line in use is kept, unless there are many at this end of the list: a key that has
	// lost its line would be served faster, though still within the bound of the store.
	for range 8 {
		oldest, l, ok := s.GetOldest()
		if !ok || len(l.waiting) == 0 && l.asking == 0 {
			break
		}
		s.Get(oldest)
	}
	l := &pacer{limit: limit, pace: rate.NewLimiter(limit.perSecond(), int(limit.burst))}
	s.Add(key.clone(), l)
	return l
}

// forget makes the line of key a new one. Those who wait in the old one have their turns.
func (ps *pacers) forget(key Key) {
	s := ps.cache.Shard(key)
	s.Lock()
	defer s.Unlock()
	s.Remove(key)
}

// perSecond returns the rate of a token bucket.
func (l *Limit) perSecond() rate.Limit { return rate.Limit(float64(l.quota) / l.per.Seconds()) }

// earn returns the time in which the line earns this number of tokens.
func (l *pacer) earn(tokens float64) time.Duration {
	return time.Duration(max(tokens, 0) / float64(l.pace.Limit()) * float64(time.Second))
}

// change makes the line that of another limit.
func (l *pacer) change(limit Limit, now time.Time) {
	if l.limit == limit {
		return
	}
	l.limit = limit
	l.pace.SetLimitAt(now.Add(l.ahead), limit.perSecond())
	l.pace.SetBurstAt(now.Add(l.ahead), int(limit.burst))
	l.moveUp(now)
}

// moveUp lets those who wait have their turns as early as pace has tokens. No turn is put
// off, even if the rate has become lower.
func (l *pacer) moveUp(now time.Time) {
	missing := -l.pace.TokensAt(now.Add(l.ahead))
	for _, s := range slices.Backward(l.waiting) {
		if at := now.Add(l.earn(missing)); at.Before(s.at) {
			s.at = at
			s.timer.Reset(at.Sub(now))
		}
		missing -= float64(s.units)
	}
}

// take gives s its turn. It reports whether the request has to wait for it.
func (s *seat) take() (waits bool) {
	s.shard.Lock()
	defer s.shard.Unlock()
	l, now := s.pacer, time.Now()
	l.asking -= s.units
	clock := now.Add(l.ahead)
	// The limit may have changed to one with a smaller burst.
	s.units = min(s.units, l.limit.burst)
	wait := l.pace.ReserveN(clock, int(s.units)).DelayFrom(clock)
	if s.at = now.Add(wait); wait == 0 {
		s.uncount()
		return false
	}
	if !s.counted {
		// Others that have asked later have taken their turns first.
		s.counted = true
		s.pacers.waiting.Add(1)
	}
	s.timer = time.NewTimer(wait)
	l.waiting = append(l.waiting, s)
	return true
}

// withdraw leaves the line before s has a turn.
func (s *seat) withdraw() {
	s.shard.Lock()
	defer s.shard.Unlock()
	s.pacer.asking -= s.units
	s.uncount()
}

// uncount records that the request does not wait.
func (s *seat) uncount() {
	if s.counted {
		s.counted = false
		s.pacers.waiting.Add(-1)
	}
}

// stop ends the wait of s.
func (s *seat) stop() {
	s.shard.Lock()
	defer s.shard.Unlock()
	s.leave()
}

func (s *seat) leave() {
	if s.timer == nil {
		return
	}
	s.timer.Stop()
	s.timer = nil
	s.uncount()
	if i := slices.Index(s.pacer.waiting, s); i >= 0 {
		s.pacer.waiting = slices.Delete(s.pacer.waiting, i, i+1)
	}
}

// giveBack gives the turn of s to those behind it, whether it has come or not.
func (s *seat) giveBack() {
	s.shard.Lock()
	defer s.shard.Unlock()
	s.leave()
	s.pacer.ahead += time.Duration(s.pacer.limit.span(s.units).whole)
	s.pacer.moveUp(time.Now())
}
