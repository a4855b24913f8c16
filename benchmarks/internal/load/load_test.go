package load_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/benchmarks/internal/load"
)

// A server responds to one request at a time and takes as long as it returns for the
// n-th.
type server struct {
	busy  chan int
	takes func(n int) time.Duration
}

func newServer(takes func(n int) time.Duration) *server {
	s := &server{make(chan int, 1), takes}
	s.busy <- 0
	return s
}

func (s *server) Send() error {
	n := <-s.busy
	time.Sleep(s.takes(n))
	s.busy <- n + 1
	return nil
}

func (s *server) senders(n int) []load.Sender {
	senders := make([]load.Sender, n)
	for i := range senders {
		senders[i] = s
	}
	return senders
}

func steady(d time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return d }
}

// about says whether got is want within the three digits of a histogram.
func about(got int64, want time.Duration) bool {
	return got >= int64(want)*998/1000 && got <= int64(want)*1002/1000
}

func TestOpenKeepsItsSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := load.Open(t.Context(), newServer(steady(100*time.Microsecond)).senders(4), 1000, 5000, nil)
		if r.Due != 5000 || r.Sent != 5000 || r.Failed != 0 || r.Latency.TotalCount() != 5000 {
			t.Errorf("%d due, %d sent, %d failed, %d measured; want 5000 without failure", r.Due, r.Sent, r.Failed, r.Latency.TotalCount())
		}
		// The last is due 4.999 s after the first.
		if want := 4999*time.Millisecond + 100*time.Microsecond; r.Elapsed != want {
			t.Errorf("elapsed %v, want %v", r.Elapsed, want)
		}
		if p := r.Latency.ValueAtPercentile(99.99); !about(p, 100*time.Microsecond) {
			t.Errorf("p99.99 %v, want 100µs", time.Duration(p))
		}
		if p := r.Late.Max(); p >= 100 { // what the histogram distinguishes
			t.Errorf("late by up to %v, want 0", time.Duration(p))
		}
	})
}

// A stall of 200 ms keeps 200 requests of 1000 a second waiting, 2 % of these: the
// first for all of it. The requests sent one after the other by Closed meet it once.
func TestOnlyOpenNoticesAStall(t *testing.T) {
	stalls := func(n int) time.Duration {
		if n == 2000 {
			return 200 * time.Millisecond
		}
		return 100 * time.Microsecond
	}
	synctest.Test(t, func(t *testing.T) {
		r := load.Open(t.Context(), newServer(stalls).senders(4), 1000, 10_000, nil)
		if r.Sent != 10_000 {
			t.Errorf("%d sent, want 10000", r.Sent)
		}
		if p := time.Duration(r.Latency.ValueAtPercentile(99.9)); p < 150*time.Millisecond {
			t.Errorf("p99.9 %v hides a stall of 200 ms", p)
		}
		if p := time.Duration(r.Late.Max()); p < 150*time.Millisecond {
			t.Errorf("late by %v at most although all four connections were stalled for 200 ms", p)
		}
		if p := r.Latency.ValueAtPercentile(50); !about(p, 100*time.Microsecond) {
			t.Errorf("median %v, want 100µs", time.Duration(p))
		}

		r = load.Closed(t.Context(), newServer(stalls).senders(1), 10*time.Second)
		if p := r.Latency.ValueAtPercentile(99.9); !about(p, 100*time.Microsecond) {
			t.Errorf("p99.9 of the closed loop %v: this test shows nothing", time.Duration(p))
		}
	})
}

// A server that is too slow for the schedule gets all requests all the same, and the
// latency grows to what the last one had to wait.
func TestOpenDoesNotSlowDownWithTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := load.Open(t.Context(), newServer(steady(2*time.Millisecond)).senders(8), 1000, 1000, nil)
		if r.Sent != 1000 || r.Elapsed != 2*time.Second {
			t.Errorf("%d sent in %v, want 1000 in 2s", r.Sent, r.Elapsed)
		}
		if p := r.Latency.Max(); !about(p, 1001*time.Millisecond) {
			t.Errorf("longest latency %v, want 1.001s", time.Duration(p))
		}
	})
}

func TestOpenEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 999500*time.Microsecond)
		defer cancel()
		r := load.Open(ctx, newServer(steady(time.Microsecond)).senders(3), 1000, 5000, nil)
		if r.Due != 5000 || r.Sent != 1000 {
			t.Errorf("%d of %d sent in the first second, want 1000 of 5000", r.Sent, r.Due)
		}
	})
}

func TestClosedSendsOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := load.Closed(t.Context(), newServer(steady(time.Millisecond)).senders(4), time.Second)
		// Each of the four has one more under way when the second is over.
		if r.Due != r.Sent || r.Sent < 1000 || r.Sent > 1004 {
			t.Errorf("%d sent of %d, want about 1000", r.Sent, r.Due)
		}
	})
}

type failing struct {
	n   int
	err error
}

func (f *failing) Send() error {
	f.n++
	if f.n%2 == 0 {
		return f.err
	}
	return nil
}

func TestFailuresAreCountedAndNotMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := errors.New("no response")
		r := load.Open(t.Context(), []load.Sender{&failing{err: err}}, 1000, 100, nil)
		if r.Sent != 100 || r.Failed != 50 || r.Latency.TotalCount() != 50 || !errors.Is(r.Err, err) {
			t.Errorf("%d sent, %d failed, %d measured, %v; want 100, 50, 50 and the error", r.Sent, r.Failed, r.Latency.TotalCount(), r.Err)
		}
	})
}
